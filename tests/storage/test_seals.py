"""Seals: what `sha256sum` understands, and what a swap of files with their seals comes to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.storage.errors import CorruptFileError
from pipeline.storage.seals import read_sealed, seal_path, write_sealed


def test_a_seal_is_read_by_sha256sum(tmp_path: Path) -> None:
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
    with pytest.raises(CorruptFileError, match=r"gru/test.txt: its seal is that of none/test.txt"):
        read_sealed(one)


def test_a_folder_may_be_moved_whole(tmp_path: Path) -> None:
    write_sealed(tmp_path / "results" / "gru" / "test.txt", "text")
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    assert read_sealed(tmp_path / "elsewhere" / "gru" / "test.txt") == b"text"
