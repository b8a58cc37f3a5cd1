"""How fast a run learned: when its validation accuracy first reached each mark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

MARKS = (50, 90, 99)
"""Validation symbol accuracies, in %, for which the time to reach them is reported."""
SOLVED = 0.99
"""Validation accuracy that counts as solved when two consecutive validations reach it."""


def milestones(history: pa.Table) -> dict[str, Any]:
    """Return `steps_to_50`, `rows_to_50`, ...: optimizer steps and training rows at the first validation that reached each mark, None if none did.

    `solved`: whether two consecutive validations reached 99 %; None for a run that was never validated. Needs the columns step, rows and
    validation_accuracy; rows without validation are skipped.
    """
    step, rows, accuracy = (_known(history, name) for name in ("step", "rows", "validation_accuracy"))
    result: dict[str, Any] = {}
    for mark in MARKS:
        first = first_at(accuracy, mark)
        result[f"steps_to_{mark}"] = None if first is None else int(step[first])
        result[f"rows_to_{mark}"] = None if first is None else int(rows[first])
    high = accuracy >= SOLVED
    result["solved"] = bool(np.any(high[1:] & high[:-1])) if len(high) else None
    return result


def first_at(accuracy: np.ndarray, mark: int) -> int | None:
    """Return the index of the first accuracy (0..1) of at least `mark` %, None if there is none."""
    reached = np.flatnonzero(accuracy >= mark / 100)
    return int(reached[0]) if len(reached) else None


def _known(history: pa.Table, name: str) -> np.ndarray:
    """Return a column at the validations only."""
    accuracy = history.column("validation_accuracy").to_numpy().astype(np.float64)
    return history.column(name).to_numpy()[~np.isnan(accuracy)]
