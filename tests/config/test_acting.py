"""Environments in a config: what pairs with what, and every mistake as one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.base import canonical, filled
from pipeline.config.learners import A2c, Ppo, Supervised
from pipeline.config.networks import ActorCritic
from tests.config.rich import complaint, plan_of

MAZE = """\
experiments:
  maze:
    base:
      task: {name: t_maze, corridor: 10}
      network: {name: actor_critic, mixer: gru, width: 16}
      learner: {name: ppo, total_timesteps: 20k}
      evaluate: {rows: 50, corridors: [10, 20]}
    figures: [{name: accuracy_by, column: corridor}, learning_curves]
"""


def test_a_plan_of_an_environment(tmp_path: Path) -> None:
    plan = plan_of(MAZE, tmp_path)
    (run,) = plan.runs.values()
    assert run.id.startswith("t-maze-gru-s0-")
    assert {dataset.spec["split"]: dataset.spec["rows"] for dataset in plan.datasets.values()} == {"validation": 100, "test": 50}
    assert len(plan.datasets) == 3 and run.spec["data"]["train"] is None and run.data == [run.spec["data"]["validation"]]
    assert plan.experiments["maze"].spec["runs"][0]["batch"] == 64 * 32
    assert plan.from_json(plan.to_json()) == plan


WRONG = {
    "a sequence network": (
        ("name: actor_critic, ", "name: sequence, "),
        5,
        "sequence is for token tasks, t_maze is an environment; expected network: actor_critic",
    ),
    "a supervised learner": (
        ("name: ppo, total_timesteps", "name: supervised, rows"),
        6,
        "supervised is for token tasks, t_maze is an environment; expected learner: a2c or ppo",
    ),
    "a task of tokens": (
        ("{name: t_maze, corridor: 10}\n      network", "{name: copy, delay: 3}\n      evaluate: {rows: 9}\n      network"),
        6,
        "actor_critic is for environments, copy is a token task; expected network: sequence",
    ),
    "convolutions of a vector": (
        ("width: 16", "width: 16, encoder: nature_cnn"),
        5,
        "nature_cnn reads images of 36 pixels or more a side, t_maze shows a vector of 16; expected encoder: none or mlp",
    ),
    "a longer code at evaluation": (
        ("[10, 20]", "[10, 300]"),
        7,
        "a point of the evaluation has observation [17], the task [16]; expected the same",
    ),
    "episodes longer than the context": (
        ("width: 16", "width: 16, context: 500"),
        5,
        "rows of 1000 steps exceed network.context = 500; expected at most that",
    ),
    "a budget below a rollout": (
        ("total_timesteps: 20k", "total_timesteps: 2k"),
        6,
        "got total_timesteps: 2000; expected at least 2048, one update",
    ),
    "sequences that do not divide": (
        ("total_timesteps: 20k", "total_timesteps: 20k, bptt_steps: 10"),
        6,
        "got bptt_steps: 10; expected a divisor of rollout_steps = 32",
    ),
    "minibatches that do not divide": (
        ("total_timesteps: 20k", "total_timesteps: 20k, num_minibatches: 3"),
        6,
        "got num_minibatches: 3; expected a divisor of the 64 sequences of a rollout",
    ),
    "entropy that falls to an unknown end": (
        ("total_timesteps: 20k", "seconds: 5, ent_coef_schedule: linear"),
        6,
        "ent_coef_schedule: linear with a budget in seconds; expected one in total_timesteps, num_updates or flops",
    ),
    "a curriculum": (("total_timesteps: 20k", "total_timesteps: 20k, curriculum: {column: corridor}"), 6, "unknown key"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path) -> None:
    (old, new), line, message = WRONG[mistake]
    assert MAZE.count(old) == 1
    text = MAZE.replace(old, new)
    found = complaint(text if "t_maze" in text else text.replace("      evaluate: {rows: 50, corridors: [10, 20]}\n", ""), tmp_path)
    assert found[0] == line and found[2].startswith(message), found


def test_figures_of_episodes_need_episodes(tmp_path: Path) -> None:
    text = """\
experiments:
  a:
    base:
      task: {name: copy, symbols: 3, delay: 9}
      network: {name: sequence, mixer: gru, width: 8}
      learner: {name: supervised, steps: 5}
    figures: [mean_return]
"""
    assert complaint(text, tmp_path)[2] == "copy is measured by tokens; expected episodes, which mean_return draws"


def test_an_experiment_is_of_one_kind(tmp_path: Path) -> None:
    variants = """\
    variants:
      words:
        task: {name: copy, delay: 3}
        network: {name: sequence}
        learner: {name: supervised, rows: 20k}
"""
    text = MAZE.replace(
        "      evaluate: {rows: 50, corridors: [10, 20]}\n    figures: [{name: accuracy_by, column: corridor}, learning_curves]\n", variants
    )
    assert complaint(text, tmp_path)[2] == "a task of kind tokens beside one of kind environment; expected one kind in an experiment"


def test_what_a_learner_sees_at_a_time() -> None:
    assert (Ppo(total_timesteps=10_000, num_envs=8, rollout_steps=16).total_steps, Ppo(num_updates=3).total_steps) == (78, 3)
    assert (
        Ppo(num_updates=1, num_envs=8, rollout_steps=16, bptt_steps=4, num_minibatches=32).sequences,
        A2c(num_updates=1).rows_per_step,
    ) == (32, 2048)
    assert (A2c(num_updates=1).stored_rows, Supervised(steps=1, data="stream").stored_rows, Supervised(steps=2).stored_rows) == (
        None,
        None,
        64,
    )


def test_only_what_differs_from_the_defaults_is_in_an_identifier() -> None:
    assert canonical(Ppo(total_timesteps=9000)) == {"name": "ppo", "version": 2, "total_timesteps": 9000}
    block = canonical(ActorCritic(encoder="mlp"))
    assert set(block) == {"encoder", "mixer", "name", "version"}
    assert "dropout" not in filled(ActorCritic()) and "batch_size" not in filled(Ppo(total_timesteps=9000))
