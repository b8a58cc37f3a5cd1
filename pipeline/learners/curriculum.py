"""Curricula: a growing filter on a metadata column, which admits larger values as smaller ones are mastered."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.learners import Curriculum
from pipeline.learners.base import Problem
from pipeline.storage.loader import DatasetRows


class Level:
    """The curriculum's state: the present level, and the accuracy on its hardest rows since it was last judged.

    Judged every `window` batches, from the scored positions of rows with column >= upper x level; from the threshold on the level is
    multiplied by the factor, up to the largest value. Judging in windows keeps the host from waiting for the device at every step.

    values: what rows hold in the column, each once, ascending. A level is always one of them, so that there are rows to judge by.
    """

    def __init__(self, config: Curriculum, values: np.ndarray) -> None:
        self.config, self.values = config, values
        self.value = self._at_most(config.start, 0)
        self._forget()

    @property
    def largest(self) -> int:
        """The level from which on all rows are admitted."""
        return int(self.values[-1])

    def _at_most(self, level: float, least: int) -> int:
        """The largest value up to `level`, but not below the one at index `least`."""
        return int(self.values[max(int(np.searchsorted(self.values, level, side="right")) - 1, least)])

    @property
    def limit(self) -> int | None:
        """Largest column value that is admitted; None: all."""
        return self.value if self.value < self.largest else None

    def observe(self, column_B: np.ndarray, row_N: Tensor, right_N: Tensor) -> None:
        """Count one batch: its rows' column, and for each scored position its row (on the CPU) and whether it was correct."""
        if self.limit is None:
            return
        judged_N = torch.from_numpy(column_B >= self.config.upper * self.value)[row_N]
        self._judged += int(judged_N.sum())
        self._right = self._right + (right_N & judged_N.to(right_N.device)).sum()
        self._batches += 1
        if self._batches >= self.config.window and self._judged:
            self._judge()

    def _judge(self) -> None:
        if float(self._right) / self._judged >= self.config.threshold:
            following = int(np.searchsorted(self.values, self.value, side="right"))
            self.value = self._at_most(self.value * self.config.factor, following)
        self._forget()

    def _forget(self) -> None:
        self._batches, self._judged, self._right = 0, 0, torch.zeros((), dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        """Level, and the counts of the present window."""
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
