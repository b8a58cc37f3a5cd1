"""Writing files so that no reader ever sees half of one.

Everything goes to a temporary name in the same folder, is flushed to the disk, and only then takes its real name.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.storage.errors import UserError

SHARE = "{name} runs 'chmod -R g+rwX .snakemake results' and both run 'umask 002' before snakemake"
REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run again, nothing is lost",
    errno.EDQUOT: "the disk quota is used up; free some space and run again, nothing is lost",
    errno.ENOTDIR: "a file stands where a folder is expected; move it away",
    errno.EEXIST: "a file stands where a folder is expected; move it away",
    errno.EISDIR: "a folder stands where a file is expected; move it away",
    errno.EROFS: "the file system is read-only; expected a folder this user can write to",
}


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line for the user."""
    try:
        yield
    except OSError as error:
        reason = permission_hint(path) if error.errno in (errno.EACCES, errno.EPERM) else REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise UserError(f"{path}: {reason}") from error


def permission_hint(path: Path) -> str:
    """Why this user may not write there, and what two users of one folder do about it."""
    existing = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    uid = existing.lstat().st_uid
    if uid == os.geteuid():
        return "permission denied; expected a folder this user can write to"
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    return f"permission denied, it belongs to {name}; expected a folder this user can write to: to share it, {SHARE.format(name=name)}"


def temporary_path(path: Path) -> Path:
    """Where this process writes a file or a folder before it is renamed to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def final_name(name: str) -> str:
    """What a file or folder is called in the end that may be under its temporary name now."""
    return re.sub(r"^\.(.+)\.\d+\.tmp$", r"\1", name)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well the file is fsynced and renamed to `path`.

    Raises UserError, with the path, on a full disk or a folder that cannot be written. The temporary file never stays.
    """
    temporary = temporary_path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")
