"""Cost of PPO outside the network: environment, buffers, advantages, random numbers and metrics.

    python -m benchmarks.ppo            about a minute
    python -m benchmarks.ppo --quick    some seconds

ppo: CPU seconds of updates outside the network, and of whole updates; the ratio is the share. Inside the network: its calls,
gradients, optimizer steps and losses. T-Maze of ten positions, recipe and size of the preset `t_maze`.

ours / peer, process CPU time, one thread. Medians over rounds of ten updates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import pyarrow as pa
import torch

from benchmarks.common import Row, compare, report
from pipeline.config.catalogue import implementation
from pipeline.config.learners import Ppo
from pipeline.config.networks import ActorCritic
from pipeline.config.tasks import TMaze
from pipeline.learners.base import Problem
from pipeline.networks.build import build
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key
from pipeline.training.device import prepare
from pipeline.training.means import Means

UPDATES = 10


class Watch:
    """Sums the CPU seconds of calls; of nested ones, the outermost."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, watched."""

        def watched(*given: Any, **named: Any) -> Any:
            start, self.depth = time.process_time(), self.depth + 1
            try:
                return work(*given, **named)
            finally:
                self.depth -= 1
                self.seconds += 0.0 if self.depth else time.process_time() - start

        return watched


def learner_of(mixer: str) -> Any:
    """A learner at its start."""
    task = TMaze(corridor=10)
    rows = pa.Table.from_batches([implementation(task)(task).episodes(8, derive_key("benchmark", "ppo"), "validation")])
    network = build(ActorCritic.model_validate({"mixer": mixer, "width": 32, "head_width": 64}), task.sizes)
    config = Ppo(num_updates=10**6)
    return implementation(config)(config, network, Problem(task, None, Episodes("benchmark", rows)), 0, torch.device("cpu"))


def shares(mixer: str, rounds: int) -> Row:
    """The row of one mixer."""
    learner, watch, means = learner_of(mixer), Watch(), Means()
    learner.update()
    learner.network.step = watch.around(learner.network.step)
    learner._step = watch.around(learner._step)
    outside, whole = [], []
    for _ in range(rounds):
        start, watch.seconds = time.process_time(), 0.0
        for _ in range(UPDATES):
            means.add(learner.update())
        whole.append(time.process_time() - start)
        outside.append(whole[-1] - watch.seconds)
    return compare("ppo" if mixer == "gru" else f"ppo, {mixer}", statistics.median(outside), statistics.median(whole), "CPU-s", "lower")


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds.")
def main(quick: bool) -> None:
    """Measure and report."""
    prepare(1, "cpu")
    torch.manual_seed(0)
    rounds = 3 if quick else 15
    report([shares(mixer, rounds) for mixer in ("gru", "lstm", "none")], updates=UPDATES)


if __name__ == "__main__":
    main()
