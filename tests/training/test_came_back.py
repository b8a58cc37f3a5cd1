"""A training whose environment is not what it was after a resume says so, records it, and goes on with new episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pipeline.config.expand import expand
from pipeline.plan import make_plan
from pipeline.storage.errors import UserError
from pipeline.training.signals import RESUMABLE
from tests.training.dropout import train_until
from tests.training.tiny import block, describe, train_tiny


class Counting(gymnasium.Env[Any, Any]):
    """Shows how many steps all copies have made in this process, where `drifts`; says that it is deterministic."""

    steps = 0

    def __init__(self, drifts: bool = True) -> None:
        self.observation_space, self.action_space = spaces.Box(0, 1e9, (1,)), spaces.Discrete(2)
        self.drifts = drifts

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count."""
        Counting.steps += 1
        return np.full(1, (Counting.steps % 1000) / 1000 * self.drifts, np.float32), 0.0, False, False, {}


def described(results: Path, limit: int | None, context: int, drifts: bool = True) -> str:
    """A training in it; returns the run's identifier."""
    task: dict[str, Any] = {
        "name": "gymnasium",
        "id": "Counting-v0",
        "observation_shape": [1],
        "num_actions": [2],
        "kwargs": {"drifts": drifts},
    }
    network = {"name": "actor_critic", "mixer": "attention", "width": 8, "head_width": 4, "context": context}
    learner = {"name": "ppo", "num_updates": 4, "num_envs": 4, "rollout_steps": 4, "evaluate_every": 2, "validation_rows": 3}
    base = {
        "task": {**task, **({"max_episode_steps": limit} if limit else {})},
        "network": network,
        "learner": learner,
        "evaluate": {"rows": 2},
    }
    return describe(make_plan(expand(block({"experiments": {"counting": {"base": base}}}))), results)


@pytest.fixture(autouse=True)
def registered() -> Any:
    """The environment under an id, with a limit of 30 steps of its own."""
    kind: Any = Counting
    gymnasium.register("Counting-v0", kind, max_episode_steps=30)
    yield
    gymnasium.registry.pop("Counting-v0", None)


@pytest.mark.parametrize("drifts", [True, False])
def test_an_environment_that_drifted_is_not_called_reproducible(drifts: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = described(tmp_path, None, 64, drifts)
    assert train_until(tmp_path, run, 3) == RESUMABLE
    capfd.readouterr()
    assert train_until(tmp_path, run, 4) == RESUMABLE
    said = [line for line in capfd.readouterr().err.splitlines() if "after a resume" in line]
    assert len(said) == drifts
    assert all(line.startswith("gymnasium Counting-v0: seed ") for line in said)
    assert train_tiny(tmp_path, run) == 0
    told = json.loads((tmp_path / "runs" / run / "environment.json").read_text(encoding="utf-8"))
    assert told["reproducible"] is not drifts


def test_its_own_limit_must_fit_the_context(tmp_path: Path) -> None:
    """Where the limit is known it is refused when the config is read; where it is not, before the training."""
    with pytest.raises(UserError, match=r"rows of 30 steps exceed network.context = 29; expected at most that"):
        described(tmp_path, None, 29)
    described(tmp_path, None, 30)
    spec = gymnasium.registry.pop("Counting-v0")
    run = described(tmp_path / "unknown", None, 29)
    gymnasium.registry["Counting-v0"] = spec
    spec_file = tmp_path / "unknown" / "runs" / run / "run.yaml"
    assert spec_file.exists()
    with pytest.raises(
        UserError,
        match="gymnasium Counting-v0: an episode of more than 29 steps, network.context; expected a smaller task.max_episode_steps, or",
    ):
        train_tiny(tmp_path / "unknown", run)
    assert not [*(tmp_path / "unknown" / "checkpoints" / run).glob("step-*")]


def test_a_reward_that_is_no_number_ends_the_training_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by the advice to lower the learning rate."""
    run = described(tmp_path, 30, 64)
    step = Counting.step

    def poor(self: Counting, action: Any) -> Any:
        seen, _, *others = step(self, action)
        return seen, np.nan, *others

    monkeypatch.setattr(Counting, "step", poor)
    with pytest.raises(UserError, match=r"^gymnasium Counting-v0: seed \d+, step 1: reward is nan; expected a finite number$"):
        train_tiny(tmp_path, run)
