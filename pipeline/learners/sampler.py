"""Samplers: an endless series of batches of training rows.

The series is a function of the seed and a small state: the curriculum's level, the batches taken at that level, and the rows taken of the
next one. A sampler reads a window of up to 64 batches of one epoch at a time, sorts its rows by length so that the rows of a batch have
similar lengths, and shuffles the batches.

Notation: B = rows of a batch, T = tokens of its longest row, F = real numbers per token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch

from pipeline.learners.order import Epochs
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, MemoryRows
from pipeline.storage.rng import Key, derive_key, generator
from pipeline.storage.rows import SCORED, RowBatch

WINDOW = 64
IGNORED = -100
"""Label of unscored positions if labels are classes; for real-valued labels it is NaN."""


class Batch(NamedTuple):
    """A batch of rows for a network: right-padded tokens, labels of the scored positions, lengths, metadata, real numbers.

    row_inputs: further integers per row that the network reads, by name (`Task.inputs`), such as an identifier.
    """

    tokens_BT: torch.Tensor  # int64
    labels_BT: torch.Tensor  # int64, or float32 where answers are real numbers
    length_B: torch.Tensor  # int64
    columns: dict[str, np.ndarray]
    values_BTF: torch.Tensor | None = None  # float32
    row_inputs: Mapping[str, torch.Tensor] = {}  # (B,) int32 each

    @property
    def scored_BT(self) -> torch.Tensor:
        """Mask of the scored positions."""
        return ~self.labels_BT.isnan() if self.labels_BT.is_floating_point() else self.labels_BT >= 0

    def inputs(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the network's arguments by name, on the device; row inputs are named `{name}_B`."""
        read = {"tokens_BT": self.tokens_BT, **{f"{name}_B": values for name, values in self.row_inputs.items()}}
        read |= {} if self.values_BTF is None else {"values_BTF": self.values_BTF}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in read.items()}

    def parts(self, rows: int | None) -> Iterator[Batch]:
        """Split the batch into micro-batches of at most `rows` rows; None: do not split."""
        count = len(self.tokens_BT)
        for start in range(0, count, rows or count):
            yield self.of(slice(start, start + (rows or count)))

    def of(self, rows: slice) -> Batch:
        """Return a slice of the batch's rows."""
        values_BTF = None if self.values_BTF is None else self.values_BTF[rows]
        columns = {name: values[rows] for name, values in self.columns.items()}
        row_inputs = {name: values[rows] for name, values in self.row_inputs.items()}
        return Batch(self.tokens_BT[rows], self.labels_BT[rows], self.length_B[rows], columns, values_BTF, row_inputs)


class Generator(Protocol):
    """A task that can generate training rows."""

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None) -> pa.RecordBatch:
        """Generate new training rows."""
        ...


def collate(block: RowBatch, name: str = "rows", inputs: Sequence[str] = ()) -> Batch:
    """Collate rows into a batch. Without a target column, the label of the position before a scored token is that token.

    name: the rows' name in error messages. inputs: metadata columns that the network reads.

    Raises UserError, naming the row, for a real number that is not finite.
    """
    _refuse_not_finite(block, name)
    scored = (block.roles & SCORED).view(bool)
    real = block.target is not None and block.target.dtype.kind == "f"
    labels = np.full(block.tokens.shape, np.nan, np.float32) if real else np.full(block.tokens.shape, IGNORED, np.int64)
    if block.target is None:
        np.copyto(labels[:, :-1], block.tokens[:, 1:], where=scored[:, 1:])
    else:
        labels[scored] = block.target
    tokens, lengths = block.tokens.astype(np.int64), block.lengths.astype(np.int64)
    values = None if block.values is None else torch.from_numpy(block.values)
    row_inputs = {column: torch.from_numpy(block.columns[column].astype(np.int32)) for column in inputs}
    return Batch(torch.from_numpy(tokens), torch.from_numpy(labels), torch.from_numpy(lengths), block.columns, values, row_inputs)


def _refuse_not_finite(block: RowBatch, name: str) -> None:
    rows = block.columns.get("row", np.arange(len(block.lengths)))
    if block.values is not None and not np.isfinite(block.values).all():
        row, token, feature = np.argwhere(~np.isfinite(block.values))[0].tolist()
        found = f"values[{token}, {feature}] is {block.values[row, token, feature]}"
        raise UserError(f"{name}: row {rows[row]}: {found}; expected finite numbers")
    if block.target is not None and block.target.dtype.kind == "f" and not np.isfinite(block.target).all():
        place = int(np.argmin(np.isfinite(block.target)))
        row = int(np.searchsorted(np.count_nonzero(block.roles & SCORED, axis=1).cumsum(), place, side="right"))
        raise UserError(f"{name}: row {rows[row]}: target is {block.target[place]}; expected finite numbers")


