"""Where a run stands, from its files alone: what `pipeline status` shows. Never imports torch."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.training.lease import STALE, ahead, boot, heartbeat_age, lock, read_owner


@dataclass(frozen=True)
class RunState:
    """`done`: trained and published. `running`: a live trainer has its lease. `to do`: everything else, `detail` says how far it came."""

    state: Literal["done", "running", "to do"]
    detail: str


def run_state(results: Path, run: str) -> RunState:
    """Where one run of a results folder stands."""
    folder = results / "checkpoints" / run
    figures = _figures(folder)
    if is_running(folder):
        return RunState("running", ", ".join(word for word in (_holder(folder), _words(figures)) if word))
    if (results / "runs" / run / "manifest.json").exists():
        return RunState("done", "")
    if (folder / "finished").exists():
        return RunState("to do", "trained; its files are put back without training again")
    newest = max((path.name for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()), default="")
    return RunState("to do", f"stopped; goes on from step {int(newest.removeprefix('step-'))}" if newest else "")


def is_running(folder: Path) -> bool:
    """Whether a live trainer has the lease of a run's checkpoint folder."""
    if not (folder / "lease.json").is_file() or (folder / "lock").is_dir():
        return False
    held = lock(folder, fcntl.LOCK_SH)
    if held is None:
        return True
    held.close()
    owner = read_owner(folder)
    return not (owner and owner.boot == boot()) and heartbeat_age(folder) < STALE


def _holder(folder: Path) -> str:
    """Who has the lease, and what is wrong with that machine's clock."""
    owner = read_owner(folder)
    clock = ahead(heartbeat_age(folder)) if owner and owner.boot != boot() else ""
    return f"{owner} ({clock})" if clock else str(owner)


def _figures(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _words(found: Any) -> str:
    """How far a run is; nothing where that is not written yet, or damaged: no number comes from it."""
    try:
        words = [f"{found['share']:.0%}", f"step {found['step']}", f"{found['rows_per_second']:.0f} rows/s"]
        accuracy = found["figures"].get("validation_accuracy")
        return ", ".join(words + ([f"validation accuracy {accuracy:.3f}"] if accuracy is not None else []))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
