"""Rows in memory: decoded once from Arrow into compact arrays, gathered into padded batches.

Notation: B = batch size, L = tokens of the longest row, F = numbers per token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.storage.arrow import to_numpy

SCORED = 1
"""Roles 1 (target) and 3 (answer) are the odd ones: `role & SCORED` selects the positions that are scored."""

LIST_COLUMNS = ("tokens", "values", "target")
"""The large columns; `role` and the metadata are small."""


class RowBatch(NamedTuple):
    """A batch of rows, right-padded to the longest; padding has role 0."""

    tokens: np.ndarray  # (B, L) uint16
    roles: np.ndarray  # (B, L) uint8: 0 prompt, 1 target, 2 injected, 3 answer
    target: np.ndarray | None  # labels of the scored positions, row after row; None if the label is the next token
    lengths: np.ndarray  # (B,) int32
    columns: dict[str, np.ndarray]  # metadata, (B,) each; `row` is the row's index in its dataset
    values: np.ndarray | None = None  # (B, L, F) float32, padding 0; None for tasks without real-valued inputs

    def split(self, size: int) -> list[RowBatch]:
        """Split into batches of `size` rows without copying; each is cut to its own longest row."""
        ends = np.concatenate([[0], np.cumsum(np.count_nonzero(self.roles & SCORED, axis=1))])
        return [self._cut(slice(start, min(start + size, len(self.lengths))), ends) for start in range(0, len(self.lengths), size)]

    def cut(self, rows: slice) -> RowBatch:
        """Slice the rows without copying, cut to the longest of them."""
        return self._cut(rows, np.concatenate([[0], np.cumsum(np.count_nonzero(self.roles & SCORED, axis=1))]))

    @classmethod
    def join(cls, blocks: list[RowBatch], padding: int) -> RowBatch:
        """Concatenate blocks of rows; `padding` is the token that fills up shorter rows."""
        if len(blocks) == 1:
            return blocks[0]
        longest = max(block.tokens.shape[1] for block in blocks)

        def widened(array: np.ndarray, fill: int) -> np.ndarray:
            return np.pad(array, [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)], constant_values=fill)

        targets, values = [block.target for block in blocks], [block.values for block in blocks]
        return cls(
            tokens=np.concatenate([widened(block.tokens, padding) for block in blocks]),
            roles=np.concatenate([widened(block.roles, 0) for block in blocks]),
            target=None if targets[0] is None else np.concatenate([target for target in targets if target is not None]),
            lengths=np.concatenate([block.lengths for block in blocks]),
            columns={name: np.concatenate([block.columns[name] for block in blocks]) for name in blocks[0].columns},
            values=None if values[0] is None else np.concatenate([widened(value, 0) for value in values if value is not None]),
        )

    def _cut(self, rows: slice, ends: np.ndarray) -> RowBatch:
        lengths = self.lengths[rows]
        longest = lengths.max(initial=0)
        target = None if self.target is None else self.target[ends[rows.start] : ends[rows.stop]]
        columns = {name: values[rows] for name, values in self.columns.items()}
        values = None if self.values is None else self.values[rows, :longest]
        return RowBatch(self.tokens[rows, :longest], self.roles[rows, :longest], target, lengths, columns, values)


@dataclass
class RaggedArray:
    """Sequences of different lengths, concatenated in one array; `width` if all have the same length."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    width: int | None

    @classmethod
    def of(cls, values: np.ndarray, lengths: np.ndarray) -> RaggedArray:
        """Split `values` into sequences of these lengths. `values` must own its memory: it is resized in place."""
        longest = int(lengths.max(initial=0))
        if longest and longest == lengths.min():
            return cls(values, np.empty(0, np.int64), np.broadcast_to(lengths[:1], lengths.shape), longest)
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        values.resize(len(values) + longest, refcheck=False)  # so that a window of the longest length fits at every start
        return cls(values, starts, lengths, None)

    def gather(self, indices: np.ndarray, fill: int = 0) -> np.ndarray:
        """Gather the sequences at `indices` into a matrix, right-padded with `fill`."""
        if self.width is not None:
            return np.take(self.values.reshape(-1, self.width), indices, axis=0)
        lengths = self.lengths[indices]
        longest = int(lengths.max(initial=0))
        padded = self._windows(longest)[self.starts[indices]]
        np.copyto(padded, fill, where=np.arange(longest) >= lengths[:, None], casting="unsafe")
        return padded

    def _windows(self, size: int) -> np.ndarray:
        """Return a view whose row i holds the `size` values from index i: sliding_window_view without its checks."""
        values = self.values
        return np.ndarray((len(values) - size + 1, size), values.dtype, values, strides=values.strides * 2)

    def concatenated(self, indices: np.ndarray) -> np.ndarray:
        """Concatenate the sequences at `indices`."""
        padded = self.gather(indices)
        return padded.reshape(-1) if self.width is not None else padded[np.arange(padded.shape[1]) < self.lengths[indices][:, None]]


