"""Parquet tables on disk: evaluations, histories, results. The same table gives the same bytes; reading verifies the seal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.files import check_regular
from pipeline.storage.seals import read_sealed, sealed

PARQUET_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet (zstd, page checksums, without pandas' schema metadata) and its seal."""
    notes = {key: value for key, value in (table.schema.metadata or {}).items() if key != b"pandas"}
    with sealed(path) as temporary:
        pq.write_table(table.replace_schema_metadata(notes), temporary, **PARQUET_OPTIONS)


def read_table(path: Path) -> pa.Table:
    """Read a table and verify its seal. Raises MissingFileError or CorruptFileError naming the file."""
    with open_parquet(path, pa.BufferReader(read_sealed(path))) as file:
        return file.read(use_threads=False)


@contextmanager
def open_parquet(path: Path, source: pa.NativeFile | None = None, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, or its bytes in `source`. Any error while reading becomes a UserError of one line naming the file."""
    try:
        if source is None:
            check_regular(path)
        with pq.ParquetFile(source or path, **options) as file:
            yield file
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; run again to regenerate it") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied; expected a readable file") from None
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CorruptFileError(f"{path}: invalid Parquet ({reason}); delete it and run again") from None
