"""Environment steps until PPO solves CartPole-v1, against Stable-Baselines3 with the same hyperparameters: the presets `sb3_ppo` and `mlp_policy`.

    python -m benchmarks.cartpole               five seeds, about ten minutes
    python -m benchmarks.cartpole --quick       one seed

cartpole_20, cartpole_100: environment steps until the last 20 and the last 100 training episodes have a mean return of 475, mean over
seeds; `each` lists every seed. A hundred is gymnasium's criterion; these episodes alone take 50,000 steps.
cartpole_cpu: CPU seconds for 10,000 of these steps, updates included, one thread.

The last line has the same for `cleanrl_ppo`, whose peer is not a package; docs/families/control.md has both. Without Stable-Baselines3 (extra
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
from pipeline.config.expand import read_preset
from pipeline.config.learners import Ppo
from pipeline.config.networks import ActorCritic
from pipeline.config.tasks import Gymnasium
from pipeline.learners.base import Problem
from pipeline.networks.build import build
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key
from pipeline.training.device import prepare

GOAL, FEW, MANY, BUDGET = 475.0, 20, 100, 500_000


class Found(NamedTuple):
    """Environment steps until few and many episodes reach the goal, the budget where they do not; CPU seconds for 10,000 of those taken."""

    few: int
    many: int
    seconds: float


class Episodic:
    """Returns of training episodes in the order they ended, and by number of episodes the step at which their mean reached the goal."""

    def __init__(self) -> None:
        self.steps, self.returns = 0, list[float]()
        self.reached: dict[int, int] = {}
        self.begun = time.process_time()

    @property
    def solved(self) -> bool:
        """Whether many episodes have reached the goal."""
        return MANY in self.reached

    def add(self, copies: int, returns: list[float]) -> bool:
        """Count a step of all environments, and the episodes that ended at it; return whether the goal has been reached."""
        self.steps += copies
        for value in returns:
            self.returns.append(value)
            for last in (FEW, MANY):
                if len(self.returns) >= last and statistics.mean(self.returns[-last:]) >= GOAL:
                    self.reached.setdefault(last, self.steps)
        return self.solved

    def found(self) -> Found:
        """The results."""
        few, many = (self.reached.get(last, BUDGET) for last in (FEW, MANY))
        return Found(few, many, (time.process_time() - self.begun) / self.steps * 10_000)


def learner_of(preset: str, seed: int) -> Any:
    """The learner of a preset at its start."""
    task = Gymnasium()
    rows = pa.Table.from_batches([implementation(task)(task).episodes(1, derive_key("benchmark", "cartpole"), "validation")])
    network = build(ActorCritic.model_validate(read_preset("mlp_policy")), task.sizes, seed)
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
    while learner.progress(0.0) < 1 and not episodes.solved:
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
    for name, field, unit in (("cartpole_20", "few", "steps"), ("cartpole_100", "many", "steps"), ("cartpole_cpu", "seconds", "CPU-s")):
        means = (statistics.mean(getattr(one, field) for one in found) for found in (mine, theirs))
        rows.append(compare(name, next(means), next(means), unit, "lower"))
    each = {name: [one[:2] for one in found] for name, found in (("sb3_ppo", mine), ("peer", theirs), ("cleanrl_ppo", cleanrl))}
    report(rows, each=each, peer=f"stable-baselines3 {version}")


if __name__ == "__main__":
    main()
