"""Reading datasets: both modes return exactly what was written, and only after it was verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.storage import loader
from pipeline.storage.arrow import from_numpy
from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.loader import DatasetRows, MemoryRows, RowGroupRows, open_rows
from pipeline.storage.manifest import seal
from pipeline.storage.tables import write_table
from tests.storage.datasets import PADDING, Sample, make_dataset

FORMS: list[dict[str, Any]] = [
    {"fixed": fixed, "labelled": labelled, "longest": longest, "features": features}
    for fixed in (True, False)
    for labelled in (True, False)
    for longest in (1, 9)
    for features in (0, 1, 3)
]


@pytest.fixture(params=["memory", "row_groups"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


def check(rows: DatasetRows, sample: Sample, indices: np.ndarray) -> None:
    """Compare the block at `indices` with the plain lists."""
    block = rows.gather(indices)
    for line, (index, length) in enumerate(zip(indices, block.lengths, strict=True)):
        padding = block.tokens.shape[1] - length
        assert block.tokens[line].tolist() == sample.tokens[index] + [PADDING] * padding
        assert block.roles[line].tolist() == sample.roles[index] + [0] * padding
        if block.values is not None:
            nothing = [0.0] * block.values.shape[2]
            assert block.values[line].tolist() == sample.values[index] + [nothing] * padding
    assert block.columns["row"].tolist() == indices.tolist()
    assert block.columns["level"].tolist() == [sample.level[index] for index in indices]
    if sample.target is None:
        assert block.target is None
    else:
        assert block.target is not None
        assert block.target.tolist() == [label for index in indices for label in sample.target[index]]
    assert (block.tokens.dtype, block.roles.dtype, block.lengths.dtype) == (np.uint16, np.uint8, np.int32)
    assert (block.values is None) == (not sample.values[0][0])
    assert block.values is None or block.values.dtype == np.float32


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_come_back_as_written(tmp_path: Path, small_groups: None, mode: Any, form: dict[str, Any]) -> None:
    sample = make_dataset(tmp_path, [50, 1, 0, 33], **form)
    rows = open_rows(tmp_path, mode)
    assert len(rows) == 84
    assert rows.lengths.tolist() == [len(row) for row in sample.tokens]
    assert rows.column("level").tolist() == sample.level
    draw = np.random.default_rng(0)
    for indices in (np.arange(84), draw.permutation(84), draw.integers(84, size=10), np.array([83]), np.array([5, 5, 60])):
        check(rows, sample, indices)


def test_both_modes_know_the_row_groups(tmp_path: Path, small_groups: None) -> None:
    make_dataset(tmp_path, [40, 16])
    assert open_rows(tmp_path, "row_groups").groups.tolist() == [0, 16, 32, 40, 56]
    assert open_rows(tmp_path, "memory").groups.tolist() == [0, 56]


def test_a_dataset_without_rows(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [0, 0])
    rows = open_rows(tmp_path, mode)
    assert len(rows) == 0 and len(rows.lengths) == 0


def test_constant_columns_take_no_memory(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [40], fixed=True)
    assert open_rows(tmp_path, mode).lengths.strides == (0,)


def test_few_row_groups_are_open_at_once_and_each_is_read_once(tmp_path: Path, small_groups: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make_dataset(tmp_path, [16 * 20])
    rows, read = open_rows(tmp_path, "row_groups"), []
    decode = loader.decode
    monkeypatch.setattr(loader, "decode", lambda *arguments: read.append(1) or decode(*arguments))
    assert isinstance(rows, RowGroupRows)
    check(rows, sample, np.random.default_rng(0).permutation(len(rows)))
    assert len(read) == 20
    assert len(rows._open) == loader.OPEN_GROUPS
    held = np.concatenate([np.arange(rows.groups[group], rows.groups[group + 1]) for group in rows._open])
    check(rows, sample, held)
    assert len(read) == 20
    straddling = np.concatenate([np.arange(16), held])  # a group that is not open comes first, yet none of the open ones is lost
    check(rows, sample, straddling)
    assert len(read) == 21


def test_auto_depends_on_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make_dataset(tmp_path, [20])
    size = 2 * sum(len(row) for row in sample.tokens)
    monkeypatch.setattr(loader, "MAX_MEMORY_BYTES", size)
    assert isinstance(open_rows(tmp_path), MemoryRows)
    monkeypatch.setattr(loader, "MAX_MEMORY_BYTES", size - 1)
    assert isinstance(open_rows(tmp_path), RowGroupRows)
    make_dataset(tmp_path, [20], features=3)
    monkeypatch.setattr(loader, "MAX_MEMORY_BYTES", 7 * size)
    assert isinstance(open_rows(tmp_path), MemoryRows)
    monkeypatch.setattr(loader, "MAX_MEMORY_BYTES", 7 * size - 1)
    assert isinstance(open_rows(tmp_path), RowGroupRows)


def test_nothing_is_read_before_it_is_verified(tmp_path: Path, mode: Any) -> None:
    make_dataset(tmp_path, [20, 20])
    path = tmp_path / "00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(CorruptFileError, match=r"00001\.parquet: SHA-256"):
        open_rows(tmp_path, mode)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"00001\.parquet"):
        open_rows(tmp_path, mode)


def test_a_sealed_file_that_is_not_a_shard(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", pa.table({"loss": from_numpy(np.ones(1))}))
    seal(tmp_path, ["x.parquet"], {})
    with pytest.raises(CorruptFileError, match=r"x\.parquet: no column role or tokens; expected a shard"):
        open_rows(tmp_path)


def test_damage_after_opening_is_noticed_too(tmp_path: Path) -> None:
    make_dataset(tmp_path, [200], fixed=True)
    rows, path = open_rows(tmp_path, "row_groups"), tmp_path / "00000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    with pytest.raises(CorruptFileError, match=r"00000\.parquet"):
        rows.gather(np.arange(200))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tokens", pa.array([["a"]] * 6), r"column tokens: list<\S+: string>; expected lists of uint16"),
        ("tokens", pa.array([1] * 6), "column tokens: int64; expected lists of uint16"),
        ("role", pa.array(["a"] * 6), "column role: string; expected binary"),
        ("delay", pa.array(["a"] * 6), "column delay: string; expected int8 or "),
        ("delay", pa.array([0.5] * 6), "column delay: double; expected int8 or "),
        ("delay", pa.array([1, None, 1, 1, 1, 1], pa.int32()), "column delay: 1 of 6 values missing; expected none"),
        (
            "tokens",
            pa.array([[1, 2], None, [1], [2], [3], [4]], pa.list_(pa.uint16())),
            "column tokens: 1 of 6 values missing; expected none",
        ),
    ],
)
def test_a_shard_with_wrong_columns_is_reported(name: str, values: pa.Array, message: str, tmp_path: Path) -> None:
    columns = {
        "tokens": pa.array([[1, 2]] * 6, pa.list_(pa.uint16())),
        "role": pa.array([b"\0\1"] * 6),
        "delay": pa.array([3] * 6, pa.int32()),
    }
    write_table(tmp_path / "00000.parquet", pa.table({**columns, name: values}))
    seal(tmp_path, ["00000.parquet"], {"rows": 6})
    with pytest.raises(CorruptFileError, match=f"00000.parquet: {message}"):
        open_rows(tmp_path)
    write_table(tmp_path / "00000.parquet", pa.table(columns))
    seal(tmp_path, ["00000.parquet"], {"rows": 12})
    with pytest.raises(CorruptFileError, match="6 rows in its shards, expected 12"):
        open_rows(tmp_path)
