"""Runs that diverged as candidates of a tuned experiment: kept as results, with the step. Never imports torch.

model/config.json says `diverged_at`, and so does the metadata of history.parquet's schema; other runs have neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from pipeline.storage.errors import UserError

DIVERGED = "diverged_at"


def diverged_at(run: Path) -> int | None:
    """Return the step at which the run in a folder diverged; None if it did not, or is not finished or damaged."""
    try:
        return json.loads((run / "model" / "config.json").read_bytes()).get(DIVERGED)
    except (OSError, ValueError, RecursionError, AttributeError):
        return None


def recorded_divergence(history: Any) -> int | None:
    """Return the step at which the training of this history.parquet diverged; None if it did not."""
    step = (history.schema.metadata or {}).get(DIVERGED.encode())
    return int(step) if step else None


def refuse_diverged(run: Path, step: int) -> NoReturn:
    """Raise the UserError of a use that needs a run which has not diverged."""
    raise UserError(f"{run.name} diverged at step {step}, kept as a trial of tune; lower learner.learning_rate, or retrain it")
