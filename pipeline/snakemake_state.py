"""Repair `.snakemake/` before Snakemake reads it: on a damaged record Snakemake fails with a traceback.

.snakemake/metadata/{output}     JSON: the rule, inputs and parameters of an output; the file name is the output's path in base64
.snakemake/incomplete/{output}   JSON: a job that writes this output was started
.snakemake/log, locks, ...       folders; their content is never read, or deleted by the owner of the results folder
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.storage.atomic import explain_write_errors, permission_hint
from pipeline.storage.errors import UserError
from pipeline.storage.files import delete

FOLDERS = ("metadata", "incomplete", "auxiliary", "conda", "conda-archive", "iocache", "locks", "log", "shadow", "singularity")
REGENERATED = "results/experiments/"
"""Files whose parameters are only in their record; the names of all others contain them."""


def repair_state(folder: Path) -> Iterator[str]:
    """Delete records that Snakemake could not read; yield one line for each.

    A table or figure whose record is deleted is deleted too and regenerated: its parameters are known from the record only. Raises
    UserError if permission is denied.
    """
    check_access(folder)
    for path, reason in invalid_records(folder):
        with explain_write_errors(path):
            delete(path)
        made = _output(path, folder)
        yield f"{path}: {reason}; deleted{f'; {made} is regenerated' if made else ''}"
        if made:
            Path(made).unlink(missing_ok=True)


def check_records(folder: Path) -> None:
    """Raise UserError for the first record that Snakemake could not read: for a dry run, which deletes nothing."""
    for path, reason in invalid_records(folder, written_now=True):
        raise UserError(f"{path}: {reason}; delete it, or run snakemake, which does")


def check_access(folder: Path) -> None:
    """Raise UserError naming the folder without read or write permission, its owner and the remedy."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, but Snakemake needs a folder; move it away")
    for path in (folder, *(folder / name for name in FOLDERS)):
        if path.is_dir() and not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UserError(f"{path}: {permission_hint(path)}")


def invalid_records(folder: Path, written_now: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield paths that Snakemake could not read, each with the reason; `written_now`: a live Snakemake may have written half a record."""
    for name in FOLDERS:
        path = folder / name
        if os.path.lexists(path) and not path.is_dir():
            yield path, "is a file, but Snakemake needs a folder"
    for kind in ("metadata", "incomplete"):
        for path in sorted((folder / kind).rglob("*")):
            reason = _reason(path, kind, written_now)
            if reason:
                yield path, reason


def _reason(path: Path, kind: str, written_now: bool) -> str | None:
    if path.is_dir():
        return None if path.name.startswith("@") else "is a folder, expected a record"
    if not path.is_file():
        return "not a file" if os.path.lexists(path) else None
    try:
        record = json.loads(path.read_bytes().decode())
    except PermissionError:
        raise UserError(f"{path}: {permission_hint(path)}") from None
    except json.JSONDecodeError:
        return None if written_now else "invalid JSON"
    except (ValueError, RecursionError):
        return "invalid JSON or UTF-8"
    return None if (_is_metadata if kind == "metadata" else _is_mark)(record) else "not a Snakemake record"


def _is_metadata(record: Any) -> bool:
    from snakemake.persistence import MetadataRecord

    try:
        found = MetadataRecord.model_validate(record)
    except (ValueError, TypeError):
        return False
    texts = [*(found.params or []), *(found.input or []), *(found.log or [])]
    return isinstance(record, dict) and all(isinstance(text, str) for text in texts) and None not in (found.starttime, found.endtime)


def _is_mark(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("external_jobid"), str | None)


def _output(path: Path, folder: Path) -> str | None:
    """Return the table or figure that a record in `metadata` belongs to; None for any other output."""
    try:
        text = "".join(part.removeprefix("@") for part in path.relative_to(folder / "metadata").parts)
        output = base64.urlsafe_b64decode(text).decode()
    except ValueError:
        return None
    return output if output.startswith(REGENERATED) and ".." not in Path(output).parts and Path(output).is_file() else None
