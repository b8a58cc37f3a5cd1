"""Read a dataset: verify every byte, then hold its rows in memory or read row groups on demand.

Both give the same rows under the same indices: row i of the dataset, with shards in the order of their names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.arrow import to_numpy
from pipeline.storage.errors import CorruptFileError
from pipeline.storage.manifest import verify
from pipeline.storage.rows import LIST_COLUMNS, SCORED, DecodedRows, RaggedArray, RoleLayouts, RowBatch, decode, padding_of
from pipeline.storage.shards import leaf_values
from pipeline.storage.tables import open_parquet, read_table

Mode = Literal["auto", "memory", "row_groups"]

MAX_MEMORY_BYTES = 2 << 30
"""auto: hold rows in memory up to this size of their tokens and floats. A constant, because the order of training rows depends on the choice."""

OPEN_GROUPS = 8
"""Row groups kept decoded; the shuffle mixes rows across them."""

BATCH = 1024
"""Rows decoded at a time: few enough for the intermediate arrays to stay in the CPU cache."""

METADATA_TYPES = tuple((False, kind) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"))
COLUMN_TYPES = {
    "tokens": ((True, "uint16"),),
    "role": ((False, "binary"),),
    "values": ((True, "float"),),
    "target": ((True, "uint16"), (True, "float")),
}
"""Column of a shard -> allowed (is a list, Arrow type); any other column is metadata."""


class RowGroup(NamedTuple):
    """A row group of a shard: its file, its index there, and the number of values per column."""

    path: Path
    number: int
    sizes: dict[str, int]


class DatasetRows:
    """The rows of a dataset, with indices 0 to len-1.

    `lengths` (tokens per row) and `column(name)` are in memory; `groups` holds the first index of every row group, then len.
    `in_memory`: gathering scattered rows is cheap; otherwise gather many at once.
    """

    in_memory = True

    def __init__(self, name: str, lengths: np.ndarray, columns: dict[str, np.ndarray], groups: np.ndarray, padding: int) -> None:
        self.name, self.lengths, self.columns, self.groups, self.padding = name, lengths, columns, groups, padding

    def __len__(self) -> int:
        return len(self.lengths)

    def column(self, name: str) -> np.ndarray:
        """Return a metadata column, one value per row. Raises KeyError if there is none of that name."""
        return self.columns[name]

    def gather(self, indices: np.ndarray) -> RowBatch:
        """Gather the rows at `indices`, in that order, into a batch."""
        raise NotImplementedError

    def _metadata(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"row": indices, **{name: values[indices] for name, values in self.columns.items()}}


class MemoryRows(DatasetRows):
    """Rows decoded in memory: 2 bytes per token, 4 per float, and each distinct layout of roles once."""

    def __init__(self, name: str, rows: DecodedRows, columns: dict[str, np.ndarray]) -> None:
        super().__init__(name, rows.tokens.lengths, columns, np.array([0, len(rows.layout)]), rows.padding)
        self.rows = rows

    @classmethod
    def of(cls, name: str, batch: pa.RecordBatch) -> MemoryRows:
        """Decode rows from a task's generator, without files."""
        table = pa.Table.from_batches([batch])
        layouts = RoleLayouts(len(table))
        layouts.add(table.column("role"))
        sizes = {field: len(batch.column(field).flatten()) for field in LIST_COLUMNS if field in batch.schema.names}
        return cls(name, decode(layouts, [batch], sizes, batch.schema), _metadata_of(table))

    def gather(self, indices: np.ndarray) -> RowBatch:
        """Gather the rows at `indices`, in that order, into a batch."""
        return self.rows.gather(indices, self._metadata(indices))