class ListCollector:
    """Collects a list column batch by batch into one array. `values`: upper bound of the number of values."""

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

    def finish(self) -> RaggedArray:
        """Return the collected lists."""
        assert self.row == len(self.lengths), "fewer rows than expected"
        self.values.resize(self.value, refcheck=False)
        return RaggedArray.of(self.values, self.lengths)


class RoleLayouts:
    """Collects the role column: the distinct layouts (one role per token), and the index of each row's layout."""

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
        """Return the tokens per row; a broadcast scalar if all rows have the same length."""
        sizes = np.array([len(layout) for layout in self.known], np.int32)
        return np.broadcast_to(sizes[:1], self.index.shape) if len(set(sizes)) == 1 else sizes[self.index]

    def finish(self) -> RaggedArray:
        """Return the distinct layouts."""
        flat = np.frombuffer(b"".join(self.known), np.uint8).copy()
        return RaggedArray.of(flat, np.array([len(layout) for layout in self.known], np.int32))


@dataclass
class DecodedRows:
    """Decoded rows without their metadata columns."""

    tokens: RaggedArray
    values: RaggedArray | None
    target: RaggedArray | None
    layouts: RaggedArray
    layout: np.ndarray
    padding: int

    def gather(self, indices: np.ndarray, columns: dict[str, np.ndarray]) -> RowBatch:
        """Gather the rows at `indices` into a batch; `columns`: their metadata."""
        roles = self.layouts.gather(self.layout[indices])
        target = None if self.target is None else self.target.concatenated(indices)
        tokens = self.tokens.gather(indices, self.padding)
        values = None if self.values is None else self.values.gather(indices).reshape(*tokens.shape, -1)
        return RowBatch(tokens, roles, target, self.tokens.lengths[indices], columns, values)


def decode(layouts: RoleLayouts, batches: Iterable[pa.RecordBatch], sizes: dict[str, int], schema: pa.Schema) -> DecodedRows:
    """Decode the list columns of rows with these layouts. `sizes`: upper bound of the number of values per column."""
    kinds = {name: schema.field(name).type.value_type.to_pandas_dtype() for name in LIST_COLUMNS if name in sizes}
    lists = {name: ListCollector(len(layouts.index), sizes[name], kind) for name, kind in kinds.items()}
    for batch in batches:
        for name, collector in lists.items():
            collector.add(batch.column(name))
    sequences = {name: collector.finish() for name, collector in lists.items()}
    columns = sequences["tokens"], sequences.get("values"), sequences.get("target")
    return DecodedRows(*columns, layouts.finish(), layouts.index, padding_of(schema))


def padding_of(schema: pa.Schema) -> int:
    """Return the padding token, from the schema's metadata."""
    return int((schema.metadata or {}).get(b"padding", b"0"))
