"""Compile C files of this package on first use, cached per user. Raises NotAvailable without a compiler.

Container images have no compiler: their libraries are built ahead of time (`prebuild`) into the folder named by RECURLAB_NATIVE.
A library's file name is a hash of its source and headers, the flags, the compiler and the processor's features, so that a home folder
shared between different machines is safe. It is built in a temporary folder and renamed into place, so processes may compile concurrently.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from pipeline.storage.digest import digest

PACKAGE = Path(__file__).parents[1]
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared")
TUNED = ("-march=native",)
PORTABLE = ("-march=x86-64-v3",)
"""For libraries built on one machine and used on others. ISO C does not fuse multiplication and addition, so results are bit-identical."""
V3 = {"avx2", "bmi2", "fma", "movbe"}
PREBUILT = "RECURLAB_NATIVE"
COMPILE_TIMEOUT = 120
"""Time limit of a compiler call in seconds."""
REALS = ("REAL=float",), ("REAL=double",)
"""The definitions that a source computing in REAL is compiled with, once each; other sources have none."""

_lock = threading.Lock()


class NotAvailable(Exception):
    """The library is not available; the message gives the reason."""


def load(source: Path, *definitions: str) -> ctypes.CDLL:
    """Load the library compiled from a C file, with `-D` definitions and the headers beside it. Raises NotAvailable."""
    with _lock:
        found = _load(source, definitions)
    if isinstance(found, str):
        raise NotAvailable(found)
    return found


@functools.cache
def _load(source: Path, definitions: tuple[str, ...]) -> ctypes.CDLL | str:
    """Return the library, or the reason why there is none; cached per process."""
    try:
        ready = _prebuilt(source, definitions)
        path = ready or _built(source, definitions, rebuild=False)
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            return ctypes.CDLL(str(_built(source, definitions, rebuild=True)))
    except (NotAvailable, OSError) as error:
        return str(error)


def prebuild(folder: Path) -> None:
    """Compile every C file of the package for x86-64-v3 into a folder, for machines without a compiler. Raises NotAvailable."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(PACKAGE.rglob("*.c")):
        for definitions in REALS if "REAL" in source.read_text(encoding="utf-8") else ((),):
            _compile(_compiler(), source, definitions, folder / _portable_name(source, definitions), PORTABLE)


def _prebuilt(source: Path, definitions: tuple[str, ...]) -> Path | None:
    """Return the image's prebuilt library of these sources, if there is one and this processor supports it."""
    folder = os.environ.get(PREBUILT)
    if not folder or not set(_processor().split()) >= V3:
        return None
    path = Path(folder) / _portable_name(source, definitions)
    return path if path.exists() else None


def _portable_name(source: Path, definitions: tuple[str, ...]) -> str:
    key = {"sources": _sources(source), "flags": [*FLAGS, *PORTABLE, *definitions]}
    return f"{source.stem}-{digest(key, 20)}.so"


def _sources(source: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))]


def _built(source: Path, definitions: tuple[str, ...], rebuild: bool) -> Path:
    compiler, folder = _compiler(), cache_folder()
    key = {"sources": _sources(source), "compiler": _version(compiler), "processor": _processor(), "flags": [*FLAGS, *TUNED, *definitions]}
    target = folder / f"{source.stem}-{digest(key, 20)}.so"
    if rebuild or not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / target.name
            _compile(compiler, source, definitions, fresh, TUNED)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(target)
    return target


def _compile(compiler: str, source: Path, definitions: tuple[str, ...], target: Path, tuned: tuple[str, ...]) -> None:
    """Compile with the `tuned` flags, or without them if the compiler does not accept them."""
    defined = [f"-D{definition}" for definition in definitions]
    for flags in ((*FLAGS, *tuned), FLAGS):
        done = _run([compiler, *flags, *defined, "-o", str(target), str(source)], {"TMPDIR": str(target.parent)})
        if done.returncode == 0:
            return
    lines = done.stderr.strip().splitlines() or ["no message"]
    raise NotAvailable(f"{compiler} cannot compile {source.name} ({lines[0]})")


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        environment = {**os.environ, **(variables or {})}
        return subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{command[0]} does not run ({type(error).__name__})") from None


def _compiler() -> str:
    asked = os.environ.get("CC")
    found = [path for name in ([asked] if asked else ["cc", "gcc", "clang"]) if (path := shutil.which(name))]
    if not found:
        raise NotAvailable(f"no C compiler found ({'CC=' + asked if asked else 'cc, gcc or clang'})")
    return found[0]


def _version(compiler: str) -> str:
    return _run([compiler, "--version"]).stdout


def _processor() -> str:
    """Describe this processor, as the target of `-march=native`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    abilities = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(abilities))])


def cache_folder() -> Path:
    """Return the folder of compiled libraries, under XDG_CACHE_HOME or ~/.cache, else the temporary folder; writable only by this user."""
    if not hasattr(os, "getuid"):
        raise NotAvailable("no per-user cache folder on this operating system")
    home = os.environ.get("XDG_CACHE_HOME") or f"{os.environ.get('HOME', '.')}/.cache"
    choices = [Path(home) / "recurlab", Path(tempfile.gettempdir()) / f"recurlab-{os.getuid()}"]
    for folder in choices:
        if folder.is_absolute() and _private(folder):
            return folder
    raise NotAvailable(f"no folder to keep the library in ({' or '.join(map(str, choices))})")


def _private(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == os.getuid() and not shared and os.access(folder, os.W_OK)
