"""Which code made what lies on disk: a run's checkpoints and result, the weights that others start from, the rows of a dataset.

Nothing that other code made is gone on from, measured or learned from unless the user allows it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.code import Code, check_code, code_of, merged
from pipeline.config.networks import Network
from pipeline.config.tasks import Task
from pipeline.storage.console import print0
from pipeline.storage.errors import ForeignSpecError
from pipeline.storage.manifest import read_manifest
from pipeline.training.spec import RunSpec

WEIGHTS = "model/model.safetensors"
DIGITS = 16
"""Of the SHA-256 of weights, in a record."""


@dataclass
class Stamp:
    """What marks a run's checkpoints and result: the digest of its specification, and the code that they are made by.

    allow: what other code began is gone on from, and its record says that both had a part in it.
    """

    spec: str
    code: Code = field(default_factory=dict, repr=False)
    allow: bool = False

    def check(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Raise ForeignSpecError or ChangedCodeError for a folder in checkpoints/{run}/ that is marked otherwise."""
        run, recorded = folder.parent, manifest.get("code")
        if manifest["spec"] != self.spec:
            found, expected = manifest["spec"][:12], self.spec[:12]
            raise ForeignSpecError(f"{folder}: belongs to specification {found}, expected {expected}; delete {run}")
        if _check(f"{folder}: trained", recorded, self.code, _remedy(run.parents[1] / "runs" / run.name), self.allow):
            self.code = merged(recorded, self.code)


def code_now(run: RunSpec, results: Path) -> Code:
    """What a training of this run is made by now: the code of its components, and the weights that it starts from."""
    return run.code | weights_of(run.learner.parent, results)


def check_run(run: RunSpec, results: Path, allow: bool) -> None:
    """Raise ChangedCodeError where the published result of a run was made by other code."""
    folder = results / "runs" / run.id
    _check(f"{folder}: trained", read_manifest(folder).get("code"), code_now(run, results), _remedy(folder), allow)


def check_weights(run: Path, manifest: dict[str, Any], allow: bool, network: Network, task: Task | None = None) -> None:
    """Raise ChangedCodeError where other code trained the weights in results/runs/{run} than the network, and the task, now have.

    manifest: that folder's. A task that the run was not trained on counts for nothing.
    """
    recorded = manifest.get("code")
    present = code_of(network)
    if task and recorded:
        present |= {name: files for name, files in code_of(task).items() if name in recorded}
    _check(f"{run}: trained", recorded, present, _remedy(run), allow)


def check_data(folder: Path, task: Task, allow: bool) -> None:
    """Raise ChangedCodeError where a dataset's rows were made by other code than its task now has."""
    _check(f"{folder}: made", read_manifest(folder).get("code"), code_of(task), "delete it to have it made again", allow)


def weights_of(parent: str | None, results: Path) -> Code:
    """The weights that a child starts from, recorded like code; nothing where the parent is not there."""
    if parent is None or not (results / "runs" / parent / "manifest.json").exists():
        return {}
    return {f"parent {parent}": {WEIGHTS: read_manifest(results / "runs" / parent)["files"][WEIGHTS]["sha256"][:DIGITS]}}


def _check(what: str, recorded: Code | None, present: Code, remedy: str, allow: bool) -> bool:
    """Whether other code made something, which is said where it is allowed; raises ChangedCodeError where it is not."""
    line = check_code(what, recorded, present, remedy, allow)
    if line:
        print0(line)
    return line is not None


def _remedy(run: Path) -> str:
    """What makes a run anew: its name is enough in the folder that commands look into."""
    return f"'pipeline retrain {run.name if run.parents[1].resolve() == Path('results').resolve() else run}' throws it away"
