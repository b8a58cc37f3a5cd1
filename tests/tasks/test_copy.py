"""The copy task: every label against an oracle, the layout, the distributions and the splits."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.base import Distribution
from pipeline.config.tasks import Copy as Config
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.base import BUCKETS, canonical_hash
from pipeline.tasks.copy import Copy
from tests.tasks.oracle import answer, check_row

KEY = derive_key("test", 0)
SPLITS = ("train", "validation", "test")


def draws(largest: int) -> st.SearchStrategy[Any]:
    """A fixed number or either distribution."""
    bounds = st.tuples(st.integers(1, largest), st.integers(1, largest)).map(sorted).map(tuple)
    spread = st.tuples(st.sampled_from(["uniform", "log_uniform"]), bounds).map(lambda pair: {pair[0]: pair[1]})
    return st.integers(1, largest) | spread


CONFIGS = st.builds(
    Config,
    symbols=draws(6),
    delay=draws(12),
    alphabet=st.integers(2, 12),
    recall=st.sampled_from(["forward", "reverse"]),
    selective=st.booleans(),
    noise=st.integers(0, 3),
)


def generate(
    rows: int, *, key: int = 0, split: Any = "train", level: int | None = None, column: str | None = None, **fields: Any
) -> pa.RecordBatch:
    """Rows of a copy task with these fields."""
    return Copy(Config(**fields)).generate(rows, derive_key("test", key), level, column, split)


def values(batch: pa.RecordBatch, name: str) -> list[Any]:
    return batch.column(name).to_pylist()


@settings(max_examples=150, deadline=None)
@given(config=CONFIGS, rows=st.integers(0, 20), split=st.sampled_from(SPLITS), key=st.integers(0, 1000))
def test_every_row_is_what_the_oracle_says(config: Config, rows: int, split: Any, key: int) -> None:
    batch = Copy(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        check_row(row, config.alphabet, config.recall, config.selective, config.noise)
        assert row["delay"] <= config.longest and len(row["tokens"]) <= config.longest
        assert max(row["tokens"]) < config.vocabulary and max(row["target"]) < config.classes


def test_the_classic_layout() -> None:
    symbols, delay, alphabet = 4, 7, 8
    batch = generate(50, symbols=symbols, delay=delay, alphabet=alphabet)
    for tokens, target in zip(values(batch, "tokens"), values(batch, "target"), strict=True):
        assert [place for place, token in enumerate(tokens) if token == alphabet + 1] == [symbols + delay - 1]
        assert tokens[:symbols] == target
        assert tokens[symbols : symbols + delay - 1] == [alphabet] * (delay - 1)
        assert alphabet + 2 not in tokens  # padding is the loader's
        lags = [(symbols + delay + place) - tokens[:symbols].index(symbol) for place, symbol in enumerate(target)]
        assert max(lags) == symbols + delay or len(set(target)) < symbols


def test_reverse_mirrors_forward() -> None:
    forward, reverse = (generate(30, symbols=5, delay={"uniform": (1, 9)}, recall=recall) for recall in ("forward", "reverse"))
    assert values(forward, "tokens") == values(reverse, "tokens")
    assert [target[::-1] for target in values(forward, "target")] == values(reverse, "target")


def test_the_smallest_task() -> None:
    batch = generate(40, symbols=1, delay=1, alphabet=2)
    assert {tuple(tokens) for tokens in values(batch, "tokens")} == {(0, 3, 2), (1, 3, 2)}


def test_the_largest_alphabet_fits() -> None:
    config = Config(symbols=50, delay=60, alphabet=60_000, noise=4_096)
    row = Copy(config).generate(20, KEY).to_pylist()[0]
    check_row(row, 60_000, "forward", False, 4_096)
    assert max(row["target"]) > 40_000 and max(row["tokens"]) < config.vocabulary <= 65_536


def test_lists_have_one_length_where_the_task_fixes_it() -> None:
    def kinds(**fields: Any) -> tuple[str, str]:
        schema = generate(5, **fields).schema
        return str(schema.field("tokens").type), str(schema.field("target").type)

    item = "element: uint16 not null"
    assert kinds(symbols=2, delay=3) == (f"fixed_size_list<{item}>[7]", f"fixed_size_list<{item}>[2]")
    assert kinds(symbols=2, delay={"uniform": (3, 3)}) == (f"list<{item}>", f"fixed_size_list<{item}>[2]")
    assert kinds(symbols={"uniform": (2, 3)}, delay=3) == (f"list<{item}>", f"list<{item}>")


def test_rows_depend_on_the_key_and_the_split_only() -> None:
    fields: dict[str, Any] = {"symbols": 10, "delay": {"log_uniform": (1, 30)}, "noise": 2, "selective": True}
    assert generate(50, **fields).equals(generate(50, **fields))
    others = [generate(50, key=key, split=split, **fields) for key in (0, 1) for split in SPLITS]
    seen = {(tuple(row["target"]), row["delay"]) for batch in others for row in batch.to_pylist()}
    assert len(seen) == 300


# Distributions


def share(batch: pa.RecordBatch, name: str) -> dict[int, float]:
    return {value: count / batch.num_rows for value, count in Counter(values(batch, name)).items()}


@pytest.mark.parametrize("level", [None, 100, 20, 3, 2])
def test_log_uniform_delays_and_their_curriculum(level: int | None) -> None:
    found = share(generate(20_000, symbols=1, delay={"log_uniform": (2, 100)}, level=level), "delay")
    top = min(level or 100, 100)
    expected = {delay: math.log((delay + 1) / delay) / math.log((top + 1) / 2) for delay in range(2, top + 1)}
    assert set(found) <= set(expected)
    for delay, probability in expected.items():
        assert found.get(delay, 0) == pytest.approx(probability, abs=5 * math.sqrt(probability / 20_000))


def test_uniform_symbols_and_their_curriculum() -> None:
    fields: dict[str, Any] = {"symbols": {"uniform": (2, 9)}, "delay": {"uniform": (1, 5)}}
    batch = generate(20_000, level=5, column="symbols", **fields)
    assert share(batch, "symbols") == pytest.approx(dict.fromkeys(range(2, 6), 0.25), abs=0.02)
    assert share(batch, "delay") == pytest.approx(dict.fromkeys(range(1, 6), 0.2), abs=0.02)


def test_a_level_below_every_row() -> None:
    with pytest.raises(UserError, match="copy: no row has delay <= 4, the smallest is 5; start the curriculum there"):
        generate(3, delay={"uniform": (5, 9)}, level=4)
    with pytest.raises(UserError, match="copy: no row has symbols <= 2, the smallest is 3"):
        generate(3, symbols=3, level=2, column="symbols")


def test_symbols_are_uniform_and_independent() -> None:
    batch = generate(40_000, symbols=4, delay=1, alphabet=8)
    target = np.array(values(batch, "target"))
    for place in range(4):
        assert np.bincount(target[:, place], minlength=8) / 40_000 == pytest.approx(np.full(8, 1 / 8), abs=0.01)
    pairs = np.bincount(target[:, 0] * 8 + target[:, 1], minlength=64) / 40_000
    assert pairs == pytest.approx(np.full(64, 1 / 64), abs=0.005)


def test_every_choice_of_scattered_places_is_equally_likely() -> None:
    batch = generate(12_000, symbols=2, delay=4, selective=True, noise=1)
    places = Counter(tuple(place for place, token in enumerate(tokens[:5]) if token < 8) for tokens in values(batch, "tokens"))
    assert set(places) == set(combinations(range(5), 2))
    assert np.array(list(places.values())) / 12_000 == pytest.approx(np.full(10, 0.1), abs=0.015)


def test_noise_tokens_are_equally_likely() -> None:
    tokens = np.array(values(generate(3000, symbols=1, delay=21, noise=4), "tokens"))[:, 1:21]
    assert np.bincount(tokens.ravel())[11:] / tokens.size == pytest.approx(np.full(4, 0.25), abs=0.01)


# Splits


def questions(**fields: Any) -> dict[str, set[tuple[Any, ...]]]:
    """The different (symbols, delay) of many rows of each split."""
    batches = {split: generate(15_000, split=split, **fields) for split in SPLITS}
    return {split: set(zip(map(tuple, values(batch, "target")), values(batch, "delay"), strict=True)) for split, batch in batches.items()}


@pytest.mark.parametrize("fields", [{"selective": True, "noise": 2}, {"recall": "reverse"}, {}], ids=str)
def test_no_row_is_in_two_splits(fields: dict[str, Any]) -> None:
    found = questions(symbols=3, alphabet=10, delay={"uniform": (1, 2)}, **fields)
    sizes = {split: len(rows) / 2000 for split, rows in found.items()}
    assert not any(found[one] & found[two] for one, two in combinations(SPLITS, 2))
    assert sizes == pytest.approx({split: (high - low) / 100 for split, (low, high) in BUCKETS.items()}, abs=0.03)
    assert sum(map(len, found.values())) > 1980


def test_tasks_too_small_to_be_kept_apart_work_and_say_so() -> None:
    fields: dict[str, Any] = {"symbols": {"uniform": (1, 4)}, "alphabet": 8, "delay": 2}
    found = questions(**fields)
    short = {split: {row for row in rows if len(row[0]) <= 3} for split, rows in found.items()}
    long = {split: {row for row in rows if len(row[0]) == 4} for split, rows in found.items()}
    assert len({frozenset(rows) for rows in ({row for row in rows if len(row[0]) < 3} for rows in short.values())}) == 1
    assert not any(long[one] & long[two] for one, two in combinations(SPLITS, 2))
    assert "except rows of fewer than 4 symbols" in Copy(Config(**fields)).overlap()


def test_the_hash_sees_symbols_order_count_and_delay_only() -> None:
    def one(symbols: list[int], delay: int) -> int:
        return int(canonical_hash(np.array(symbols, np.uint16), np.array([len(symbols)]), np.array([delay]))[0])

    rows = [([1, 2], 3), ([2, 1], 3), ([1, 2], 4), ([1, 2, 0], 3), ([0, 1, 2], 3), ([1], 3), ([0, 0], 3), ([0], 3)]
    together = canonical_hash(
        np.array([token for symbols, _ in rows for token in symbols], np.uint16),
        np.array([len(symbols) for symbols, _ in rows]),
        np.array([delay for _, delay in rows]),
    )
    assert together.tolist() == [one(*row) for row in rows]
    assert len(set(together.tolist())) == len(rows)


# Score


def score_of(batch: pa.RecordBatch, guesses: list[list[int]]) -> dict[str, list[Any]]:
    """Score guesses for the answers of equally long rows."""
    roles = np.array([list(role) for role in values(batch, "role")])
    scored, hits = roles == 3, np.zeros(roles.shape, bool)
    hits[scored] = (np.array(guesses) == np.array(values(batch, "target"))).ravel()
    loss = np.where(scored, 0.5, 1e9)
    return {name: column.to_pylist() for name, column in Copy(Config()).score(scored, hits, loss).items()}


def test_an_oracle_scores_everything_and_a_shifted_one_chance() -> None:
    batch = generate(3000, symbols=10, delay=5)
    right = [answer(tokens[:15], 8, "forward") for tokens in values(batch, "tokens")]
    perfect = score_of(batch, right)
    assert perfect["correct"] == perfect["scored"] == [10] * 3000
    assert perfect["loss"] == pytest.approx([5.0] * 3000)
    assert perfect["hits"] == [[1] * 10] * 3000
    shifted = score_of(batch, [row[1:] + row[:1] for row in right])
    assert sum(shifted["correct"]) / 30_000 == pytest.approx(Config().chance, abs=0.01)
    assert [sum(hits) for hits in shifted["hits"]] == shifted["correct"]


def test_scores_of_rows_of_different_lengths() -> None:
    scored = np.array([[False, True, True], [True, False, False], [False, False, False]])
    hits = np.array([[True, False, True], [True, True, True], [True, True, True]])
    columns = Copy(Config()).score(scored, hits, np.arange(9.0).reshape(3, 3))
    assert {name: column.to_pylist() for name, column in columns.items()} == {
        "scored": [2, 1, 0],
        "correct": [1, 1, 0],
        "loss": [3.0, 3.0, 0.0],
        "hits": [[0, 1], [1], []],
    }
    assert [str(column.type) for column in columns.values()] == ["int32", "int32", "float", "list<element: uint8 not null>"]


def test_many_scattered_rows_are_drawn_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tasks.copy.CELLS", 50)
    batch = generate(200, symbols={"uniform": (1, 5)}, delay={"uniform": (1, 20)}, selective=True)
    for row in batch.to_pylist():
        check_row(row, 8, "forward", True, 0)


def test_bounds_of_distributions_are_both_drawn() -> None:
    spread = Distribution(uniform=(3, 4))
    assert set(values(generate(100, symbols=1, delay=spread), "delay")) == {3, 4}
