"""Curriculum learning: an upper bound on a metadata column that grows as rows with smaller values are mastered."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.learners import Curriculum
from pipeline.learners.base import Problem
from pipeline.storage.loader import DatasetRows


class Level:
    """The curriculum's state: the current level, and the accuracy on its hardest rows in the current window.

    Every `window` batches, the accuracy over the scored positions of rows with column >= upper x level is compared with the threshold; if it is
    reached, the level is multiplied by the factor, up to the largest value. A window avoids synchronising with the device at every step.

    values: the distinct values of the column, ascending. The level is always one of them, so that there are rows to measure.
    """

    def __init__(self, config: Curriculum, values: np.ndarray) -> None:
        self.config, self.values = config, values
        self.value = self._at_most(config.start, 0)
        self._reset_window()

    @property
    def largest(self) -> int:
        """The level at which all rows are included."""
        return int(self.values[-1])

    def _at_most(self, level: float, least: int) -> int:
        """Return the largest value <= `level`, but at least the one at index `least`."""
        return int(self.values[max(int(np.searchsorted(self.values, level, side="right")) - 1, least)])

    @property
    def limit(self) -> int | None:
        """Largest column value that is included; None: all."""
        return self.value if self.value < self.largest else None

    def observe(self, column_B: np.ndarray, row_N: Tensor, correct_N: Tensor) -> None:
        """Count one batch: the column of its rows, and for each scored position its row (on the CPU) and whether it was correct."""
        if self.limit is None:
            return
        judged_N = torch.from_numpy(column_B >= self.config.upper * self.value)[row_N]
        self._judged += int(judged_N.sum())
        self._right = self._right + (correct_N & judged_N.to(correct_N.device)).sum()
        self._batches += 1
        if self._batches >= self.config.window and self._judged:
            self._end_window()

    def _end_window(self) -> None:
        if float(self._right) / self._judged >= self.config.threshold:
            following = int(np.searchsorted(self.values, self.value, side="right"))
            self.value = self._at_most(self.value * self.config.factor, following)
        self._reset_window()

    def _reset_window(self) -> None:
        self._batches, self._judged, self._right = 0, 0, torch.zeros((), dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        """Return the level and the counts of the current window."""
        return {"value": self.value, "batches": self._batches, "judged": self._judged, "right": self._right}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved level."""
        self.value, self._batches, self._judged, self._right = (state[key] for key in ("value", "batches", "judged", "right"))


def make_level(config: Curriculum | None, problem: Problem) -> Level | None:
    """The curriculum before training; its levels are the values of its column in the training rows.

    Where these are generated, all values between the smallest and the largest of the validation rows.
    """
    if config is None:
        return None
    if problem.train is not None:
        return Level(config, np.unique(problem.train.column(config.column)))
    assert isinstance(problem.validation, DatasetRows), "a curriculum filters rows"
    found = problem.validation.column(config.column)
    return Level(config, np.arange(found.min(), found.max() + 1))
