"""Shards: how rows are split, and what is written."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage import shards
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import CorruptFileError, UserError
from pipeline.storage.shards import shard_info, shard_rows, write_shard
from pipeline.tasks.base import Ragged, rows_of
from tests.storage.datasets import make_dataset


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_rows_are_split_evenly(rows: int, count: int) -> None:
    sizes = [shard_rows(rows, count, index) for index in range(count)]
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1


def test_the_footer_has_rows_tokens_and_metadata(tmp_path: Path, small_groups: None) -> None:
    sample = make_dataset(tmp_path, [50, 0])
    facts = shard_info(tmp_path / "00000.parquet")
    assert facts.rows == 50
    assert facts.tokens == sum(len(row) for row in sample.tokens)
    assert facts.metadata == {"shard": "0", "padding": "77"}
    assert shard_info(tmp_path / "00001.parquet")[:2] == (0, 0)


def test_an_unreadable_shard_is_reported(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"nothing")
    with pytest.raises(CorruptFileError, match=r"00000\.parquet"):
        shard_info(tmp_path / "00000.parquet")


def test_column_types_on_disk(tmp_path: Path, small_groups: None) -> None:
    make_dataset(tmp_path, [40], fixed=True)
    with pq.ParquetFile(tmp_path / "00000.parquet") as file:
        footer, schema = file.metadata, file.schema_arrow
    assert str(schema.field("tokens").type) == "fixed_size_list<element: uint16 not null>[9]"
    assert str(schema.field("role").type) == "binary"
    assert str(schema.field("target").type) == "list<element: uint16 not null>"
    assert not any(schema.field(name).nullable for name in schema.names)
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [16, 16, 8]
    columns = [footer.row_group(0).column(index) for index in range(footer.num_columns)]
    assert all(column.compression == "ZSTD" and "RLE_DICTIONARY" in column.encodings for column in columns)


def test_floats_have_no_dictionary(tmp_path: Path) -> None:
    make_dataset(tmp_path, [40], features=2)
    with pq.ParquetFile(tmp_path / "00000.parquet") as file:
        group = file.metadata.row_group(0)
        encodings = {group.column(index).path_in_schema: group.column(index).encodings for index in range(group.num_columns)}
        assert str(file.schema_arrow.field("values").type) == "list<element: float not null>"
    real = {path for path, used in encodings.items() if "BYTE_STREAM_SPLIT" in used and "RLE_DICTIONARY" not in used}
    assert real == {"values.list.element", "target.list.element"}
    assert all("RLE_DICTIONARY" in used for path, used in encodings.items() if path not in real)


def test_many_long_layouts_stay_in_a_dictionary(tmp_path: Path) -> None:
    rows, length = 2000, 1000
    layouts = [bytes(index) + b"\1" * (length - index) for index in range(length)]
    tokens = Ragged(np.zeros(rows * length, np.uint16), np.full(rows, length), True)
    write_shard(tmp_path / "x.parquet", rows_of(tokens, layouts, np.arange(rows) % length, {}, 0), {})
    with pq.ParquetFile(tmp_path / "x.parquet") as file:
        column = file.metadata.row_group(0).column(1)
    assert column.path_in_schema == "role"
    assert column.encodings == ("PLAIN", "RLE", "RLE_DICTIONARY")
    assert column.total_uncompressed_size < 1.1 * length * length


def random_tokens(path: Path, rows: int) -> None:
    """A shard of rows of 512 tokens, eight random bits each."""
    rng, length = np.random.default_rng(0), 512
    tokens = Ragged(rng.integers(256, size=rows * length, dtype=np.uint16), np.full(rows, length), True)
    write_shard(path, rows_of(tokens, [bytes(length)], np.zeros(rows, np.int64), {}, 0), {})


def test_random_tokens_of_eight_bits_take_about_a_byte(tmp_path: Path) -> None:
    random_tokens(tmp_path / "x.parquet", 2048)
    assert (tmp_path / "x.parquet").stat().st_size < 1.1 * 2048 * 512


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for place in ("one", "two"):
        make_dataset(tmp_path / place, [30])
    assert file_sha256(tmp_path / "one" / "00000.parquet") == file_sha256(tmp_path / "two" / "00000.parquet")


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(table: object, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.pq, "write_table", fails)
    with pytest.raises(UserError, match=r"00000\.parquet: the disk is full"):
        make_dataset(tmp_path, [3])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_real_full_disk_leaves_no_file(tiny_disk: Path) -> None:
    make_dataset(tiny_disk / "fits", [20])
    with pytest.raises(UserError, match=r"00000\.parquet: the disk is full; free some space"):
        random_tokens(tiny_disk / "large" / "00000.parquet", 512)
    assert list((tiny_disk / "large").iterdir()) == []
