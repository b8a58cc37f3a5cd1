"""Random keys: different purposes get different random numbers, the same on every machine."""

from __future__ import annotations

from itertools import product

import numpy as np

from pipeline.storage.rng import derive_key, generator


def test_a_key_depends_on_every_part_and_their_order() -> None:
    parts = ["rows", "rows1", "epoch", 0, 1, 2, 10, 11, None, ""]
    keys = {derive_key(*pair) for pair in product(parts, parts)} | {derive_key(part) for part in parts}
    assert len(keys) == len(parts) ** 2 + len(parts)


def test_neighbouring_datasets_and_shards_never_share_a_key() -> None:
    keys = [derive_key("rows", f"copy-{dataset:08x}", shard) for dataset in range(150) for shard in range(150)]
    assert len(set(keys)) == len(keys)


def test_golden_key_and_numbers() -> None:
    key = derive_key("rows", "copy-12345678", 0)
    assert key[:3] == (1238488996, 170013903, 2510193713)
    assert generator(key).integers(1000, size=4).tolist() == [356, 171, 35, 859]


def test_generators_of_one_key_agree_and_of_two_do_not() -> None:
    first, again, other = (generator(derive_key("x", part)).random(100) for part in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.isin(first, other).any()
