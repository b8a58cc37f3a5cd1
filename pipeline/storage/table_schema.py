"""Schemas of tables: columns, types, nulls, bounds and unique keys, checked when a table is read.

A seal proves that a file is unchanged; a schema checks that its content is what readers expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.storage.errors import CorruptFileError
from pipeline.storage.lazy import np, pa
from pipeline.storage.seals import REMAKE

ColumnType = Literal["text", "whole", "number", "flag", "list", "bytes"]
ARROW_TYPES: dict[ColumnType, tuple[str, ...]] = {
    "text": ("string", "large_string"),
    "whole": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    "number": ("float", "double", "int32", "int64"),
    "flag": ("bool",),
    "list": ("list",),
    "bytes": ("binary", "large_binary"),
}
"""Column type -> its Arrow types, without type parameters."""


class Column(NamedTuple):
    """A column: its type, whether it may hold nulls or NaN, whether it may be absent, and its inclusive bounds."""

    type: ColumnType
    null: bool = False
    optional: bool = False
    least: float | None = None
    most: float | None = None


class Schema(NamedTuple):
    """A table's columns; `key`: columns whose values together are unique per row; `others`: what any further column must be, if known."""

    columns: Mapping[str, Column]
    key: tuple[str, ...] = ()
    others: Column | None = None


def check_table(path: Path, table: pa.Table, schema: Schema) -> pa.Table:
    """Return the table if it matches the schema. Raises CorruptFileError naming the file, the column, what was found and what was expected."""
    names = table.column_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise CorruptFileError(f"{path}: column {repeated[0]}: occurs twice; expected once; {REMAKE}")
    for name, column in schema.columns.items():
        if name in names:
            _check_column(path, name, table.column(name), column)
        elif not column.optional:
            raise CorruptFileError(
                f"{path}: column {name}: missing (columns: {', '.join(names) or 'none'}); expected {_describe(column)}; {REMAKE}"
            )
    for name in names if schema.others else ():
        if name not in schema.columns and schema.others:
            _check_column(path, name, table.column(name), schema.others)
    _check_key(path, table, schema.key)
    return table


def _describe(column: Column) -> str:
    plural = {"text": "strings", "whole": "integers", "number": "numbers", "flag": "booleans", "list": "lists", "bytes": "bytes"}
    low = "" if column.least is None else f" of at least {column.least:g}"
    return plural[column.type] + (f" in {column.least or 0:g}..{column.most:g}" if column.most is not None else low)


def _check_column(path: Path, name: str, values: pa.ChunkedArray, column: Column) -> None:
    found = str(values.type).partition("<")[0].partition("[")[0]
    empty = pa.types.is_null(values.type) and (column.null or not len(values))
    if found not in ARROW_TYPES[column.type] and not empty:
        raise CorruptFileError(f"{path}: column {name}: {values.type}; expected {_describe(column)}; {REMAKE}")
    nulls = values.null_count + (_nan(values) if pa.types.is_floating(values.type) else 0)
    if nulls and not column.null:
        raise CorruptFileError(f"{path}: column {name}: {nulls} of {len(values)} values missing; expected {_describe(column)}; {REMAKE}")
    if not empty and (column.least is not None or column.most is not None):
        _check_bounds(path, name, values, column)


def _nan(values: pa.ChunkedArray) -> int:
    return int(np.isnan(values.drop_null().to_numpy()).sum())


def _check_bounds(path: Path, name: str, values: pa.ChunkedArray, column: Column) -> None:
    """Check the bounds; NaN is within any."""
    known = values.drop_null().to_numpy()
    low, high = (-np.inf if column.least is None else column.least), (np.inf if column.most is None else column.most)
    outside = known[(known < low) | (known > high)]
    if len(outside):
        raise CorruptFileError(f"{path}: column {name}: {outside[0]:g}; expected {_describe(column)}; {REMAKE}")


def _check_key(path: Path, table: pa.Table, key: tuple[str, ...]) -> None:
    names = [name for name in key if name in table.column_names]
    if not names:
        return
    distinct = table.select(names).group_by(names).aggregate([]).num_rows
    if distinct < table.num_rows:
        raise CorruptFileError(
            f"{path}: {table.num_rows - distinct} rows repeat a combination of {', '.join(names)}; expected unique rows; {REMAKE}"
        )
