"""Cost of one acting step: AReLiT against GTrXL, both as published, in the T-Maze's networks of four blocks.

    python -m benchmarks.acting            about two minutes
    python -m benchmarks.acting --quick    under a minute

Batch size 8, 128 channels, the presets arelit4, gtrxl_128 and gtrxl_256. Each row of the table has three measures:

    time     milliseconds of a step for all eight rows: median process CPU time; the networks' steps are interleaved in one process
    macs     millions of multiply-accumulates of the matrix products of a step, per row; AReLiT's elementwise sums are not counted
             (0.4 % of its step)
    state    bytes carried per row

ours / peer. arelit_gtrxl_M: the peer carries its inputs and computes keys, values and distances of all M + 1 positions at every step, as
the published code does. arelit_gtrxl_M_cached: it caches keys and values, which is the fair comparison; shifting the
cache by one takes at most a fifth of its step. GTrXL's memory is full. One thread.
"""

from __future__ import annotations

import statistics
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Row, compare, cpu_seconds, report
from pipeline.config.expand import read_preset
from pipeline.config.networks import ActorCritic
from pipeline.networks.build import build
from pipeline.training.device import prepare

BATCH, OBSERVATION, ACTIONS, FILLED = 8, 16, 4, 300
MEMORIES = (128, 256)


def network_of(preset: str, **mixer: Any) -> Any:
    """A network with random weights; `mixer` changes fields of the preset's."""
    block = read_preset(preset)
    fields = {"name": "actor_critic", "encoder": "mlp", **block, "mixer": {**block["mixer"], **mixer}}
    return build(ActorCritic.model_validate(fields), {"observation": [OBSERVATION], "actions": [ACTIONS]}).eval()


@torch.inference_mode()
def measure(networks: dict[str, Any], repeats: int) -> dict[str, tuple[float, float, float]]:
    """Milliseconds, millions of multiply-accumulates and bytes of each network's step."""
    states = {name: network(torch.randn(BATCH, FILLED, OBSERVATION))[1] for name, network in networks.items()}
    work = {}
    for name, network in networks.items():
        network.step(torch.randn(BATCH, OBSERVATION), states[name])
        with FlopCounterMode(display=False) as counter:
            network.step(torch.randn(BATCH, OBSERVATION), states[name])
        work[name] = counter.get_total_flops() / 2 / BATCH / 1e6
    times: dict[str, list[float]] = {name: [] for name in networks}
    for observed_BO in torch.randn(repeats, BATCH, OBSERVATION):
        for name, network in networks.items():

            def step(name: str = name, network: Any = network, observed_BO: torch.Tensor = observed_BO) -> None:
                states[name] = network.step(observed_BO, states[name])[1]

            times[name].append(1e3 * cpu_seconds(step))
    return {name: (statistics.median(times[name]), work[name], network.state_bytes(FILLED)) for name, network in networks.items()}


def table(found: dict[str, tuple[float, float, float]]) -> list[Row]:
    """Every peer with its three measures."""
    measures = (("", "ms"), (", macs", "M"), (", state", "B"))
    rows = []
    for peer in found.keys() - {"arelit"}:
        for (suffix, unit), ours, theirs in zip(measures, found["arelit"], found[peer], strict=True):
            rows.append(compare(f"arelit_{peer}{suffix}", ours, theirs, unit, "lower"))
    return sorted(rows, key=lambda row: row["name"])


@click.command()
@click.option("--quick", is_flag=True, help="Fewer repeats.")
def main(quick: bool) -> None:
    """Measure and report."""
    prepare(1, "cpu")
    torch.manual_seed(0)
    networks = {"arelit": network_of("arelit4")}
    for memory in MEMORIES:
        networks[f"gtrxl_{memory}"] = network_of(f"gtrxl_{memory}", cache=False)
        networks[f"gtrxl_{memory}_cached"] = network_of(f"gtrxl_{memory}")
    report(table(measure(networks, 101 if quick else 501)), batch=BATCH)


if __name__ == "__main__":
    main()
