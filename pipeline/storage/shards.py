"""Shards: the Parquet files of a dataset.

Parquet stores integers in 32 bits, so integer columns are dictionary-encoded: a token of a small vocabulary takes a byte or less, and
rows with the same roles share one entry of the role column. Floats seldom repeat and use byte-stream split, which compresses better.
A shard's bytes depend only on its rows and metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.seals import sealed
from pipeline.storage.tables import PARQUET_OPTIONS, open_parquet

ROWS_PER_GROUP = 4096
MAX_DICTIONARY_BYTES = 1 << 30  # with pyarrow's default of 1 MiB, long rows with many role patterns would be stored unencoded


class ShardInfo(NamedTuple):
    """A shard's footer: rows, tokens, and the metadata it was written with."""

    rows: int
    tokens: int
    metadata: dict[str, str]


def shard_name(index: int) -> str:
    """Return the file name of a dataset's shard."""
    return f"{index:05d}.parquet"


def shard_rows(rows: int, shards: int, index: int) -> int:
    """Return the rows of one shard when `rows` are split evenly over `shards`; if they do not divide, the first shards hold one more."""
    assert 0 <= index < shards
    return rows // shards + (index < rows % shards)


def write_shard(path: Path, rows: pa.RecordBatch | pa.Table, metadata: dict[str, str]) -> None:
    """Write the rows in row groups of 4096, with `metadata` in the file's schema, and the seal."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    notes = {**(table.schema.metadata or {}), **{key.encode(): value.encode() for key, value in metadata.items()}}
    with sealed(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(notes),
            temporary,
            row_group_size=ROWS_PER_GROUP,
            dictionary_pagesize_limit=MAX_DICTIONARY_BYTES,
            **_encodings(table.schema),
            **PARQUET_OPTIONS,
        )


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Return the Parquet columns with a dictionary and those with byte-stream split."""
    whole, real = [], []
    for field in schema:
        nested = isinstance(field.type, pa.ListType | pa.FixedSizeListType)
        kind = field.type.value_type if nested else field.type
        (real if pa.types.is_floating(kind) else whole).append(f"{field.name}.list.element" if nested else field.name)
    return {"use_dictionary": whole, "use_byte_stream_split": real}


def leaf_values(group: pq.RowGroupMetaData) -> dict[str, int]:
    """Count the stored values per top-level column of a row group: for a list column the total length, where an empty list counts as 1."""
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema.partition(".")[0]: column.num_values for column in columns}


def shard_info(path: Path) -> ShardInfo:
    """Read a shard's footer. Raises CorruptFileError if it cannot be read."""
    with open_parquet(path) as file:
        footer, notes = file.metadata, file.schema_arrow.metadata or {}
        tokens = sum(leaf_values(footer.row_group(group)).get("tokens", 0) for group in range(footer.num_row_groups))
        return ShardInfo(footer.num_rows, tokens, {key.decode(): value.decode() for key, value in notes.items()})
