"""Trainings with a plugged-in mixer that has dropout, undisturbed and stopped again and again: what `test_dropout.py` runs in a process
of its own, because a plug-in is found when the catalogue is imported.

    python -m tests.training.dropout supervised FOLDER      prints JSON: the digests of the trainings
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline.config.expand import expand
from pipeline.learners.base import Learner
from pipeline.plan import make_plan
from pipeline.training import fit
from pipeline.training.signals import RESUMABLE
from tests.training.tiny import block, describe, digests, train_tiny

ACTING = {
    "task": {"name": "t_maze", "corridor": {"uniform": [2, 4]}, "max_episode_steps": 9},
    "network": {"name": "actor_critic", "width": 8, "head_width": 8},
    "learner": {"num_updates": 7, "num_envs": 8, "rollout_steps": 8, "evaluate_every": 3, "validation_rows": 12},
}
TOKENS = {
    "task": {"name": "copy", "symbols": 2, "delay": {"uniform": [1, 4]}, "alphabet": 4},
    "network": {"name": "sequence", "width": 8},
    "learner": {"steps": 7, "batch_size": 4, "ema_decay": 0.9, "evaluate_every": 3, "validation_rows": 12, "distinct_rows": 30},
}
PUZZLES = {
    "task": {"name": "sudoku", "side": 4},
    "network": {"name": "recursive", "width": 8, "outer": 2, "inner": 1},
    "learner": {**TOKENS["learner"], "supervision": 3},
}
STOPS = {"before a validation": [3], "after a validation": [4], "at every step": [1, 2, 3, 4, 5, 6]}


def described(results: Path, learner: str, dropout: float) -> str:
    """The run of that learner; returns its identifier."""
    parts: dict[str, Any] = {"supervised": TOKENS, "deep_supervision": PUZZLES}.get(learner, ACTING)
    network = {**parts["network"], "mixer": {"name": "dropping", "dropout": dropout}}
    base = {**parts, "network": network, "learner": {"name": learner, **parts["learner"]}, "evaluate": {"rows": 4}}
    return describe(make_plan(expand(block({"experiments": {"dropout": {"base": base}}}))), results)


def train_until(results: Path, run: str, step: int) -> int:
    """Train, with a request to stop that comes during update number `step`."""
    update, make = Learner.update, fit.Fit.__init__

    def remember(self: fit.Fit, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        self.learner.loop = self  # pyright: ignore[reportAttributeAccessIssue]

    def stopped(self: Any) -> Any:
        if self.steps + 1 == step:
            self.loop.stop.received = "SIGTERM"
        return update(self)

    Learner.update, fit.Fit.__init__ = stopped, remember
    try:
        return train_tiny(results, run)
    finally:
        Learner.update, fit.Fit.__init__ = update, make


def trained(folder: Path, learner: str, stops: list[int], dropout: float = 0.4) -> dict[str, str]:
    """The digests of a training that was stopped after these updates."""
    run = described(folder, learner, dropout)
    for step in stops:
        assert train_until(folder, run, step) == RESUMABLE
    assert train_tiny(folder, run) == 0
    found = digests(folder, run)
    shutil.rmtree(folder)
    return found


def main(learner: str, folder: str) -> None:
    """Print the digests of all trainings."""
    found = {"undisturbed": trained(Path(folder, "a"), learner, []), "no dropout": trained(Path(folder, "b"), learner, [], 0.0)}
    print(json.dumps(found | {name: trained(Path(folder, "c"), learner, stops) for name, stops in STOPS.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
