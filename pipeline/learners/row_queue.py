"""A queue of training rows on the device: rows that have halted are replaced by the next ones without the host knowing how many.

The host reads the cursor once in `PATIENCE` replacements: by each at most a batch is taken, so that PATIENCE batches wait. Which rows are taken
does not depend on that: they are those of the sampler, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.learners.sampler import Batch, Sampler
from pipeline.ops.state import transform

PATIENCE = 64
"""Replacements between two readings of the cursor."""


class Rows(NamedTuple):
    """Rows on the device: tokens, labels (negative where a cell has none), and what else the network reads, by its argument's name."""

    tokens_BT: Tensor  # int64
    labels_BT: Tensor  # int64
    inputs: dict[str, Tensor]

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Rows:
        """Copy a batch to the device."""
        inputs = batch.inputs(device)
        return cls(inputs.pop("tokens_BT"), batch.labels_BT.to(device, non_blocking=True), inputs)

    def map(self, by: Callable[..., Tensor], *others: Rows) -> Rows:
        """Apply a function to each tensor and the corresponding ones of other rows."""
        return transform(by, self, *others)

    def part(self, rows: slice) -> Rows:
        """Return a slice of the rows."""
        return self.map(lambda values: values[rows])

    def at(self, index_N: Tensor) -> Rows:
        """Return the rows at these indices."""
        return self.map(lambda values: values.index_select(0, index_N))

    def repeated(self, times: int) -> Rows:
        """Repeat every row so many times, next to each other."""
        return self.map(lambda values: values.repeat_interleave(times, 0)) if times > 1 else self

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors by name."""
        return {"tokens": self.tokens_BT, "labels": self.labels_BT, "inputs": dict(self.inputs)}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Rows:
        """Restore rows from `state_dict`."""
        inputs = {name: values.to(device) for name, values in state["inputs"].items()}
        return cls(state["tokens"].to(device), state["labels"].to(device), inputs)


class RowQueue:
    """The rows that a sampler gives next. All ranks hold the same queue."""

    def __init__(self, sampler: Sampler, batch: int, device: torch.device) -> None:
        self.sampler, self.batch, self.device = sampler, batch, device
        self._waiting: Rows | None = None
        self._before = self._replacements = 0  # rows taken before those that wait, and replacements since
        self._cursor = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def taken(self) -> int:
        """Rows taken so far; the host waits for a GPU to know it."""
        return self._before + int(self._cursor)

    def replace(self, rows: Rows | None, halted_B: Tensor) -> Rows:
        """Return the rows with new ones, in order, where halted_B is true; all are new if there are none yet."""
        waiting = self._waiting or Rows.of(self.sampler.take(PATIENCE * self.batch), self.device)
        if self._replacements == PATIENCE:
            waiting = self._refilled(waiting)
        self._waiting = waiting
        self._replacements += 1
        place_B = self._cursor + halted_B.cumsum(0) - 1
        chosen = waiting.at(place_B.clamp(min=0))
        self._cursor = self._cursor + halted_B.sum()
        if rows is None:
            return chosen
        return rows.map(lambda old, new: torch.where(halted_B.view(-1, *[1] * (old.dim() - 1)), new, old), chosen)

    def _refilled(self, waiting: Rows) -> Rows:
        """Return the rows that wait without those that were taken, and as many new ones."""
        taken = int(self._cursor)
        self._before, self._replacements, self._cursor = self._before + taken, 0, torch.zeros_like(self._cursor)
        if not taken:
            return waiting
        further = Rows.of(self.sampler.take(taken), self.device)
        return waiting.part(slice(taken, None)).map(lambda *parts: torch.cat(parts), further)

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state before the rows that wait, which are sampled again, and which of them were taken."""
        before = {"level": None, "batches": self._before // self.batch, "taken": self._before % self.batch}
        return {**before, "cursor": self._cursor, "replacements": self._replacements}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the last row taken."""
        self.sampler.load_state_dict(state)
        self._waiting, self._replacements, self._cursor = None, state["replacements"], state["cursor"].to(self.device)
        self._before = state["batches"] * self.batch + state["taken"]
