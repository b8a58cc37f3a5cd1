"""Names and paths from untrusted files: none leads out of its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.errors import CorruptFileError, UserError
from pipeline.storage.files import read_bytes
from pipeline.storage.manifest import read_manifest, seal
from pipeline.storage.paths import check_inside, is_file_name, is_name, safe_join

WRONG = ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "-rf", "A", "é", "a b", "a\n", "x" * 201, ".hidden", "~", "$HOME"]


@pytest.mark.parametrize("name", WRONG)
def test_invalid_names_are_refused(name: str, tmp_path: Path) -> None:
    assert not is_name(name)
    with pytest.raises(UserError, match="invalid name"):
        safe_join(tmp_path, name, "x.yaml")


@given(st.text(max_size=8) | st.text("a./-_\0\n ", max_size=8))
def test_a_name_is_one_path_component(name: str) -> None:
    """The oracle is the operating system's own idea of a path, for all names that are accepted."""
    if is_name(name):
        assert os.path.normpath(f"/top/{name}") == f"/top/{name}"
        assert Path(f"/top/{name}").parent == Path("/top")
    if is_file_name(name):
        assert os.path.normpath(f"/top/{name}") == f"/top/{name}"


def test_a_symlink_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "results", tmp_path / "elsewhere"
    (root / "runs").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "runs" / "out").symlink_to(elsewhere)
    (root / "runs" / "in").symlink_to(root / "runs")
    assert safe_join(root, "runs", "x", "model/config.json") == root / "runs" / "x" / "model" / "config.json"
    assert safe_join(root, "runs", "in") == root / "runs" / "in"
    for parts in (("runs", "out"), ("runs", "out", "x.yaml")):
        with pytest.raises(UserError, match=r"leads out of .*, to .*itself a symlink"):
            safe_join(root, *parts)
    with pytest.raises(UserError, match="leads out"):
        check_inside(root, root / "runs" / ".." / ".." / "x")
    (tmp_path / "link").symlink_to(root)
    assert safe_join(tmp_path / "link", "runs", "x") == tmp_path / "link" / "runs" / "x", "the folder itself may be a link"


def test_a_manifest_names_files_inside_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").write_text("x")
    seal(tmp_path / "run", ["../outside"], {})
    with pytest.raises(CorruptFileError, match=r"manifest\.json: invalid file name '\.\./outside'"):
        read_manifest(tmp_path / "run")


def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, message in ((tmp_path / "fifo", "is a FIFO"), (Path("/dev/zero"), "is a device"), (Path("a\0b"), "NUL byte")):
        with pytest.raises(UserError, match=message):
            read_bytes(path)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(UserError, match="larger than 4 bytes; expected a smaller file"):
        read_bytes(tmp_path / "file", 4)


@pytest.mark.parametrize("name", ["/proc/kmsg", "/proc/cpuinfo"])
def test_a_file_of_the_kernel_reads_as_empty(name: str) -> None:
    """Reading /proc/kmsg would block until the kernel logs a message."""
    if not Path(name).exists():
        pytest.skip(f"no {name}")
    assert read_bytes(Path(name)) == b""
