"""Seals: beside every result a hidden file with its SHA-256, so that a changed byte is noticed before a number comes from it.

    copy/results.parquet
    copy/.results.parquet.sha256      f3927b9a...  copy/results.parquet

A seal names the folder too, so that a file that was moved with its seal to another run is noticed, and has the form that `sha256sum -c` reads
in the folder above. `sealed` writes both, `read_sealed` reads and verifies. A file without a seal, or with one that does not fit, is
damaged: nothing is read from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage.atomic import atomic, final_name, write_text
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.files import check_regular

SUFFIX = ".sha256"
REMAKE = "delete it and run again"
MOVE_AWAY = "expected a file that the pipeline wrote; move it away and run again"


def seal_path(path: Path) -> Path:
    """Where the seal of a file lies."""
    return path.with_name(f".{path.name}{SUFFIX}")


def name_of(path: Path) -> str:
    """What a seal calls its file: its name behind that of its folder, which may be under a temporary name still."""
    return f"{final_name(path.absolute().parent.name)}/{path.name}"


def sealed_file(seal: Path) -> Path | None:
    """The file that a seal belongs to; None for a file that is no seal."""
    name = seal.name
    return (
        seal.with_name(name[1 : -len(SUFFIX)]) if name.startswith(".") and name.endswith(SUFFIX) and len(name) > len(SUFFIX) + 1 else None
    )


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Like `atomic`, and writes the seal: yields a temporary path that becomes `path` when the block ends well."""
    with atomic(path) as temporary:
        yield temporary
        write_text(seal_path(path), f"{file_sha256(temporary)}  {name_of(path)}\n")


def write_sealed(path: Path, text: str) -> None:
    """Write a text file and its seal."""
    with sealed(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_sealed(path: Path, expected: str = "") -> bytes:
    """The bytes of a file, verified; `expected` says what it should have been, for the message.

    Raises MissingFileError or CorruptFileError, naming the file and what to do about it, and UserError where it cannot be read.
    """
    with explain_read_errors(path, expected):
        written = _written(path, expected)
        data = path.read_bytes()
    _compare(path, hashlib.sha256(data).hexdigest(), written)
    return data


def check_seal(path: Path) -> None:
    """Verify a file of any size. Raises as `read_sealed` does."""
    with explain_read_errors(path):
        written = _written(path, "")
        found = file_sha256(path)
    _compare(path, found, written)


@contextmanager
def explain_read_errors(path: Path, expected: str = "") -> Iterator[None]:
    """Around the reading of a file: refuse a folder, a pipe or a device, and say in one line why it cannot be read."""
    try:
        check_regular(path)
        yield
    except IsADirectoryError:
        raise CorruptFileError(f"{path}: not a file; {_advice(expected, MOVE_AWAY)}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path}: no such file; {_advice(expected, 'run again to make it')}") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied; expected a file this user can read") from None
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}); {_advice(expected, REMAKE)}") from None


def _advice(expected: str, usual: str) -> str:
    return f"expected {expected}" if expected else usual


def _written(path: Path, expected: str) -> str:
    """The digest that a file's seal holds, known before a byte of the file is read."""
    seal = seal_path(path)
    try:
        written = re.fullmatch(r"([0-9a-f]{64})  ([^\n]+)\n", seal.read_bytes().decode())
    except FileNotFoundError:
        raise CorruptFileError(f"{path}: no seal ({seal.name}) covers it; {_advice(expected, MOVE_AWAY)}") from None
    except PermissionError:
        raise UserError(f"{seal}: permission denied; expected a file this user can read") from None
    except (OSError, ValueError):
        written = None
    if written is None:
        raise CorruptFileError(f"{path}: its seal {seal.name} is damaged; delete both and run again")
    if written[2] != name_of(path):
        raise CorruptFileError(f"{path}: its seal is that of {written[2]}; {_advice(expected, REMAKE)}")
    return written[1]


def _compare(path: Path, found: str, written: str) -> None:
    if found != written:
        raise CorruptFileError(f"{path}: SHA-256 {found[:12]}…, expected {written[:12]}…; {REMAKE}")
