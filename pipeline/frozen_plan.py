"""The frozen plan, results/.pipeline/plan.json: the plan that a running pipeline's jobs read.

It is written once, when the pipeline starts, so an edit of the config affects the next start only. Reading it needs JSON only.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.seals import read_sealed

REWRITE = "start the workflow again, which rewrites it"
KEYS = ("datasets", "networks", "runs", "evaluations", "experiments", "runtime", "tracking")
"""The mappings in a frozen plan."""


def frozen_plan_path(results: Path) -> Path:
    """Return the path of the frozen plan of a results folder."""
    return results / ".pipeline" / "plan.json"


def read_frozen_plan(results: Path) -> dict[str, Any]:
    """Read the frozen plan as JSON. Raises MissingFileError, or CorruptFileError if it is damaged or not a plan."""
    path = frozen_plan_path(results)
    try:
        try:
            text = read_sealed(path)
        except CorruptFileError:
            time.sleep(0.05)  # the owner may be writing it right now
            text = read_sealed(path)
        plan = json.loads(text)
    except MissingFileError:
        raise MissingFileError(f"{path}: no such file; expected the plan that snakemake freezes when it starts in this folder") from None
    except (ValueError, RecursionError):
        raise CorruptFileError(f"{path}: invalid JSON; {REWRITE}") from None
    if not isinstance(plan, dict) or not all(isinstance(plan.get(key), dict) for key in KEYS):
        raise CorruptFileError(f"{path}: not a frozen plan; {REWRITE}")
    return plan


def is_candidate(results: Path, run: str) -> bool:
    """Return whether a tuned experiment of the frozen plan lists a run: if it diverges, that is a result. False without a frozen plan."""
    return any("tune" in spec for spec, _ in _entries_of(results, run))


def untuned_evaluations(results: Path, run: str) -> set[str]:
    """Return the evaluations of a run that experiments of the frozen plan collect without a choice among candidates."""
    return {entry["evaluation"] for spec, entry in _entries_of(results, run) if "tune" not in spec}


def _entries_of(results: Path, run: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every experiment's spec that lists a run, with its entry there."""
    if not frozen_plan_path(results).exists():
        return []
    specs = [experiment["spec"] for experiment in read_frozen_plan(results)["experiments"].values()]
    return [(spec, entry) for spec in specs for entry in spec["runs"] if entry["run"] == run]


def frozen_spec(results: Path, kind: str, name: str) -> dict[str, Any]:
    """Return the spec of one dataset, network, run or experiment. Fast, because `pipeline describe` runs once per spec file."""
    items = read_frozen_plan(results)[f"{kind}s"]
    if name not in items:
        raise UserError(f"{kind} {name}: not in the frozen plan {frozen_plan_path(results)}; 'pipeline plan' shows the identifiers")
    spec = items[name] if kind == "network" else items[name].get("spec") if isinstance(items[name], dict) else None
    if not isinstance(spec, dict):
        raise CorruptFileError(f"{frozen_plan_path(results)}: {kind} {name}: no spec; {REWRITE}")
    return spec
