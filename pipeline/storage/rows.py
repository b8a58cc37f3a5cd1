"""Rows in memory: decoded once from Arrow into compact arrays, gathered into padded blocks.

Shapes: B rows of a block, L tokens of its longest row, N rows held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.storage.arrow import to_numpy

SCORED = 1
"""Roles 1 (target) and 3 (answer) are the odd ones: `role & SCORED` tells which positions count."""

LISTS = ("tokens", "values", "target")
"""The columns of lists; `role` and the metadata are small beside them."""


class Block(NamedTuple):
    """Some rows side by side, right-padded to the longest; padding has role 0."""

    tokens: np.ndarray  # (B, L) uint16
    roles: np.ndarray  # (B, L) uint8: 0 prompt, 1 target, 2 injected, 3 answer
    target: np.ndarray | None  # labels of the scored positions, row after row; None where the label is the next token
    lengths: np.ndarray  # (B,) int32
    columns: dict[str, np.ndarray]  # metadata, (B,) each; `row` is the row's place in its dataset
    values: np.ndarray | None = None  # (B, L, F) float32, F real numbers per token, padding 0; None where tokens bring none

    def split(self, size: int) -> list[Block]:
        """This block as blocks of `size` rows, without copying; each is cut to its own longest row."""
        ends = np.concatenate([[0], np.cumsum(np.count_nonzero(self.roles & SCORED, axis=1))])
        return [self._cut(slice(start, min(start + size, len(self.lengths))), ends) for start in range(0, len(self.lengths), size)]

    def _cut(self, rows: slice, ends: np.ndarray) -> Block:
        lengths = self.lengths[rows]
        longest = lengths.max(initial=0)
        target = None if self.target is None else self.target[ends[rows.start] : ends[rows.stop]]
        columns = {name: values[rows] for name, values in self.columns.items()}
        values = None if self.values is None else self.values[rows, :longest]
        return Block(self.tokens[rows, :longest], self.roles[rows, :longest], target, lengths, columns, values)


@dataclass
class Sequences:
    """Sequences of numbers, end to end in one array; `width` where all have the same length."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    width: int | None

    @classmethod
    def of(cls, values: np.ndarray, lengths: np.ndarray) -> Sequences:
        """Sequences of these lengths out of their concatenation, an array of its own that is grown in place."""
        longest = int(lengths.max(initial=0))
        if longest and longest == lengths.min():
            return cls(values, np.empty(0, np.int64), np.broadcast_to(lengths[:1], lengths.shape), longest)
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        values.resize(len(values) + longest, refcheck=False)  # so that a window of the longest length fits at every start
        return cls(values, starts, lengths, None)

    def gather(self, indices: np.ndarray, fill: int = 0) -> np.ndarray:
        """The sequences at `indices` as a matrix, right-padded with `fill`."""
        if self.width is not None:
            return np.take(self.values.reshape(-1, self.width), indices, axis=0)
        lengths = self.lengths[indices]
        longest = int(lengths.max(initial=0))
        padded = self._windows(longest)[self.starts[indices]]
        np.copyto(padded, fill, where=np.arange(longest) >= lengths[:, None], casting="unsafe")
        return padded

    def _windows(self, size: int) -> np.ndarray:
        """A view whose row i holds the `size` values from place i on: what sliding_window_view returns, without its checks."""
        values = self.values
        return np.ndarray((len(values) - size + 1, size), values.dtype, values, strides=values.strides * 2)

    def chain(self, indices: np.ndarray) -> np.ndarray:
        """The sequences at `indices` end to end."""
        padded = self.gather(indices)
        return padded.reshape(-1) if self.width is not None else padded[np.arange(padded.shape[1]) < self.lengths[indices][:, None]]


class Filling:
    """A column of lists that is filled batch by batch into one array; `values` is at least the number of values to come."""

    def __init__(self, rows: int, values: int, dtype: Any) -> None:
        self.values, self.lengths = np.empty(values, dtype), np.empty(rows, np.int32)
        self.row = self.value = 0

    def add(self, column: pa.Array) -> None:
        """Append a column of (fixed-size) lists."""
        flat = to_numpy(column.flatten())
        fixed = pa.types.is_fixed_size_list(column.type)
        self.lengths[self.row : self.row + len(column)] = column.type.list_size if fixed else np.diff(to_numpy(column.offsets))
        self.values[self.value : self.value + len(flat)] = flat
        self.row, self.value = self.row + len(column), self.value + len(flat)

    def close(self) -> Sequences:
        """What was added."""
        assert self.row == len(self.lengths), "fewer rows came than were announced"
        self.values.resize(self.value, refcheck=False)
        return Sequences.of(self.values, self.lengths)


class Layouts:
    """The role column: the distinct layouts, and which of them each row has."""

    def __init__(self, rows: int) -> None:
        self.index, self.row = np.empty(rows, np.int32), 0
        self.known: dict[bytes, int] = {}

    def add(self, column: pa.ChunkedArray) -> None:
        """Append a column of binary values, dictionary-encoded or not."""
        for chunk in column.chunks:
            chunk = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
            places = [self.known.setdefault(layout, len(self.known)) for layout in chunk.dictionary.to_pylist()]
            self.index[self.row : self.row + len(chunk)] = np.array(places, np.int32)[to_numpy(chunk.indices)]
            self.row += len(chunk)

    def lengths(self) -> np.ndarray:
        """Tokens of every row so far; one number repeated without memory where all rows are alike."""
        sizes = np.array([len(layout) for layout in self.known], np.int32)
        return np.broadcast_to(sizes[:1], self.index.shape) if len(set(sizes)) == 1 else sizes[self.index]

    def close(self) -> Sequences:
        """The distinct layouts."""
        flat = np.frombuffer(b"".join(self.known), np.uint8).copy()
        return Sequences.of(flat, np.array([len(layout) for layout in self.known], np.int32))


@dataclass
class Part:
    """Decoded rows without their metadata columns."""

    tokens: Sequences
    values: Sequences | None
    target: Sequences | None
    layouts: Sequences
    layout: np.ndarray
    padding: int

    def gather(self, indices: np.ndarray, columns: dict[str, np.ndarray]) -> Block:
        """The rows at `indices`, which `columns` describe, side by side."""
        roles = self.layouts.gather(self.layout[indices])
        target = None if self.target is None else self.target.chain(indices)
        tokens = self.tokens.gather(indices, self.padding)
        values = None if self.values is None else self.values.gather(indices).reshape(*tokens.shape, -1)
        return Block(tokens, roles, target, self.tokens.lengths[indices], columns, values)


def decode(layouts: Layouts, batches: Iterable[pa.RecordBatch], sizes: dict[str, int], schema: pa.Schema) -> Part:
    """Decode the lists of rows whose layouts are known; `sizes` bounds how many numbers each column of lists has."""
    kinds = {name: schema.field(name).type.value_type.to_pandas_dtype() for name in LISTS if name in sizes}
    lists = {name: Filling(len(layouts.index), sizes[name], kind) for name, kind in kinds.items()}
    for batch in batches:
        for name, filling in lists.items():
            filling.add(batch.column(name))
    sequences = {name: filling.close() for name, filling in lists.items()}
    columns = sequences["tokens"], sequences.get("values"), sequences.get("target")
    return Part(*columns, layouts.close(), layouts.index, padding_of(schema))


def padding_of(schema: pa.Schema) -> int:
    """The token that fills rows up, as the task noted it in the schema."""
    return int((schema.metadata or {}).get(b"padding", b"0"))
