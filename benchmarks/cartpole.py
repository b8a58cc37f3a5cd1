"""How soon PPO solves CartPole-v1, against Stable-Baselines3's with the same settings: the presets `sb3_ppo` and `mlp_policy`.

    python -m benchmarks.cartpole               five seeds, about ten minutes
    python -m benchmarks.cartpole --quick       one seed

cartpole_steps: environment steps until the last 20 training episodes have a mean return of 475, mean over seeds; `each` has them all.
cartpole_cpu: CPU seconds for 10,000 of these steps, updates included, one thread.

The last line has the same of `cleanrl_ppo`, whose peer is no package; docs/families/control.md has both. Without Stable-Baselines3 (extra
`peers`) there is no comparison. ours / peer.
"""

from __future__ import annotations

import importlib
import statistics
import time
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

import click
import pyarrow as pa
import torch

from benchmarks.common import compare, report
from pipeline.config.catalogue import implementation
from pipeline.config.learners import Ppo
from pipeline.config.networks import ActorCritic
from pipeline.config.resolve import read_preset
from pipeline.config.tasks import Gymnasium
from pipeline.learners.base import Problem
from pipeline.networks.build import build
from pipeline.storage.keys import derive_key
from pipeline.storage.loader import Episodes
from pipeline.training.device import prepare

GOAL, LAST, BUDGET = 475.0, 20, 500_000


class Found(NamedTuple):
    """Environment steps until the goal, the budget where it was not reached; CPU seconds for 10,000 of those taken."""

    steps: int
    seconds: float


class Episodic:
    """Returns of training episodes in the order they ended, and the step at which the goal was reached."""

    def __init__(self) -> None:
        self.steps, self.returns, self.solved = 0, [], None
        self.begun = time.process_time()

    def add(self, copies: int, returns: list[float]) -> bool:
        """Count a step of all copies, and the episodes that ended at it; whether the goal has been reached."""
        self.steps += copies
        for value in returns:
            self.returns.append(value)
            if self.solved is None and len(self.returns) >= LAST and statistics.mean(self.returns[-LAST:]) >= GOAL:
                self.solved = self.steps
        return self.solved is not None

    def found(self) -> Found:
        """What came out."""
        return Found(self.solved or BUDGET, (time.process_time() - self.begun) / self.steps * 10_000)


def learner_of(preset: str, seed: int) -> Any:
    """The learner of a preset at its start."""
    task = Gymnasium()
    rows = pa.Table.from_batches([implementation(task)(task).episodes(1, derive_key("benchmark", "cartpole"), "validation")])
    network = build(ActorCritic.model_validate(read_preset("mlp_policy")), seed=seed, **task.sizes)
    config = Ppo.model_validate({**read_preset(preset), "rows": BUDGET})
    return implementation(config)(config, network, Problem(task, None, Episodes("benchmark", rows)), seed, torch.device("cpu"))


def ours(preset: str, seed: int) -> Found:
    """Train by a preset until the goal."""
    learner, episodes = learner_of(preset, seed), Episodic()
    step = learner.actor.environment.step

    def counted(action: Any) -> Any:
        result = step(action)
        infos = result[-1]
        episodes.add(len(result[1]), infos["return"][infos["_length"]].tolist() if "_length" in infos else [])
        return result

    learner.actor.environment.step = counted
    while learner.progress(0.0) < 1 and episodes.solved is None:
        learner.update()
    return episodes.found()


def peer(seed: int) -> Found:
    """Train by Stable-Baselines3's defaults until the goal."""
    sb3: Any = importlib.import_module("stable_baselines3")
    episodes = Episodic()

    def counted(scope: dict[str, Any], _: Any) -> bool:
        return not episodes.add(1, [info["episode"]["r"] for info in scope["infos"] if "episode" in info])

    sb3.PPO("MlpPolicy", "CartPole-v1", seed=seed, device="cpu").learn(BUDGET, callback=counted)
    return episodes.found()


def installed() -> str:
    """The version of Stable-Baselines3. Raises SystemExit where there is none."""
    try:
        return metadata.version("stable-baselines3")
    except metadata.PackageNotFoundError:
        raise SystemExit("benchmarks.cartpole: stable-baselines3 is not installed; expected it from uv pip install '.[peers]'") from None


@click.command()
@click.option("--quick", is_flag=True, help="One seed.")
def main(quick: bool) -> None:
    """Measure and report."""
    version = installed()
    prepare(1, "cpu")
    seeds = range(1, 2 if quick else 6)
    mine, theirs, cleanrl = ([run(seed) for seed in seeds] for run in (partial(ours, "sb3_ppo"), peer, partial(ours, "cleanrl_ppo")))
    rows = []
    for name, field, unit in (("cartpole_steps", "steps", "steps"), ("cartpole_cpu", "seconds", "CPU-s")):
        means = (statistics.mean(getattr(one, field) for one in found) for found in (mine, theirs))
        rows.append(compare(name, next(means), next(means), unit, "lower"))
    each = {name: [one.steps for one in found] for name, found in (("sb3_ppo", mine), ("peer", theirs), ("cleanrl_ppo", cleanrl))}
    report(rows, each=each, peer=f"stable-baselines3 {version}")


if __name__ == "__main__":
    main()
