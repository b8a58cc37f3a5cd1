"""Seals: the format of `sha256sum`, swapped files, renamed folders."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.storage.errors import CorruptFileError
from pipeline.storage.seals import read_sealed, seal_path, write_sealed


def test_sha256sum_can_check_a_seal(tmp_path: Path) -> None:
    write_sealed(tmp_path / "gru" / "test é.txt", "text")
    words = ["sha256sum", "--check", "--strict", "gru/.test é.txt.sha256"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_a_file_that_was_moved_with_its_seal_is_noticed(tmp_path: Path) -> None:
    one, other = tmp_path / "gru" / "test.txt", tmp_path / "none" / "test.txt"
    for path in (one, other):
        write_sealed(path, path.parent.name)
    for file in (Path, seal_path):
        kept = file(one).read_bytes()
        file(one).write_bytes(file(other).read_bytes())
        file(other).write_bytes(kept)
    with pytest.raises(CorruptFileError, match=r"gru/test.txt: its seal belongs to none/test.txt"):
        read_sealed(one)


def test_a_results_folder_can_be_moved(tmp_path: Path) -> None:
    write_sealed(tmp_path / "results" / "gru" / "test.txt", "text")
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    assert read_sealed(tmp_path / "elsewhere" / "gru" / "test.txt") == b"text"


def test_a_hand_made_dataset_can_be_renamed_and_copied_as_a_whole(tmp_path: Path) -> None:
    made = tmp_path / "data" / "x"
    for name in ("dataset.yaml", "00000.parquet", "manifest.json"):
        write_sealed(made / name, name)
    made.rename(made.with_name("y"))
    shutil.copytree(made.with_name("y"), tmp_path / "elsewhere")
    for folder in (made.with_name("y"), tmp_path / "elsewhere"):
        assert read_sealed(folder / "00000.parquet") == b"00000.parquet"
        assert read_sealed(folder / "dataset.yaml") == b"dataset.yaml"


def test_a_file_of_another_dataset_is_noticed_in_a_renamed_folder_too(tmp_path: Path) -> None:
    for folder in ("x", "other"):
        for name in ("dataset.yaml", "00000.parquet"):
            write_sealed(tmp_path / folder / name, folder)
    (tmp_path / "x").rename(tmp_path / "y")
    for file in (Path, seal_path):
        shutil.copy(file(tmp_path / "other" / "00000.parquet"), file(tmp_path / "y" / "00000.parquet"))
    with pytest.raises(CorruptFileError, match=r"y/00000.parquet: its seal belongs to other/00000.parquet"):
        read_sealed(tmp_path / "y" / "00000.parquet")


def test_a_dataset_of_a_results_folder_cannot_take_the_place_of_another(tmp_path: Path) -> None:
    write_sealed(tmp_path / "datasets" / "copy-test-1" / "dataset.yaml", "1")
    (tmp_path / "datasets" / "copy-test-1").rename(tmp_path / "datasets" / "copy-test-2")
    with pytest.raises(CorruptFileError, match="its seal belongs to copy-test-1/dataset.yaml"):
        read_sealed(tmp_path / "datasets" / "copy-test-2" / "dataset.yaml")
