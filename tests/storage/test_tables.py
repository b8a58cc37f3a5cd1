"""Tables: the same bytes for the same content; damage is noticed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.seals import sealed
from pipeline.storage.tables import open_parquet, read_table, write_table


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"name": ["a", "b", None, "ü"] * 50, "loss": rng.random(200), "hits": [[1, 0]] * 199 + [[]]})


def test_round_trip(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "deep" / "table.parquet", table)
    assert read_table(tmp_path / "deep" / "table.parquet").equals(table)
    assert [path.name for path in (tmp_path / "deep").iterdir() if not path.name.startswith(".")] == ["table.parquet"]


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "seed=1" / "table.parquet", table)
    assert read_table(tmp_path / "seed=1" / "table.parquet").column_names == table.column_names


def test_same_content_gives_same_bytes_whatever_pandas_noted(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "plain", table)
    write_table(tmp_path / "noted", pa.Table.from_pandas(table.to_pandas(), schema=table.schema))
    write_table(tmp_path / "kept", table.replace_schema_metadata({"unit": "nats"}))
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "noted").read_bytes()
    assert read_table(tmp_path / "kept").schema.metadata == {b"unit": b"nats"}


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.parquet: no such file; run again"):
        read_table(tmp_path / "none.parquet")


def test_truncated_foreign_and_empty_files_are_reported(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "whole", table)
    content = (tmp_path / "whole").read_bytes()
    for damaged in (b"", b"PAR1", b"{}", content[:-1], content[: len(content) // 2], content[1:], bytes(len(content))):
        path = tmp_path / "damaged.parquet"
        with sealed(path) as temporary:
            temporary.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"damaged\.parquet: invalid Parquet .*; delete it and run again") as caught:
            read_table(path)
        assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_noticed(tmp_path: Path, table: pa.Table) -> None:
    path, draw = tmp_path / "table.parquet", random.Random(0)
    write_table(path, table)
    content = path.read_bytes()
    for _ in range(150):
        place = draw.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
        with pytest.raises(CorruptFileError, match=r"table\.parquet: SHA-256 .*, expected .*; delete it and run again$"):
            read_table(path)


def test_errors_inside_the_reading_block_are_one_line(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "whole", table)
    with pytest.raises(CorruptFileError, match="whole: invalid Parquet"), open_parquet(tmp_path / "whole") as file:
        file.read_row_group(5)
    with pytest.raises(UserError, match="ours"), open_parquet(tmp_path / "whole"):
        raise UserError("ours")