class RowGroupRows(DatasetRows):
    """Rows read from row groups on demand; the most recently used groups stay decoded."""

    in_memory = False

    def __init__(self, name: str, files: list[RowGroup], schema: pa.Schema) -> None:
        layouts, columns = _read_small(files)
        super().__init__(name, layouts.lengths(), columns, np.cumsum([0, *(group.sizes["role"] for group in files)]), padding_of(schema))
        self.files, self.schema = files, schema
        self._open: OrderedDict[int, DecodedRows] = OrderedDict()

    def gather(self, indices: np.ndarray) -> RowBatch:
        """Gather the rows at `indices`, in that order, into a batch; each row group is read once."""
        group_of = np.searchsorted(self.groups, indices, side="right") - 1
        needed = sorted(np.unique(group_of).tolist(), key=lambda group: group not in self._open)
        places = [np.flatnonzero(group_of == group) for group in needed]
        pieces = [
            self._decoded_group(group).gather(indices[place] - self.groups[group], {}) for group, place in zip(needed, places, strict=True)
        ]
        return self._join(indices, places, pieces)

    def _decoded_group(self, group: int) -> DecodedRows:
        if group in self._open:
            self._open.move_to_end(group)
            return self._open[group]
        file = self.files[group]
        while len(self._open) >= OPEN_GROUPS:
            self._open.popitem(last=False)
        layouts, _ = _read_small([file], ["role"], check=True)
        self._open[group] = decode(layouts, _read_lists([file], check=True), file.sizes, self.schema)
        return self._open[group]

    def _join(self, indices: np.ndarray, places: list[np.ndarray], pieces: list[RowBatch]) -> RowBatch:
        lengths = self.lengths[indices]
        shape = (len(indices), int(lengths.max(initial=0)))
        tokens, roles = np.full(shape, padding_of(self.schema), np.uint16), np.zeros(shape, np.uint8)
        values = None
        if pieces and pieces[0].values is not None:
            values = np.zeros((*shape, pieces[0].values.shape[2]), np.float32)
        for place, piece in zip(places, pieces, strict=True):
            tokens[place, : piece.tokens.shape[1]] = piece.tokens
            roles[place, : piece.roles.shape[1]] = piece.roles
            if values is not None:
                values[place, : piece.tokens.shape[1]] = piece.values
        target = _interleave(np.concatenate(places), pieces) if pieces and pieces[0].target is not None else None
        return RowBatch(tokens, roles, target, lengths, self._metadata(indices), values)


def _interleave(places: np.ndarray, pieces: list[RowBatch]) -> np.ndarray:
    """Merge the pieces' labels in the order of their rows."""
    counts = np.concatenate([np.count_nonzero(piece.roles & SCORED, axis=1) for piece in pieces]).astype(np.int32)
    labels = np.concatenate([piece.target for piece in pieces if piece.target is not None])
    return RaggedArray.of(labels, counts).concatenated(np.argsort(places))


def open_rows(folder: Path, mode: Mode = "auto") -> DatasetRows:
    """Verify every byte of a sealed dataset and open its rows.

    `auto` holds datasets of up to 2 GiB of decoded tokens and floats in memory. Raises MissingFileError or CorruptFileError naming the file.
    """
    manifest = verify(folder)
    files, schema = _groups([folder / name for name in manifest["files"]])
    held_rows = sum(group.sizes["role"] for group in files)
    if held_rows != manifest.get("rows", held_rows):
        raise CorruptFileError(f"{folder}: {held_rows:,} rows in its shards, expected {manifest['rows']:,} (from its manifest)")
    held = sum(2 * group.sizes["tokens"] + 4 * group.sizes.get("values", 0) for group in files)
    if mode == "row_groups" or (mode == "auto" and held > MAX_MEMORY_BYTES):
        return RowGroupRows(folder.name, files, schema)
    return _in_memory(folder.name, files, schema)


def read_dataset(folder: Path) -> pa.Table:
    """Verify every byte of a sealed dataset and read all its columns as a table: for rows that are not tokens.

    Raises MissingFileError or CorruptFileError naming the file.
    """
    return pa.concat_tables([read_table(folder / name).replace_schema_metadata(None) for name in verify(folder)["files"]]).combine_chunks()


class Episodes(NamedTuple):
    """Evaluation episodes of an environment: the dataset's name, and one row per episode in the task's format."""

    name: str
    rows: pa.Table


