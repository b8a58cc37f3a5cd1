"""What token tasks share: hashing, splits, the form of rows."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tasks.base import BUCKETS, Ragged, hash_weights, in_split, mix, rows_of


def test_mix_is_splitmix64() -> None:
    """First outputs of SplitMix64 seeded with 0, as published with it."""
    states = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert [hex(word) for word in mix(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_weights_are_odd_different_and_do_not_depend_on_how_many_are_asked_for() -> None:
    weights = hash_weights(1000)
    assert (weights % np.uint64(2) == 1).all()
    assert len(set(weights.tolist())) == 1000
    assert (hash_weights(10) == weights[:10]).all()


def test_every_row_is_in_one_split_and_the_shares_are_right() -> None:
    hashes = np.arange(100_000, dtype=np.uint64)
    member = {split: in_split(hashes, split) for split in ("train", "validation", "test")}
    assert (np.sum(list(member.values()), axis=0) == 1).all()
    for split, flags in member.items():
        low, high = BUCKETS[split]
        assert flags.mean() == pytest.approx((high - low) / 100, abs=0.01)


def test_rows_have_the_form_of_a_shard() -> None:
    tokens = Ragged(np.array([1, 2, 3]), np.array([2, 1]), False)
    batch = rows_of(tokens, [b"\0\1", b"\0"], np.array([0, 1]), {"delay": np.array([4, 5])}, padding=9)
    assert batch.to_pylist() == [{"tokens": [1, 2], "role": b"\0\1", "delay": 4}, {"tokens": [3], "role": b"\0", "delay": 5}]
    assert [str(field.type) for field in batch.schema] == ["list<element: uint16 not null>", "binary", "int32"]
    assert batch.schema.metadata == {b"padding": b"9"}


def test_real_numbers_of_tokens_and_answers_are_float32() -> None:
    tokens = Ragged(np.array([1, 2, 3]), np.array([2, 1]), False)
    values = Ragged(np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]), np.array([4, 2]), False)
    target = Ragged(np.array([0.25]), np.array([1, 0]), False)
    batch = rows_of(tokens, [b"\0\1", b"\0"], np.array([0, 1]), {}, padding=9, target=target, values=values)
    assert batch.column("values").to_pylist() == [[0.5, 1.5, 2.5, 3.5], [4.5, 5.5]]
    assert batch.column("target").to_pylist() == [[0.25], []]
    assert {str(batch.schema.field(name).type) for name in ("values", "target")} == {"list<element: float not null>"}


def test_no_rows_are_rows_too() -> None:
    empty = np.empty(0, np.int64)
    batch = rows_of(Ragged(empty, empty, True), [], empty, {"delay": empty}, padding=0, target=Ragged(empty, empty, False))
    assert batch.num_rows == 0 and batch.schema.names == ["tokens", "role", "target", "delay"]
