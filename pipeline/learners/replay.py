"""A replay buffer. Rows are immutable once appended, so that checkpoints write each of them only once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Replay:
    """A ring buffer of the last `capacity` rows, on the CPU. A row is one entry of each of several named tensors.

    Rows are numbered from 0 in the order of insertion; `count` rows were appended so far, and those from `first` on are still stored.
    A learner puts the buffer itself into its `state_dict`; `pipeline.training.checkpoint` saves it in segments of rows, which later
    checkpoints link.
    """

    def __init__(self, capacity: int) -> None:
        assert capacity > 0
        self.capacity = capacity
        self.count = 0
        self._held: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    @property
    def first(self) -> int:
        """Number of the oldest row still stored."""
        return self.count - len(self)

    def append(self, rows: dict[str, Tensor]) -> None:
        """Append rows; all tensors have the same length. The oldest rows are overwritten when the buffer is full."""
        length = len(next(iter(rows.values())))
        if not self._held:
            self._held = {name: values.new_empty((self.capacity, *values.shape[1:]), device="cpu") for name, values in rows.items()}
        assert rows.keys() == self._held.keys() and all(len(values) == length for values in rows.values()), "rows unlike those before"
        places = self._places(np.arange(max(self.count + length - self.capacity, self.count), self.count + length))
        for name, values in rows.items():
            self._held[name][places] = values[length - len(places) :].detach().cpu()
        self.count += length

    def rows(self, numbers: np.ndarray) -> dict[str, Tensor]:
        """Return copies of the rows with the given numbers."""
        assert len(numbers) == 0 or (numbers.min() >= self.first and numbers.max() < self.count), "no longer held, or not yet"
        return {name: held[self._places(numbers)] for name, held in self._held.items()}

    def sample(self, size: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Sample rows uniformly with replacement."""
        return self.rows(random.integers(self.first, self.count, size))

    def skip(self, count: int) -> None:
        """Set the number of the next row, before any is appended: to restore a checkpoint whose first rows are no longer stored."""
        assert not self._held, "not empty"
        self.count = count

    def _places(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers % self.capacity)