class Sampler:
    """An endless series of batches, split from windows; subclasses define which batches form a window and which rows it holds.

    column: the metadata column bounded by the level. inputs: columns that the network reads.
    """

    def __init__(self, batch: int, seed: int, column: str | None = None, inputs: Sequence[str] = ()) -> None:
        self.batch, self.seed, self.column, self.inputs = batch, seed, column, inputs
        self._level: int | None = None
        self._batches = self._taken = 0
        self._window = range(0)
        self._cuts: list[np.ndarray] = []
        self._blocks: list[RowBatch] = []
        self._rows: DatasetRows | None = None

    @property
    def level(self) -> int | None:
        """Upper bound on the column of sampled rows; None: no bound. A new level starts a new series."""
        return self._level

    @level.setter
    def level(self, level: int | None) -> None:
        if level != self._level:
            self._level, self._batches, self._taken, self._window = level, 0, 0, range(0)

    def next(self) -> Batch:
        """Return the next `batch` rows."""
        return self.take(self.batch)

    def take(self, rows: int) -> Batch:
        """Return the next `rows` rows of the series; the order does not depend on how many are taken at a time."""
        pieces: list[RowBatch] = []
        while rows > 0:
            some = slice(self._taken, min(self._taken + rows, self.batch))
            pieces.append(self._piece(some))
            rows -= some.stop - some.start
            further, self._taken = divmod(some.stop, self.batch)
            self._batches += further
        assert self._rows is not None
        return collate(RowBatch.join(pieces, self._rows.padding), self._rows.name, self.inputs)

    def _piece(self, some: slice) -> RowBatch:
        """Return a slice of the next batch."""
        if self._batches not in self._window:
            self._open(self._window_of(self._batches))
        place = self._batches - self._window.start
        assert self._rows is not None
        if self._rows.in_memory:
            return self._rows.gather(self._cuts[place][some])
        block = self._blocks[place]
        return block if some == slice(0, self.batch) else block.cut(some)

    def state_dict(self) -> dict[str, Any]:
        """Return the level, the batches taken at it, and the rows taken of the next one."""
        return {"level": self._level, "batches": self._batches, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the last row taken."""
        self._level, self._batches, self._taken, self._window = state["level"], state["batches"], state["taken"], range(0)

    def _open(self, window: range) -> None:
        rows, indices = self._window_rows(window)
        if len(window) > 1:
            indices = indices[np.argsort(rows.lengths[indices], kind="stable")]
        order = generator(derive_key("batches", self.seed, self._level, window.start)).permutation(len(window))
        self._rows, self._window = rows, window
        if rows.in_memory:
            cuts = indices.reshape(len(window), self.batch)
            self._cuts = [cuts[place] for place in order]
        else:
            blocks = rows.gather(indices).split(self.batch)
            self._blocks = [blocks[place] for place in order]

    def _window_of(self, number: int) -> range:
        """Return the window of batch `number`: the batches it is sorted and shuffled with, numbered from the start of the level."""
        return range(number // WINDOW * WINDOW, (number // WINDOW + 1) * WINDOW)

    def _window_rows(self, window: range) -> tuple[DatasetRows, np.ndarray]:
        raise NotImplementedError


class ShardSampler(Sampler):
    """Rows of a dataset in epochs: each eligible row once per epoch, in a random order keyed by (seed, level, epoch).

    A batch may contain the end of one epoch and the start of the next; see `Epochs`. Such a batch is its own window. The other batches of an
    epoch are divided into windows of equal size, to within one.
    """

    def __init__(self, rows: DatasetRows, batch: int, seed: int, column: str | None = None, inputs: Sequence[str] = ()) -> None:
        super().__init__(batch, seed, column, inputs)
        self.rows = rows
        self._series: tuple[int | None, Epochs] | None = None

    def _window_of(self, number: int) -> range:
        whole = self._epochs().whole_batches(number)
        if number not in whole:
            return range(number, number + 1)
        windows = math.ceil(len(whole) / WINDOW)
        mine = ((number - whole.start + 1) * windows - 1) // len(whole)
        return whole[mine * len(whole) // windows : (mine + 1) * len(whole) // windows]

    def _window_rows(self, window: range) -> tuple[DatasetRows, np.ndarray]:
        return self.rows, self._epochs().take(window)

    def _epochs(self) -> Epochs:
        if self._series is None or self._series[0] != self._level:
            epochs = Epochs(self.rows, self._eligible(), self.batch, ("epoch", self.seed, self._level))
            self._series = (self._level, epochs)
        return self._series[1]

    def _eligible(self) -> np.ndarray | None:
        if len(self.rows) == 0:
            raise UserError(f"{self.rows.name}: no rows; expected at least one to train on")
        if self.column is None or self._level is None:
            return None
        values = self.rows.column(self.column)
        smallest = int(values.min())
        if smallest > self._level:
            raise UserError(
                f"{self.rows.name}: no row has {self.column} <= {self._level}, the smallest is {smallest}; start the curriculum there"
            )
        return values <= self._level


class StreamSampler(Sampler):
    """New training rows from a task's generator, keyed by (seed, level, window); rows are neither stored nor reused."""

    def __init__(self, task: Generator, batch: int, seed: int, column: str | None = None, inputs: Sequence[str] = ()) -> None:
        super().__init__(batch, seed, column, inputs)
        self.task = task

    def _window_rows(self, window: range) -> tuple[DatasetRows, np.ndarray]:
        key = derive_key("stream", self.seed, self._level, window.start // WINDOW)
        rows = MemoryRows.of("stream", self.task.generate(WINDOW * self.batch, key, level=self._level, column=self.column))
        return rows, np.arange(len(rows))


def sequential_batches(rows: DatasetRows, batch: int, inputs: Sequence[str] = ()) -> Iterator[Batch]:
    """Yield every row once, for evaluation: windows in dataset order, sorted by length within; `columns["row"]` is the row's index.

    inputs: metadata columns that the network reads.
    """
    for start in range(0, len(rows), WINDOW * batch):
        window = np.arange(start, min(start + WINDOW * batch, len(rows)))
        window = window[np.argsort(rows.lengths[window], kind="stable")]
        for block in rows.gather(window).split(batch):
            yield collate(block, rows.name, inputs)
