"""Seals: a hidden file beside every result holds its SHA-256, so that a changed byte is detected before the file is used.

    copy/results.parquet
    copy/.results.parquet.sha256      f3927b9a...  copy/results.parquet

`sealed` writes both, `read_sealed` reads and verifies. A file without a matching seal counts as damaged and is not used. The format is
that of `sha256sum`, so `sha256sum -c` verifies a seal when run in the parent folder. A seal names its folder, so that a file moved to another
run together with its seal is detected. A dataset folder written by hand (`pipeline generate --out`) may be renamed or copied as a whole: outside
a results folder, the seals of its files only have to name the same folder as the seal of its dataset.yaml.
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
MOVE_AWAY = "move it away and run again"


def seal_path(path: Path) -> Path:
    """Return the path of a file's seal."""
    return path.with_name(f".{path.name}{SUFFIX}")


def name_in_seal(path: Path) -> str:
    """Return the name of a file in its seal: {folder}/{file}, with the folder's final name."""
    return f"{final_name(path.absolute().parent.name)}/{path.name}"


def sealed_file(seal: Path) -> Path | None:
    """Return the file that a seal belongs to, or None if `seal` is not a seal."""
    name = seal.name
    return (
        seal.with_name(name[1 : -len(SUFFIX)]) if name.startswith(".") and name.endswith(SUFFIX) and len(name) > len(SUFFIX) + 1 else None
    )


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Like `atomic`, but also write the seal."""
    with atomic(path) as temporary:
        yield temporary
        write_text(seal_path(path), f"{file_sha256(temporary)}  {name_in_seal(path)}\n")


def write_sealed(path: Path, text: str) -> None:
    """Write a text file and its seal."""
    with sealed(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_sealed(path: Path, expected: str = "") -> bytes:
    """Read a file and verify its seal; `expected` describes the file in error messages.

    Raises MissingFileError or CorruptFileError naming the file and the remedy, and UserError if permission is denied.
    """
    with explain_read_errors(path, expected):
        written = _sealed_digest(path, expected)
        data = path.read_bytes()
    _compare(path, hashlib.sha256(data).hexdigest(), written)
    return data


def check_seal(path: Path) -> None:
    """Verify the seal of a file of any size. Raises like `read_sealed`."""
    with explain_read_errors(path):
        written = _sealed_digest(path, "")
        found = file_sha256(path)
    _compare(path, found, written)


@contextmanager
def explain_read_errors(path: Path, expected: str = "") -> Iterator[None]:
    """Read a file inside the block: refuse anything but a regular file, and turn an OSError into a UserError of one line."""
    try:
        check_regular(path)
        yield
    except IsADirectoryError:
        raise CorruptFileError(f"{path}: is a folder; {_remedy(expected, MOVE_AWAY)}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path}: no such file; {_remedy(expected, 'run again to regenerate it')}") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied; expected a readable file") from None
    except OSError as error:
        raise CorruptFileError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}); {_remedy(expected, REMAKE)}") from None


def _remedy(expected: str, default: str) -> str:
    return f"expected {expected}" if expected else default


def _sealed_digest(path: Path, expected: str) -> str:
    """Return the digest in a file's seal. Raises like `read_sealed` if there is none, or if it belongs to another file."""
    seal = seal_path(path)
    try:
        written = _parse(seal)
    except FileNotFoundError:
        raise CorruptFileError(f"{path}: not sealed (no {seal.name}); {_remedy(expected, MOVE_AWAY)}") from None
    except PermissionError:
        raise UserError(f"{seal}: permission denied; expected a readable file") from None
    except (OSError, ValueError):
        written = None
    if written is None:
        raise CorruptFileError(f"{path}: its seal {seal.name} is damaged; delete both and run again")
    if written[1] not in (name_in_seal(path), f"{_original_folder(path.parent)}/{path.name}"):
        raise CorruptFileError(f"{path}: its seal belongs to {written[1]}; {_remedy(expected, REMAKE)}")
    return written[0]


def _parse(seal: Path) -> tuple[str, str] | None:
    """Return the digest and the name in a seal, or None if it is damaged. Raises OSError if it cannot be read."""
    content = re.fullmatch(rb"([0-9a-f]{64})  ([^\n]+)\n", seal.read_bytes())
    return (content[1].decode(), content[2].decode()) if content else None


def _original_folder(folder: Path) -> str | None:
    """Return the name under which a dataset folder was written by hand, or None for any other folder."""
    if folder.absolute().parent.name == "datasets":
        return None
    try:
        written = _parse(seal_path(folder / "dataset.yaml"))
    except (OSError, ValueError):
        return None
    return written[1].removesuffix("/dataset.yaml") if written else None


def _compare(path: Path, found: str, written: str) -> None:
    if found != written:
        raise CorruptFileError(f"{path}: SHA-256 {found[:12]}…, expected {written[:12]}…; {REMAKE}")
