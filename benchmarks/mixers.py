"""Cost of one training step of a network with each matrix-state mixer, against the same network with attention.

    python -m benchmarks.mixers            4 rows of 512 tokens, width 256, 4 blocks with feed-forward layers: some minutes
    python -m benchmarks.mixers --quick    2 blocks, fewer repeats: under a minute

ours / peer: training tokens per process CPU second, medians; forward, backward and the optimiser's step. All networks are interleaved in
one process, so that changes of load or clock frequency affect them equally. One thread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import click
import torch
from torch.nn import functional

from benchmarks.common import compare, cpu_seconds, report
from pipeline.config.mixers import MIXERS
from pipeline.config.networks import SequenceNetwork
from pipeline.networks.build import build
from pipeline.ops import backends
from pipeline.training.device import prepare

MATRICES = ("linear_attention", "gated_linear_attention", "delta_net", "gated_delta_net", "matrix_lstm", "rwkv7")
PEER = "attention"
ROWS, TOKENS, WIDTH, VOCABULARY = 4, 512, 256, 256
Step = Callable[[], object]


def training_step(mixer: str, depth: int) -> Step:
    """One update of a network on random tokens."""
    config = SequenceNetwork.model_validate(
        {"mixer": mixer, "width": WIDTH, "depth": depth, "feedforward": 2, "norm": "rms", "residual": True}
    )
    network = build(config, {"vocabulary": VOCABULARY, "classes": VOCABULARY})
    optimizer = torch.optim.AdamW(network.parameters())
    tokens_BT, targets_BT = torch.randint(VOCABULARY, (2, ROWS, TOKENS))

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(tokens_BT)[0].flatten(0, 1), targets_BT.flatten()).backward()
        optimizer.step()

    return step


def measure(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median tokens per CPU second of each step, taken in turns after one turn that does not count."""
    for step in steps.values():
        step()
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            rates[name].append(ROWS * TOKENS / cpu_seconds(step))
    return {name: statistics.median(values) for name, values in rates.items()}


@click.command()
@click.option("--quick", is_flag=True, help="Half the depth and fewer repeats.")
@click.option("--repeats", type=click.IntRange(min=3), help="Measurements per mixer, of which the median counts.  [default: 9, quick: 5]")
@click.option("--mixer", "mixers", type=click.Choice(MATRICES), multiple=True, help="Only this mixer; may be given again.")
def main(quick: bool, repeats: int | None, mixers: tuple[str, ...]) -> None:
    """Measure and report every mixer against attention."""
    prepare(1, "cpu")
    torch.manual_seed(0)
    depth, repeats = (2, repeats or 5) if quick else (4, repeats or 9)
    names = [name for name in mixers or MATRICES if name in MIXERS]
    rates = measure({name: training_step(name, depth) for name in (*names, PEER)}, repeats)
    table = [compare(name, rates[name], rates[PEER], "tokens/s") for name in names]
    report(table, rows_per_batch=ROWS, tokens=TOKENS, width=WIDTH, depth=depth, repeats=repeats, backends=backends.used())


if __name__ == "__main__":
    main()
