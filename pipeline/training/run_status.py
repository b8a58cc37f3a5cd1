"""The status of a run, from its files alone, as `pipeline status` shows it. Never imports torch."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.training.diverged import diverged_at
from pipeline.training.lease import STALE, ahead, boot, heartbeat_age, lock, read_owner


@dataclass(frozen=True)
class RunStatus:
    """`done`: trained and published. `running`: a live trainer has its lease. `to do`: all others. `detail`: progress and trainer, in words."""

    state: Literal["done", "running", "to do"]
    detail: str


def run_status(results: Path, run: str) -> RunStatus:
    """Return the status of one run in a results folder."""
    folder = results / "checkpoints" / run
    progress = _progress(folder)
    if is_running(folder):
        return RunStatus("running", ", ".join(word for word in (_holder(folder), _words(progress)) if word))
    if (results / "runs" / run / "manifest.json").exists():
        step = diverged_at(results / "runs" / run)
        return RunStatus("done", "" if step is None else f"diverged at step {step}")
    if (folder / "finished").exists():
        return RunStatus("to do", "trained; its files are restored without training again")
    newest = max((path.name for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()), default="")
    return RunStatus("to do", f"stopped; resumes from step {int(newest.removeprefix('step-'))}" if newest else "")


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
    """Describe the holder of the lease, and whether its machine's clock is ahead."""
    owner = read_owner(folder)
    clock = ahead(heartbeat_age(folder)) if owner and owner.boot != boot() else ""
    return f"{owner} ({clock})" if clock else str(owner)


def _progress(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _words(progress: Any) -> str:
    """Describe a run's progress; empty if its file is missing or damaged: no result depends on it."""
    try:
        words = [f"{progress['budget_spent']:.0%}", f"step {progress['step']}", f"{progress['rows_per_second']:.0f} rows/s"]
        accuracy = progress["metrics"].get("validation_accuracy")
        return ", ".join(words + ([f"validation accuracy {accuracy:.3f}"] if accuracy is not None else []))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
