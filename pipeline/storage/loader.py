"""Reading a dataset: every byte is verified first, then its rows are held in memory or read by row groups as they come.

Both ways offer the same rows under the same indices: row i of the dataset, shards in the order of their names.
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
from pipeline.storage.rows import LISTS, SCORED, Block, Layouts, Part, Sequences, decode, padding_of
from pipeline.storage.shards import leaf_values
from pipeline.storage.tables import open_parquet, read_table

Mode = Literal["auto", "memory", "row_groups"]

RESIDENT_BYTES = 2 << 30
"""auto: hold the rows where their tokens and real numbers need no more than this. Fixed, because the order of training rows depends on the choice."""

OPEN_GROUPS = 8
"""Row groups held decoded at once, and rows of how many are mixed by the shuffle."""

BATCH = 1024
"""Rows decoded at a time: few enough for the intermediate arrays to stay in the processor's cache."""


METADATA = tuple((False, kind) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"))
ITEMS = {
    "tokens": ((True, "uint16"),),
    "role": ((False, "binary"),),
    "values": ((True, "float"),),
    "target": ((True, "uint16"), (True, "float")),
}
"""What each column of a shard holds: whether lists, and of which Arrow type; any other is a metadata column."""


class Group(NamedTuple):
    """A row group of a shard: where it is and how many values each of its columns has."""

    path: Path
    number: int
    sizes: dict[str, int]


class Rows:
    """A dataset's rows under the indices 0..len-1.

    `lengths` (tokens per row) and `column(name)` are in memory; `groups` holds the first index of every row group and, last, len.
    `resident` tells whether gathering scattered rows is cheap; where it is not, gather many at once.
    """

    resident = True

    def __init__(self, name: str, lengths: np.ndarray, columns: dict[str, np.ndarray], groups: np.ndarray) -> None:
        self.name, self.lengths, self.columns, self.groups = name, lengths, columns, groups

    def __len__(self) -> int:
        return len(self.lengths)

    def column(self, name: str) -> np.ndarray:
        """A metadata column, one value per row. Raises KeyError where there is none of that name."""
        return self.columns[name]

    def gather(self, indices: np.ndarray) -> Block:
        """The rows at `indices`, in that order, side by side."""
        raise NotImplementedError

    def _metadata(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"row": indices, **{name: values[indices] for name, values in self.columns.items()}}


class MemoryRows(Rows):
    """Rows held decoded: two bytes a token, four a real number, and each distinct layout of roles once."""

    def __init__(self, name: str, part: Part, columns: dict[str, np.ndarray]) -> None:
        super().__init__(name, part.tokens.lengths, columns, np.array([0, len(part.layout)]))
        self.part = part

    @classmethod
    def of(cls, name: str, batch: pa.RecordBatch) -> MemoryRows:
        """Rows straight from a task's generator."""
        table = pa.Table.from_batches([batch])
        layouts = Layouts(len(table))
        layouts.add(table.column("role"))
        sizes = {field: len(batch.column(field).flatten()) for field in LISTS if field in batch.schema.names}
        return cls(name, decode(layouts, [batch], sizes, batch.schema), _metadata_of(table))

    def gather(self, indices: np.ndarray) -> Block:
        """The rows at `indices`, in that order, side by side."""
        return self.part.gather(indices, self._metadata(indices))


class GroupRows(Rows):
    """Rows read from their row groups on demand; the last few groups stay decoded, whatever the size of the dataset."""

    resident = False

    def __init__(self, name: str, files: list[Group], schema: pa.Schema) -> None:
        layouts, columns = _read_small(files)
        super().__init__(name, layouts.lengths(), columns, np.cumsum([0, *(group.sizes["role"] for group in files)]))
        self.files, self.schema = files, schema
        self._open: OrderedDict[int, Part] = OrderedDict()

    def gather(self, indices: np.ndarray) -> Block:
        """The rows at `indices`, in that order, side by side; every group they lie in is read once."""
        group_of = np.searchsorted(self.groups, indices, side="right") - 1
        needed = sorted(np.unique(group_of).tolist(), key=lambda group: group not in self._open)
        places = [np.flatnonzero(group_of == group) for group in needed]
        pieces = [self._part(group).gather(indices[place] - self.groups[group], {}) for group, place in zip(needed, places, strict=True)]
        return self._join(indices, places, pieces)

    def _part(self, group: int) -> Part:
        if group in self._open:
            self._open.move_to_end(group)
            return self._open[group]
        file = self.files[group]
        while len(self._open) >= OPEN_GROUPS:
            self._open.popitem(last=False)
        layouts, _ = _read_small([file], ["role"], check=True)
        self._open[group] = decode(layouts, _read_lists([file], check=True), file.sizes, self.schema)
        return self._open[group]

    def _join(self, indices: np.ndarray, places: list[np.ndarray], pieces: list[Block]) -> Block:
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
        return Block(tokens, roles, target, lengths, self._metadata(indices), values)


def _interleave(places: np.ndarray, pieces: list[Block]) -> np.ndarray:
    """The pieces' labels in the order of the rows they belong to."""
    counts = np.concatenate([np.count_nonzero(piece.roles & SCORED, axis=1) for piece in pieces]).astype(np.int32)
    labels = np.concatenate([piece.target for piece in pieces if piece.target is not None])
    return Sequences.of(labels, counts).chain(np.argsort(places))


def open_rows(folder: Path, mode: Mode = "auto") -> Rows:
    """Verify a sealed dataset, every byte of its shards, and open its rows.

    `auto` holds datasets of up to 2 GiB of decoded tokens and real numbers in memory. Raises MissingFileError or CorruptFileError, naming the file.
    """
    manifest = verify(folder)
    files, schema = _groups([folder / name for name in manifest["files"]])
    held_rows = sum(group.sizes["role"] for group in files)
    if held_rows != manifest.get("rows", held_rows):
        raise CorruptFileError(f"{folder}: {held_rows:,} rows in its shards; expected {manifest['rows']:,}, as its manifest says")
    held = sum(2 * group.sizes["tokens"] + 4 * group.sizes.get("values", 0) for group in files)
    if mode == "row_groups" or (mode == "auto" and held > RESIDENT_BYTES):
        return GroupRows(folder.name, files, schema)
    return _in_memory(folder.name, files, schema)


def read_dataset(folder: Path) -> pa.Table:
    """Verify a sealed dataset, every byte of its shards, and read all its columns as they are: for rows that are not tokens.

    Raises MissingFileError or CorruptFileError, naming the file.
    """
    return pa.concat_tables([read_table(folder / name).replace_schema_metadata(None) for name in verify(folder)["files"]]).combine_chunks()


class Episodes(NamedTuple):
    """Held-out episodes of an environment: the name of their dataset, and a row for each, which the task understands."""

    name: str
    rows: pa.Table


def open_episodes(folder: Path) -> Episodes:
    """Verify a sealed dataset of episodes, every byte, and read it. Raises MissingFileError or CorruptFileError, naming the file."""
    return Episodes(folder.name, read_dataset(folder))


def _groups(paths: list[Path]) -> tuple[list[Group], pa.Schema]:
    found: list[Group] = []
    schema = pa.schema([])
    for path in paths:
        with open_parquet(path) as file:
            schema, footer = file.schema_arrow, file.metadata
            groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        _check_schema(path, schema)
        found += [Group(path, number, leaf_values(group)) for number, group in enumerate(groups)]
    return found, schema


def _check_schema(path: Path, schema: pa.Schema) -> None:
    """Raises CorruptFileError, naming the column, for what is no shard of rows of tokens."""
    missing = {"tokens", "role"} - set(schema.names)
    if missing:
        raise CorruptFileError(f"{path}: no column {' or '.join(sorted(missing))}; expected a shard of a dataset")
    for field in schema:
        nested = isinstance(field.type, pa.ListType | pa.FixedSizeListType)
        found = str(field.type.value_type if nested else field.type)
        known = ITEMS.get(field.name, METADATA)
        if (nested, found) not in known:
            expected = " or ".join(f"lists of {kind}" if lists else kind for lists, kind in known)
            raise CorruptFileError(f"{path}: column {field.name}: {field.type}; expected {expected}")


def _without_nulls(path: Path, rows: pa.Table | pa.RecordBatch) -> None:
    for name in rows.schema.names:
        missing = rows.column(name).null_count
        if missing:
            raise CorruptFileError(f"{path}: column {name}: {missing} of {rows.num_rows} values missing; expected none")


def _in_memory(name: str, files: list[Group], schema: pa.Schema) -> MemoryRows:
    sizes = {column: sum(group.sizes[column] for group in files) for column in LISTS if not files or column in files[0].sizes}
    layouts, columns = _read_small(files)
    return MemoryRows(name, decode(layouts, _read_lists(files), sizes, schema), columns)


def _read_small(files: list[Group], only: list[str] | None = None, check: bool = False) -> tuple[Layouts, dict[str, np.ndarray]]:
    """The layouts of the rows and their metadata columns, or of both what `only` names; `check`: the pages' checksums too."""
    layouts, metadata = Layouts(sum(group.sizes["role"] for group in files)), []
    for group in files:
        columns = only or [name for name in group.sizes if name not in LISTS]
        with _open(group.path, check) as file:
            table = file.read_row_group(group.number, columns=columns, use_threads=False)
        _without_nulls(group.path, table)
        layouts.add(table.column("role"))
        metadata.append(_metadata_of(table))
    return layouts, _concatenate(metadata)


def _read_lists(files: list[Group], check: bool = False) -> Iterator[pa.RecordBatch]:
    for group in files:
        columns = [name for name in LISTS if name in group.sizes]
        with _open(group.path, check) as file:
            for batch in file.iter_batches(BATCH, row_groups=[group.number], columns=columns, use_threads=False):
                _without_nulls(group.path, batch)
                yield batch


def _open(path: Path, check: bool) -> AbstractContextManager[pq.ParquetFile]:
    return open_parquet(path, read_dictionary=["role"], pre_buffer=False, page_checksum_verification=check)


def _metadata_of(table: pa.Table) -> dict[str, np.ndarray]:
    names = [name for name in table.column_names if name not in (*LISTS, "role")]
    return {name: np.concatenate([to_numpy(chunk) for chunk in table.column(name).chunks]) for name in names}


def _concatenate(metadata: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: _shrunk(np.concatenate([part[name] for part in metadata])) for name in (metadata[0] if metadata else {})}


def _shrunk(values: np.ndarray) -> np.ndarray:
    """The same column; one number repeated without memory where all are equal."""
    return np.broadcast_to(values[:1], values.shape) if (values == values[:1]).all() else values
