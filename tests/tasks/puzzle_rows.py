"""Rows of a puzzle task as arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.config.catalogue import implementation
from pipeline.storage.rng import derive_key
from pipeline.tasks.base import Split


class Boards(NamedTuple):
    """Tokens and labels of each row, and its metadata."""

    tokens_BT: np.ndarray
    target_BT: np.ndarray
    columns: dict[str, np.ndarray]


def task_of(config: Any) -> Any:
    """The implementation of a task."""
    return implementation(config)(config)


def boards_of(task: Any, rows: int, split: Split = "train", *key: str | int) -> Boards:
    """Rows from a key of their own."""
    batch = task.generate(rows, derive_key("puzzle rows", *key), split=split)
    tokens, target = (np.array(batch.column(name).to_pylist(), np.uint8).reshape(rows, -1) for name in ("tokens", "target"))
    return Boards(tokens, target, {name: np.array(batch.column(name).to_pylist()) for name in task.config.columns})
