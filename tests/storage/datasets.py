"""Small sealed datasets for the tests of the loader, with their content as plain lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.storage.manifest import seal
from pipeline.storage.shards import shard_name, write_shard
from pipeline.tasks.base import Ragged, rows_of

PADDING = 77


class Sample(NamedTuple):
    """A dataset on disk and its rows in plain Python."""

    folder: Path
    tokens: list[list[int]]
    roles: list[list[int]]
    target: list[list[int]] | None
    level: list[int]
    values: list[list[list[float]]]


def make_dataset(
    folder: Path, shards: list[int], longest: int = 9, fixed: bool = False, labelled: bool = True, seed: int = 0, features: int = 0
) -> Sample:
    """Write a dataset with as many rows per shard as `shards` says: random tokens, random roles, perhaps random labels.

    features: real numbers per token; where there are some, labels are real too.
    """
    rng = np.random.default_rng(seed)
    sample = Sample(folder, [], [], [] if labelled else None, [], [])
    for index, rows in enumerate(shards):
        lengths = np.full(rows, longest) if fixed else rng.integers(1, longest, size=rows, endpoint=True)
        tokens = [rng.integers(50_000, size=length).tolist() for length in lengths]
        roles = [[0, *rng.integers(4, size=length - 1).tolist()] for length in lengths]
        counts = [sum(role in (1, 3) for role in row) for row in roles]
        target = [
            (rng.normal(size=count).astype(np.float32) if features else rng.integers(50_000, size=count)).tolist() for count in counts
        ]
        values = [rng.normal(size=(length, features)).astype(np.float32).tolist() for length in lengths]
        level = rng.integers(10, size=rows)
        distinct = sorted({bytes(row) for row in roles})
        batch = rows_of(
            tokens=ragged(tokens, fixed),
            layouts=distinct,
            layout_B=np.array([distinct.index(bytes(row)) for row in roles], np.int64),
            columns={"level": level},
            padding=PADDING,
            target=ragged(target, False, np.float32 if features else np.uint16) if labelled else None,
            values=ragged([sum(row, []) for row in values], fixed, np.float32) if features else None,
        )
        write_shard(folder / shard_name(index), batch, {"shard": str(index)})
        sample.tokens.extend(tokens)
        sample.roles.extend(roles)
        sample.values.extend(values)
        sample.level.extend(level.tolist())
        if sample.target is not None:
            sample.target.extend(target)
    seal(folder, [shard_name(index) for index in range(len(shards))], {"rows": sum(shards)})
    return sample


def ragged(lists: list[list[Any]], fixed: bool, kind: Any = np.uint16) -> Ragged:
    """Plain lists end to end."""
    return Ragged(np.array(sum(lists, []), kind), np.array([len(items) for items in lists], np.int64), fixed)
