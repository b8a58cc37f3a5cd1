"""Compiling on first use: once, by whoever comes first, and never against the user's will."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.ops import backends, native
from pipeline.ops.diagonal_scan import diagonal
from pipeline.storage import native as compiling
from pipeline.storage.errors import UserError
from tests.mixers.making import make, sequence

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no user numbers on this operating system")

PROGRAM = "from pipeline.ops import native; native.load('diagonal_scan.c', 'REAL=float'); print('loaded')"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and a process that has not looked for a library yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiling._load.cache_clear()
    yield tmp_path
    compiling._load.cache_clear()


def compiled(home: Path) -> list[Path]:
    """Everything in the cache folder."""
    return sorted((home / "recurlab").iterdir())


def loaded_elsewhere() -> subprocess.Popen[str]:
    """A process that loads the library and says so."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def compiler() -> None:
    """Skip where there is none."""
    try:
        compiling._compiler()
    except compiling.NotAvailable as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("compiler")
def test_one_library_per_definition_and_none_twice(home: Path) -> None:
    first = native.load("diagonal_scan.c", "REAL=float")
    assert native.load("diagonal_scan.c", "REAL=float") is first
    native.load("diagonal_scan.c", "REAL=double")
    files = compiled(home)
    assert len(files) == 2 and all(file.suffix == ".so" for file in files)
    compiling._load.cache_clear()
    stamps = [file.stat().st_mtime_ns for file in files]
    native.load("diagonal_scan.c", "REAL=float")
    assert [file.stat().st_mtime_ns for file in compiled(home)] == stamps


@pytest.mark.usefixtures("compiler")
def test_the_folder_is_private(home: Path) -> None:
    native.load("diagonal_scan.c", "REAL=float")
    assert (home / "recurlab").stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("compiler")
def test_a_damaged_library_is_built_again(home: Path) -> None:
    """In processes of their own: a process that has loaded a library keeps it, whatever becomes of the file."""
    assert loaded_elsewhere().communicate()[0] == "loaded\n"
    (file,) = compiled(home)
    size = file.stat().st_size
    file.write_bytes(b"not a library")
    assert loaded_elsewhere().communicate()[0] == "loaded\n"
    assert file.stat().st_size == size


@pytest.mark.usefixtures("compiler")
def test_many_processes_may_be_the_first(home: Path) -> None:
    processes = [loaded_elsewhere() for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["loaded\n"] * 4
    assert len(compiled(home)) == 1


def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(backends, "_used", {})
    inputs: Any = [torch.randn(shape) for shape in ((1, 2, 3), (4, 3), (2, 2), (3, 4), (3,), (1, 4))]
    diagonal(*inputs)
    assert backends.used() == {"diagonal": ["torch"]}
    with pytest.raises(UserError, match=r"diagonal: backend c is not available: no C compiler found \(CC=no-such-compiler\)"):
        diagonal(*inputs, backend="c")


def test_a_compiler_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'error: out of luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(compiling.NotAvailable, match=r"cannot compile diagonal_scan.c \(error: out of luck\)"):
        native.load("diagonal_scan.c", "REAL=float")


@pytest.mark.usefixtures("compiler")
def test_a_compiler_that_does_not_know_this_processor_still_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "cc"
    plain.write_text(f'#!/bin/sh\nfor word in "$@"; do [ "$word" = -march=native ] && exit 1; done\nexec {compiling._compiler()} "$@"\n')
    plain.chmod(0o755)
    monkeypatch.setenv("CC", str(plain))
    native.load("diagonal_scan.c", "REAL=float")


def test_a_folder_that_others_can_write_to_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "recurlab").mkdir(mode=0o777)
    (home / "recurlab").chmod(0o777)
    monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(home / "temporary"))
    (home / "temporary").mkdir()
    assert compiling.cache_folder() == home / "temporary" / f"recurlab-{os.getuid()}"
    compiling.cache_folder().chmod(0o777)
    with pytest.raises(compiling.NotAvailable, match="no folder to keep the library in"):
        compiling.cache_folder()


@pytest.mark.usefixtures("compiler")
def test_libraries_that_came_along_need_no_compiler_and_compute_the_same_bits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not set(compiling._processor().split()) >= compiling.V3:
        pytest.skip("needs an x86-64-v3 processor")
    compiling.prebuild(home / "native")
    tasks = list((compiling.PACKAGE / "tasks").glob("*.c"))
    assert tasks and len(list((home / "native").iterdir())) == 2 * len(list(native.HERE.glob("*.c"))) + len(tasks)
    x_BTD = sequence(2, 40, torch.float32)
    tuned = {name: make(name, torch.float32)(x_BTD)[0] for name in ("lru", "mamba", "min_gru", "multiplicative_lstm", "gated_delta_net")}
    monkeypatch.setenv(compiling.PREBUILT, str(home / "native"))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(backends, "_used", {})
    compiling._load.cache_clear()
    for name, expected in tuned.items():
        assert torch.equal(make(name, torch.float32)(x_BTD)[0], expected), name
    assert {backend for names in backends.used().values() for backend in names} >= {"c"}
    assert all(compiling.load(source) for source in tasks)
    assert not [
        operation
        for operation, names in backends.used().items()
        if names == ["torch"] and operation in ("diagonal", "selective_scan", "delta_rule")
    ]
