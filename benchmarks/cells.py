"""Cost of one training step of a recurrent cell: the catalogue's mixers against torch.nn.LSTM, forward and backward.

    python -m benchmarks.cells            64 rows of 1020 positions, width 128: a minute
    python -m benchmarks.cells --quick    64 rows of 510 positions, fewer repeats: seconds

ours / peer: process CPU milliseconds, medians. All cells and the peer are interleaved in one process, so that changes of
load or clock frequency affect them equally. One thread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import click
import torch
from torch import nn

from benchmarks.common import compare, cpu_seconds, report
from pipeline.config.catalogue import implementation
from pipeline.config.mixers import MIXERS
from pipeline.ops import backends
from pipeline.training.device import prepare

CELLS = ("lstm", "lru", "gru", "min_gru", "multiplicative_lstm", "multiplicative_gru")
WIDTH = 128
WARM_UP = 2
Step = Callable[[], object]


def training_step(module: nn.Module, x_BTD: torch.Tensor, d_y_BTD: torch.Tensor) -> Step:
    """Outputs and all gradients, the input's included, as inside a network."""

    def step() -> None:
        module.zero_grad()
        x_BTD.grad = None
        module(x_BTD)[0].backward(d_y_BTD)

    return step


def measure(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each step, interleaved."""
    for _ in range(WARM_UP):
        for step in steps.values():
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(cpu_seconds(step) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


@click.command()
@click.option("--quick", is_flag=True, help="Shorter sequences and fewer repeats.")
@click.option("--repeats", type=click.IntRange(min=7), help="Measurements per cell, of which the median counts.  [default: 9, quick: 7]")
def main(quick: bool, repeats: int | None) -> None:
    """Measure and report every cell against torch.nn.LSTM."""
    prepare(1, "cpu")
    torch.manual_seed(0)
    rows, positions = (64, 510) if quick else (64, 1020)
    repeats = repeats or (7 if quick else 9)
    x_BTD = torch.randn(rows, positions, WIDTH, requires_grad=True)
    d_y_BTD = torch.randn(rows, positions, WIDTH)
    modules = {name: implementation(MIXERS[name])(MIXERS[name](name=name), WIDTH) for name in CELLS}
    modules["peer"] = nn.LSTM(WIDTH, WIDTH, batch_first=True)
    times = measure({name: training_step(module, x_BTD, d_y_BTD) for name, module in modules.items()}, repeats)
    table = [compare(name, times[name], times["peer"], "ms", better="lower") for name in CELLS]
    report(table, rows_per_batch=rows, positions=positions, width=WIDTH, repeats=repeats, backends=backends.used())


if __name__ == "__main__":
    main()