def open_episodes(folder: Path) -> Episodes:
    """Verify every byte of a sealed dataset of episodes and read it. Raises MissingFileError or CorruptFileError naming the file."""
    return Episodes(folder.name, read_dataset(folder))


def _groups(paths: list[Path]) -> tuple[list[RowGroup], pa.Schema]:
    found: list[RowGroup] = []
    schema = pa.schema([])
    for path in paths:
        with open_parquet(path) as file:
            schema, footer = file.schema_arrow, file.metadata
            groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        _check_schema(path, schema)
        found += [RowGroup(path, number, leaf_values(group)) for number, group in enumerate(groups)]
    return found, schema


def _check_schema(path: Path, schema: pa.Schema) -> None:
    """Raise CorruptFileError naming the column if the file is not a shard of token rows."""
    missing = {"tokens", "role"} - set(schema.names)
    if missing:
        raise CorruptFileError(f"{path}: no column {' or '.join(sorted(missing))}; expected a shard of a dataset")
    for field in schema:
        nested = isinstance(field.type, pa.ListType | pa.FixedSizeListType)
        found = str(field.type.value_type if nested else field.type)
        known = COLUMN_TYPES.get(field.name, METADATA_TYPES)
        if (nested, found) not in known:
            expected = " or ".join(f"lists of {kind}" if lists else kind for lists, kind in known)
            raise CorruptFileError(f"{path}: column {field.name}: {field.type}; expected {expected}")


def _without_nulls(path: Path, rows: pa.Table | pa.RecordBatch) -> None:
    for name in rows.schema.names:
        missing = rows.column(name).null_count
        if missing:
            raise CorruptFileError(f"{path}: column {name}: {missing} of {rows.num_rows} values missing; expected none")


def _in_memory(name: str, files: list[RowGroup], schema: pa.Schema) -> MemoryRows:
    sizes = {column: sum(group.sizes[column] for group in files) for column in LIST_COLUMNS if not files or column in files[0].sizes}
    layouts, columns = _read_small(files)
    return MemoryRows(name, decode(layouts, _read_lists(files), sizes, schema), columns)


def _read_small(files: list[RowGroup], only: list[str] | None = None, check: bool = False) -> tuple[RoleLayouts, dict[str, np.ndarray]]:
    """Read the rows' layouts and metadata columns, or only the columns named in `only`; `check`: verify page checksums."""
    layouts, metadata = RoleLayouts(sum(group.sizes["role"] for group in files)), []
    for group in files:
        columns = only or [name for name in group.sizes if name not in LIST_COLUMNS]
        with _open(group.path, check) as file:
            table = file.read_row_group(group.number, columns=columns, use_threads=False)
        _without_nulls(group.path, table)
        layouts.add(table.column("role"))
        metadata.append(_metadata_of(table))
    return layouts, _concatenate(metadata)


def _read_lists(files: list[RowGroup], check: bool = False) -> Iterator[pa.RecordBatch]:
    for group in files:
        columns = [name for name in LIST_COLUMNS if name in group.sizes]
        with _open(group.path, check) as file:
            for batch in file.iter_batches(BATCH, row_groups=[group.number], columns=columns, use_threads=False):
                _without_nulls(group.path, batch)
                yield batch


def _open(path: Path, check: bool) -> AbstractContextManager[pq.ParquetFile]:
    return open_parquet(path, read_dictionary=["role"], pre_buffer=False, page_checksum_verification=check)


def _metadata_of(table: pa.Table) -> dict[str, np.ndarray]:
    names = [name for name in table.column_names if name not in (*LIST_COLUMNS, "role")]
    return {name: np.concatenate([to_numpy(chunk) for chunk in table.column(name).chunks]) for name in names}


def _concatenate(metadata: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: _compress(np.concatenate([part[name] for part in metadata])) for name in (metadata[0] if metadata else {})}


def _compress(values: np.ndarray) -> np.ndarray:
    """Return the column, as a broadcast scalar if all values are equal."""
    return np.broadcast_to(values[:1], values.shape) if (values == values[:1]).all() else values
