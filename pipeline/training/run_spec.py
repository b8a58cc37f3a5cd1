"""The frozen specification of a run: `run.yaml`, read back into components."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.base import canonical
from pipeline.config.code import Code, code_of
from pipeline.config.learners import Learner
from pipeline.config.networks import Network
from pipeline.config.spec_files import load_component, read_spec
from pipeline.config.tasks import Task
from pipeline.storage.digest import digest
from pipeline.storage.errors import ForeignSpecError


@dataclass(frozen=True)
class RunSpec:
    """The contents of `run.yaml`; `block` is the file as a mapping."""

    id: str
    task: Task
    network: Network
    learner: Learner
    seed: int
    train: str | None
    validation: str
    block: dict[str, Any] = field(repr=False)

    @property
    def digest(self) -> str:
        """Digest in the stamp of checkpoints and results; equal for two files with the same meaning."""
        parts = {"task": canonical(self.task), "network": canonical(self.network), "learner": canonical(self.learner)}
        return digest({**parts, "id": self.id, "seed": self.seed, "train": self.train, "validation": self.validation}, length=64)

    @property
    def code(self) -> Code:
        """Current code of its components."""
        return code_of(self.task, self.network, self.learner)


def read_run(path: Path) -> RunSpec:
    """Read `results/runs/{run}/run.yaml`. Raises UserError if it is missing, damaged or of another version."""
    block = read_spec(path, "run")
    try:
        return RunSpec(
            id=block["id"],
            task=load_component("task", block["task"]),
            network=load_component("network", block["network"]),
            learner=load_component("learner", block["learner"]),
            seed=block["seed"],
            train=block["data"]["train"],
            validation=block["data"]["validation"],
            block=block,
        )
    except (KeyError, TypeError) as error:
        raise ForeignSpecError(f"{path}: unexpected content ({error}); expected what 'pipeline describe run' writes") from None
    except ForeignSpecError as error:
        raise ForeignSpecError(f"{path}: {error}") from None
