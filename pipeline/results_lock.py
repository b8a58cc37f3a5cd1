"""The lock on a results folder: one pipeline owns it at a time.

Snakemake's own lock names no process and does not keep two pipelines apart. Here the owner is whoever holds an flock, which the kernel
releases when the owner exits, however it exits.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pipeline.storage.atomic import explain_write_errors
from pipeline.storage.errors import BusyError, UserError
from pipeline.storage.files import delete
from pipeline.storage.paths import check_inside

LOCK_FILE = Path(".pipeline", "owner")
SNAKEMAKE = Path(".snakemake")
ATTEMPTS = 5
"""Attempts to take the lock, since `pipeline status` holds it for a moment when it reads the owner."""


def acquire_lock(results: Path, snakemake: Path = SNAKEMAKE) -> IO[str]:
    """Own a results folder until this process exits, and delete Snakemake's stale locks; keep the returned file open.

    Raises BusyError naming the live owner, or UserError if the folder cannot be written.
    """
    path = check_inside(results, results / LOCK_FILE)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    try:
        _flock(results, file)
    except UserError:
        file.close()
        raise
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    file.truncate(0)
    file.write(json.dumps(owner))
    file.flush()
    for stale in snakemake.glob("locks/*.lock"):
        delete(stale)
    return file


def owner(results: Path) -> dict[str, Any] | None:
    """Return the live owner of a results folder (pid, host, since); None if there is none."""
    path = results / LOCK_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse_owner(file.read())
    return None


def last_owner(results: Path) -> dict[str, Any] | None:
    """Return the live or, if there is none, the last owner of a results folder."""
    try:
        return _parse_owner((results / LOCK_FILE).read_bytes()) or None
    except OSError:
        return None


def _flock(results: Path, file: IO[str]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < ATTEMPTS - 1:
                time.sleep(0.05)
        except OSError as error:
            raise UserError(f"{file.name}: cannot be locked ({error.strerror}); expected a file system with flock") from None
    holder = _parse_owner(Path(file.name).read_bytes())
    name = f"pid {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "pid not written yet"
    raise BusyError(f"{results}: another pipeline is running here ({name}); wait for it or stop it")


def _parse_owner(content: bytes) -> dict[str, Any]:
    """Parse the lock file; empty if it is not written yet or damaged."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    complete = (
        isinstance(found, dict) and isinstance(found.get("pid"), int) and all(isinstance(found.get(key), str) for key in ("host", "since"))
    )
    return found if complete else {}
