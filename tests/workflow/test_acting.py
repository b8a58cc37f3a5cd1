"""An environment task from config to figures with Snakemake, and what a config change re-runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.suite import Suite

pytestmark = pytest.mark.workflow

FIGURES = ["accuracy_by_corridor", "learning_curves", "mean_return", "sample_efficiency", "step_cost", "episode_strips", "cost_quality"]
CONFIG: dict[str, Any] = {
    "experiments": {
        "maze": {
            "question": "Does it act?",
            "base": {
                "task": {"name": "t_maze", "corridor": 3, "max_episode_steps": 12},
                "network": {"name": "actor_critic", "mixer": "gru", "width": 8, "head_width": 8, "context": 128},
                "learner": {
                    "name": "ppo",
                    "num_updates": 6,
                    "num_envs": 8,
                    "rollout_steps": 8,
                    "evaluate_every": 3,
                    "validation_rows": 16,
                },
                "evaluate": {"rows": 16, "corridors": [3, 5]},
                "seed": 0,
            },
            "sweep": {"network.mixer": ["gru", "none"]},
            "figures": [{"name": "accuracy_by", "column": "corridor"}, *FIGURES[1:]],
        },
    },
}


def test_from_config_to_figures(tmp_path: Path) -> None:
    suite = Suite(tmp_path, CONFIG)
    shown = len(FIGURES)
    assert suite.run() == Counter(
        describe_dataset=3, describe_network=2, describe_run=2, describe_experiment=1, generate=3, seal=3,
        train=2, evaluate=2, profile=2, collect=1, plot=shown,
    )  # fmt: skip
    assert not suite.planned()
    folder = suite.results / "experiments" / "maze"
    for name in FIGURES:
        assert all((folder / f"{name}.{kind}").stat().st_size > 40 for kind in ("svg", "pdf", "png", "csv"))
    assert "Episodes solved (%)" in (folder / "table.md").read_text()
    for run in (suite.results / "runs").iterdir():
        assert (run / "curve.svg").exists()
    before = suite.digests()
    evaluated = {**CONFIG["experiments"]["maze"]["base"], "evaluate": {"rows": 16, "corridors": [3]}}
    suite.write({"experiments": {"maze": {**CONFIG["experiments"]["maze"], "base": evaluated}}})
    assert suite.run() == Counter(describe_experiment=1, evaluate=2, collect=1, plot=shown), "nothing is trained again"
    suite.write(CONFIG)
    assert suite.run() == Counter(describe_experiment=1, collect=1, plot=shown)
    assert suite.digests().items() >= before.items()
    code, output = suite.call("--report", "report.html")
    assert code == 0 and "accuracy_by_corridor" in (tmp_path / "report.html").read_text(), output


def test_by_hand(tmp_path: Path) -> None:
    suite = Suite(tmp_path, CONFIG)
    words = [
        "--set",
        "network.mixer=gru",
        "--set",
        "learner.total_timesteps=2048",
        "--set",
        "task.corridor=3",
        "--set",
        "task.max_episode_steps=12",
    ]
    tried = suite.pipeline("try", "t_maze", *words, "--set", "network.context=64", "--set", "evaluate.rows=20")
    assert tried.returncode == 0, tried.stderr
    assert "Episodes solved (%)" in tried.stdout
    made = suite.pipeline("generate", "--task", "t_maze", "--set", "corridor=5", "--rows", "50", "--out", "data")
    assert made.returncode == 0 and "corridor" in (tmp_path / "data" / "card.md").read_text()
