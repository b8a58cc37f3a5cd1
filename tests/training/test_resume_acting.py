"""A training by acting that is killed anywhere ends in the same bytes as one that is not: environment, states and random numbers included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.expand import expand
from pipeline.plan import make_plan
from pipeline.storage.tables import read_table
from tests.training.deaths import assert_deaths_change_nothing
from tests.training.tiny import block, describe, train_tiny

BASE: dict[str, Any] = {
    "task": {"name": "t_maze", "corridor": {"uniform": [2, 4]}, "max_episode_steps": 9},
    "network": {"name": "actor_critic", "mixer": "lstm", "width": 8, "head_width": 8, "norm": "rms"},
    "learner": {
        "name": "ppo", "num_updates": 6, "num_envs": 6, "rollout_steps": 8, "bptt_steps": 4, "evaluate_every": 3, "validation_rows": 12,
        "lr_schedule": "linear", "ent_coef_schedule": "cosine", "keep": ["last", "best", 2], "select": "best",
    },
    "evaluate": {"rows": 4},
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "ppo": {},
    "a2c with a growing cache": {
        "network": {"mixer": "attention", "residual": True},
        "learner": {"name": "a2c", "num_updates": 6, "num_envs": 6, "rollout_steps": 8, "evaluate_every": 3, "validation_rows": 12},
    },
    "an environment of gymnasium": {
        "task": {"name": "gymnasium", "id": "CartPole-v1", "max_episode_steps": 20},
        "learner": {"num_updates": 4, "evaluate_every": 2, "keep": ["last", "best"]},
    },
}
POINTS = 4
"""File operations, spread over a whole training, at which it is killed."""


def described(results: Path, case: str) -> str:
    """The case's run with its data; returns its identifier."""
    changed = CASES[case]
    base = {key: value if key not in changed else {**value, **changed[key]} for key, value in BASE.items()}
    if "name" in changed.get("task", {}):
        base["task"] = changed["task"]
    if "name" in changed.get("learner", {}):
        base["learner"] = changed["learner"]
    return describe(make_plan(expand(block({"experiments": {"acting": {"base": base}}}))), results)


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_file_operation(case: str, tmp_path: Path) -> None:
    run = described(tmp_path / "undisturbed", case)
    assert_deaths_change_nothing(tmp_path, run, POINTS)


def test_good_enough_ends_a_training(tmp_path: Path) -> None:
    base = {**BASE, "learner": {**BASE["learner"], "stop_at": 0.01, "num_updates": 600}}
    run = describe(make_plan(expand(block({"experiments": {"acting": {"base": base}}}))), tmp_path)
    assert train_tiny(tmp_path, run) == 0
    history = read_table(tmp_path / "runs" / run / "history.parquet").to_pylist()
    assert history[-1]["step"] < 600 and history[-1]["validation_accuracy"] >= 0.01
    assert all(row["validation_accuracy"] < 0.01 for row in history[:-1])
