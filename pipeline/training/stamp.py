"""Stamps: which specification and which code made checkpoints, results, parents' weights and datasets.

Nothing made by other code is resumed, evaluated or trained on, unless the user allows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.code import Code, check_code, code_of, merged
from pipeline.config.networks import Network
from pipeline.config.tasks import Task
from pipeline.storage.console import print0
from pipeline.storage.errors import ForeignSpecError
from pipeline.storage.manifest import read_manifest
from pipeline.training.run_spec import RunSpec

WEIGHTS = re.compile(r"model/[^/]+\.safetensors")
"""The files in a run's folder that a child run starts from."""
DIGITS = 16
"""Recorded digits of the SHA-256 of weights."""


@dataclass
class Stamp:
    """The stamp of a run's checkpoints and result: the digest of its specification, and the code that made them.

    allow: resume a run that other code began; the record then names both.
    """

    spec: str
    code: Code = field(default_factory=dict, repr=False)
    allow: bool = False

    def check(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Raise ForeignSpecError or ChangedCodeError if the stamp of a folder in checkpoints/{run}/ differs."""
        run, recorded = folder.parent, manifest.get("code")
        if manifest["spec"] != self.spec:
            found, expected = manifest["spec"][:12], self.spec[:12]
            raise ForeignSpecError(f"{folder}: belongs to specification {found}, expected {expected}; delete {run}")
        if _check(f"{folder}: trained", recorded, self.code, _remedy(run.parents[1] / "runs" / run.name), self.allow):
            self.code = merged(recorded, self.code)


def code_now(run: RunSpec, results: Path) -> Code:
    """Return the current code of a run's components, with the digests of the weights that it starts from."""
    return run.code | weights_of(run.learner.parent, results)


def check_run(run: RunSpec, results: Path, allow: bool) -> None:
    """Raise ChangedCodeError if other code made the published result of a run."""
    folder = results / "runs" / run.id
    _check(f"{folder}: trained", read_manifest(folder).get("code"), code_now(run, results), _remedy(folder), allow)


def check_weights(run: Path, manifest: dict[str, Any], allow: bool, *networks: Network, task: Task | None = None) -> None:
    """Raise ChangedCodeError if the code of the networks, or of the task, has changed since the weights in results/runs/{run} were trained.

    manifest: that folder's manifest. A task that the run was not trained on is ignored.
    """
    recorded = manifest.get("code")
    present = code_of(*networks)
    if task and recorded:
        present |= {name: files for name, files in code_of(task).items() if name in recorded}
    _check(f"{run}: trained", recorded, present, _remedy(run), allow)


def check_data(folder: Path, task: Task, allow: bool) -> None:
    """Raise ChangedCodeError if the task's code has changed since a dataset was made."""
    _check(f"{folder}: made", read_manifest(folder).get("code"), code_of(task), "delete it to have it made again", allow)


def weights_of(parent: str | None, results: Path) -> Code:
    """Return digests of the weights that a child run starts from, recorded like code; empty if the parent does not exist."""
    if parent is None or not (results / "runs" / parent / "manifest.json").exists():
        return {}
    files = read_manifest(results / "runs" / parent)["files"]
    return {f"parent {parent}": {name: entry["sha256"][:DIGITS] for name, entry in files.items() if WEIGHTS.fullmatch(name)}}


def _check(what: str, recorded: Code | None, present: Code, remedy: str, allow: bool) -> bool:
    """Whether other code made something: print a line if that is allowed, else raise ChangedCodeError."""
    line = check_code(what, recorded, present, remedy, allow)
    if line:
        print0(line)
    return line is not None


def _remedy(run: Path) -> str:
    """Return the command that deletes a run so that it is trained again; the run's name suffices in the default results folder."""
    return f"'pipeline retrain {run.name if run.parents[1].resolve() == Path('results').resolve() else run}' deletes it"
