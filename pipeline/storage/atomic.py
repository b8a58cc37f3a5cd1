"""Atomic writes: a file is written under a temporary name in the same folder, fsynced and renamed, so readers never see a partial one."""

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

SHARING_HINT = "{name} runs 'chmod -R g+rwX .snakemake results' and both run 'umask 002' before snakemake"
REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run again (no results are lost)",
    errno.EDQUOT: "the disk quota is exceeded; free some space and run again (no results are lost)",
    errno.ENOTDIR: "is a file, expected a folder; move it away",
    errno.EEXIST: "is a file, expected a folder; move it away",
    errno.EISDIR: "is a folder, expected a file; move it away",
    errno.EROFS: "read-only file system; expected a writable folder",
}


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError from writing `path` into a UserError of one line."""
    try:
        yield
    except OSError as error:
        reason = permission_hint(path) if error.errno in (errno.EACCES, errno.EPERM) else REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise UserError(f"{path}: {reason}") from error


def permission_hint(path: Path) -> str:
    """Explain why permission to write was denied, and how two users can share the folder."""
    existing = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    uid = existing.lstat().st_uid
    if uid == os.geteuid():
        return "permission denied; expected a writable folder"
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    return f"permission denied, owned by {name}; expected a writable folder (to share it, {SHARING_HINT.format(name=name)})"


def temporary_path(path: Path) -> Path:
    """Return the temporary name under which this process writes a file or folder before renaming it to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def final_name(name: str) -> str:
    """Return the final name of a file or folder, given its final or temporary name."""
    return re.sub(r"^\.(.+)\.\d+\.tmp$", r"\1", name)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an error, fsync the file and rename it to `path`.

    Raises UserError naming the path if the disk is full or the folder is not writable. The temporary file is always removed.
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
    """Flush a file, or the entries of a folder, to disk."""
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
