"""A queue of training rows on the device: rows that have halted are replaced by the next ones without the host knowing how many.

The host reads the cursor once in `PATIENCE` replacements, since at most a batch is taken by each. Which rows are taken does not depend on that:
they are those of the sampler, one after the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.learners.sampler import Batch, Sampler

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

    def _map(self, *others: Rows, by: Any) -> Rows:
        parts = (self, *others)
        inputs = {name: by(*(part.inputs[name] for part in parts)) for name in self.inputs}
        return Rows(by(*(part.tokens_BT for part in parts)), by(*(part.labels_BT for part in parts)), inputs)

    def of_rank(self, rows: slice) -> Rows:
        """Return a slice of the rows."""
        return self._map(by=lambda values: values[rows])

    def repeated(self, times: int) -> Rows:
        """Repeat every row so many times, next to each other."""
        return self._map(by=lambda values: values.repeat_interleave(times, 0)) if times > 1 else self

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
        self._cursor = torch.zeros((), dtype=torch.int64, device=device)
        self._before = 0
        self._replacements = 0

    @property
    def taken(self) -> int:
        """Rows taken so far; with a GPU the host waits for it only when it reads the cursor, so that this is a bound from below."""
        if self.device.type == "cpu":
            return self._before + int(self._cursor)
        return self._before

    def replace(self, rows: Rows | None, halted_B: Tensor) -> Rows:
        """Return the rows with new ones, in order, where halted_B is true; all are new if there are none yet."""
        if self._waiting is None or self._replacements == PATIENCE:
            self._refill()
        assert self._waiting is not None
        self._replacements += 1
        place_B = self._cursor + halted_B.cumsum(0) - 1
        chosen = self._waiting._map(by=lambda values: values.index_select(0, place_B.clamp(min=0)))
        self._cursor = self._cursor + halted_B.sum()
        if rows is None:
            return chosen
        return rows._map(chosen, by=lambda old, new: torch.where(halted_B.view(-1, *[1] * (old.dim() - 1)), new, old))

    def _refill(self) -> None:
        """Drop what was taken, and take as many rows as the coming replacements may need."""
        taken = int(self._cursor)
        self._before, self._replacements, self._cursor = self._before + taken, 0, torch.zeros_like(self._cursor)
        needed = PATIENCE * self.batch
        left = 0 if self._waiting is None else len(self._waiting.tokens_BT) - taken
        further = Rows.of(self.sampler.take(needed - left), self.device) if needed > left else None
        if self._waiting is None or not left:
            self._waiting = further
            return
        rest = self._waiting.of_rank(slice(taken, None))
        self._waiting = rest if further is None else rest._map(further, by=lambda *parts: torch.cat(parts))

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state after the rows taken: those that wait are sampled again. The host waits for a GPU."""
        taken = self._before + int(self._cursor)
        return {"level": None, "batches": taken // self.batch, "taken": taken % self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the last row taken."""
        self.sampler.load_state_dict(state)
        self._waiting, self._replacements, self._cursor = None, 0, torch.zeros_like(self._cursor)
        self._before = state["batches"] * self.batch + state["taken"]
