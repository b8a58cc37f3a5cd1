"""What Snakemake keeps in `.snakemake/`, put right before Snakemake reads it: over a record that it did not write so, it ends in a trace.

.snakemake/metadata/{output}     JSON: with which rule, input and parameters an output was made; the name is the output's, in base64
.snakemake/incomplete/{output}   JSON: a job that writes this output has started
.snakemake/log, locks, ...       folders; what is in them is never read, or removed by the owner of the results folder
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
REMADE = "results/experiments/"
"""Files whose parameters are told by their record alone: everything else has them in its name."""


def repair_state(folder: Path) -> Iterator[str]:
    """Delete what Snakemake could not read; yields one line for each.

    A table or figure whose record is deleted goes too, and is made again: nothing else tells what it was made with. Raises UserError, one
    line, where this user may not write.
    """
    check_access(folder)
    for path, reason in invalid_records(folder):
        with explain_write_errors(path):
            delete(path)
        made = _output(path, folder)
        yield f"{path}: {reason}; deleted{f'; {made} is made again' if made else ''}"
        if made:
            Path(made).unlink(missing_ok=True)


def check_records(folder: Path) -> None:
    """For a dry run, which deletes nothing: raises UserError for the first thing that Snakemake could not read."""
    for path, reason in invalid_records(folder, written_now=True):
        raise UserError(f"{path}: {reason}; delete it, or run snakemake, which does")


def check_access(folder: Path) -> None:
    """Raises UserError naming what this user may not read or write, whose it is and what to do."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file stands where Snakemake keeps a folder; move it away")
    for path in (folder, *(folder / name for name in FOLDERS)):
        if path.is_dir() and not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UserError(f"{path}: {permission_hint(path)}")


def invalid_records(folder: Path, written_now: bool = False) -> Iterator[tuple[Path, str]]:
    """What Snakemake could not read, with what is wrong with it; `written_now`: a record may be half written by a live Snakemake."""
    for name in FOLDERS:
        path = folder / name
        if os.path.lexists(path) and not path.is_dir():
            yield path, "a file stands where Snakemake keeps a folder"
    for kind in ("metadata", "incomplete"):
        for path in sorted((folder / kind).rglob("*")):
            reason = _reason(path, kind, written_now)
            if reason:
                yield path, reason


def _reason(path: Path, kind: str, written_now: bool) -> str | None:
    if path.is_dir():
        return None if path.name.startswith("@") else "a folder stands where Snakemake keeps a record"
    if not path.is_file():
        return "not a file" if os.path.lexists(path) else None
    try:
        record = json.loads(path.read_bytes().decode())
    except PermissionError:
        raise UserError(f"{path}: {permission_hint(path)}") from None
    except json.JSONDecodeError:
        return None if written_now else "not readable as JSON"
    except (ValueError, RecursionError):
        return "not readable as JSON in UTF-8"
    return None if (_is_metadata if kind == "metadata" else _is_mark)(record) else "not a record of Snakemake's"


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
    """The table or figure that a record in `metadata` belongs to; None for anything else."""
    try:
        text = "".join(part.removeprefix("@") for part in path.relative_to(folder / "metadata").parts)
        output = base64.urlsafe_b64decode(text).decode()
    except ValueError:
        return None
    return output if output.startswith(REMADE) and ".." not in Path(output).parts and Path(output).is_file() else None
