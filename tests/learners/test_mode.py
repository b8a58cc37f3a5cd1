"""Dropout is on in optimizer steps and off wherever else a network is read: a property of the base class, so held for every learner."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.learners import LEARNERS
from pipeline.learners.base import Learner
from tests.learners.small import small_learner

REPOSITORY = Path(__file__).resolve().parents[2]


def made(name: str) -> tuple[Learner, list[tuple[bool, bool]]]:
    """A learner, and the log of its network's calls: whether gradients were wanted, whether the network was in training mode."""
    kind: Any = LEARNERS[name]
    learner = small_learner("lstm", "copy" if kind.kind == "tokens" else "t_maze", name)
    calls: list[tuple[bool, bool]] = []
    first = next(module for module in learner.network.children() if [*module.parameters()])
    first.register_forward_pre_hook(lambda *_: calls.append((torch.is_grad_enabled(), learner.network.training)))
    return learner, calls


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_training_mode_is_for_optimizer_steps_alone(name: str) -> None:
    learner, calls = made(name)
    assert not learner.network.training, "as it was built"
    for _ in range(2):
        learner.update()
        learner.validate()
    learner.load_state_dict(copy.deepcopy(learner.state_dict()))
    learner.update()
    assert {learning for learning, _ in calls} == {True, False}
    assert all(learning == mode for learning, mode in calls)
    assert not learner.network.training


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_failed_step_leaves_evaluation_mode(name: str) -> None:
    learner, _ = made(name)

    def fail(*_: Any) -> None:
        raise RuntimeError("no step")

    learner.learn_from = fail  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RuntimeError, match="no step"):
        learner.update()
    assert not learner.network.training


def test_one_file_switches_modes() -> None:
    calls = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in sorted((REPOSITORY / "pipeline").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if ".train()" in line or ".eval()" in line
    ]
    allowed = ("pipeline/networks/mode.py", "pipeline/networks/build.py", "pipeline/learners/base.py", "pipeline/learners/optimization.py")
    assert all(call.startswith(allowed) for call in calls), "build and the base class begin in evaluation mode, mode.py switches"
    assert len(calls) == 5
