"""A replay buffer, whose rows never change once they are appended: a checkpoint writes each of them once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Replay:
    """The last `capacity` rows that were appended, on the CPU. A row is one entry of each of some tensors, by name.

    Rows are numbered from 0 in the order in which they came; `count` have come so far, and those from `first` on are still held.
    It is part of a learner's `state_dict` as it is. `pipeline.training.checkpoint` saves it in segments of rows, which later checkpoints link.
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
        """The number of the oldest row that is held."""
        return self.count - len(self)

    def append(self, rows: dict[str, Tensor]) -> None:
        """Add rows, all tensors of one length; the oldest are dropped where there is no room."""
        length = len(next(iter(rows.values())))
        if not self._held:
            self._held = {name: values.new_empty((self.capacity, *values.shape[1:]), device="cpu") for name, values in rows.items()}
        assert rows.keys() == self._held.keys() and all(len(values) == length for values in rows.values()), "rows unlike those before"
        places = self._places(np.arange(max(self.count + length - self.capacity, self.count), self.count + length))
        for name, values in rows.items():
            self._held[name][places] = values[length - len(places) :].detach().cpu()
        self.count += length

    def rows(self, numbers: np.ndarray) -> dict[str, Tensor]:
        """Copies of the rows of these numbers."""
        assert len(numbers) == 0 or (numbers.min() >= self.first and numbers.max() < self.count), "no longer held, or not yet"
        return {name: held[self._places(numbers)] for name, held in self._held.items()}

    def sample(self, size: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Rows drawn uniformly with replacement."""
        return self.rows(random.integers(self.first, self.count, size))

    def skip(self, count: int) -> None:
        """Number the next row `count`, before any was appended: what a checkpoint does whose first rows are no longer held."""
        assert not self._held, "not empty"
        self.count = count

    def _places(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers % self.capacity)
