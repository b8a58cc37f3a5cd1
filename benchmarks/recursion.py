"""Cost of a training step of a recursive network: ours against the published code of Tiny Recursive Models.

    python -m benchmarks.recursion --peer DIR           a checkout of github.com/SamsungSAILMontreal/TinyRecursiveModels: five minutes
    python -m benchmarks.recursion --peer DIR --quick   fewer rows per batch and repeats: under a minute
    python -m benchmarks.recursion                      without it: our FLOPs per second against those of one large matrix product

A step is the supervision step of a batch: forward and backward pass, AdamW, sign-SGD of the identifiers, moving average. Width 128, 4 heads, 2
blocks, 3 outer and 6 inner cycles, float32, random tokens. Process CPU milliseconds, medians, interleaved, one thread.

    faithful    the published sizes: 16 registers, inner widths rounded up to 256; the same arithmetic with the same weights
    slim        one register, inner widths as they are; compared with the published sizes

With a peer, parity is measured too: the largest differences of loss, gradients, and weights after ten steps, from the same weights. There are two
outer and three inner cycles there, and two supervision steps: an untrained mixer amplifies rounding thirtyfold in each step of the full size.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.common import compare, cpu_seconds, report
from benchmarks.trm_peer import Peer, paired
from pipeline.config.learners import DeepSupervision as LearnerConfig
from pipeline.config.networks import RecursiveNetwork as NetworkConfig
from pipeline.config.tasks import Sudoku
from pipeline.learners.base import Problem
from pipeline.learners.deep_supervision import DeepSupervision
from pipeline.learners.row_queue import Rows
from pipeline.networks.build import build
from pipeline.networks.flops import count_flops
from pipeline.storage.loader import MemoryRows
from pipeline.storage.rng import derive_key
from pipeline.tasks.sudoku import Sudoku as SudokuRows
from pipeline.training.device import prepare

WIDTH, SUPERVISION, DECAY = 128, 16, 0.999
ATTENTION, MIXER = {"name": "full_attention", "heads": 4}, {"name": "token_mixing"}
CASES = {"9x9 attention": (9, ATTENTION), "4x4 attention": (4, ATTENTION), "9x9 mixer": (9, MIXER)}
PARITY_ROWS, PARITY_STEPS = 4, 10
PRODUCT = (8192, 512, 1024)
PRODUCT_FLOPS = 2 * 8192 * 512 * 1024
RATE, BETAS, TABLE_RATE = 1e-4, (0.9, 0.95), 1e-6


class Ours:
    """A learner by deep supervision of random Sudoku, with the one identifier that the published code gives such rows."""

    def __init__(self, side: int, mixer: dict[str, Any], batch: int, faithful: bool, supervision: int = SUPERVISION, **fields: Any) -> None:
        task = Sudoku(side=side)  # pyright: ignore[reportArgumentType]
        rows = MemoryRows.of("sudoku", SudokuRows(task).generate(4 * batch, derive_key("benchmark")))
        sizes: dict[str, Any] = {"registers": 16, "feedforward": 4.0} if faithful else {"registers": 1, "feedforward": 8 / 3}
        rounding = {"multiple_of": 256} if faithful and mixer is MIXER else {}
        network = NetworkConfig.model_validate({"width": WIDTH, "mixer": mixer | rounding, "start": "fixed", **sizes, **fields})
        config = LearnerConfig(
            steps=10**6,
            batch_size=batch,
            supervision=supervision,
            halting="halt",
            exploration=0.0,
            loss="stablemax",
            optimizer="adamw",
            learning_rate=RATE,
            betas=BETAS,
            max_grad_norm=None,
            ema_decay=DECAY,
            identifier_learning_rate=TABLE_RATE,
            identifier_weight_decay=0.0,
        )
        self.network: Any = build(network, {**task.sizes, "cells": side**2, "identifiers": 1})
        self.learner = DeepSupervision(config, self.network, Problem(task, rows, rows), 0, torch.device("cpu"))
        self.rows = self._next()

    def _next(self) -> Rows:
        rows = self.learner.collect()
        return rows._replace(inputs={"identifier_B": torch.zeros(len(rows.tokens_BT), dtype=torch.int32)})

    def step(self) -> float:
        """Take a training step; returns the loss divided by the batch size."""
        figures = self.learner.learn_from(self.rows)
        self.rows = self._next()
        return float(figures["train_loss"] + 0.5 * figures["train_q_loss"])


def make_peer(folder: Path, ours: Ours, side: int) -> Peer:
    """The published model with the weights of a faithful one of ours."""
    peer = Peer(folder, ours.network, side**2, len(ours.rows.tokens_BT), ours.learner.config.supervision, DECAY)
    peer.optimize(RATE, BETAS, 0.0, TABLE_RATE)
    return peer


def measure(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each step, interleaved, after one of each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            times[name].append(cpu_seconds(step) * 1e3)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def parity(folder: Path, side: int, mixer: dict[str, Any]) -> dict[str, float]:
    """The largest differences from the published code, from the same weights on the same rows; gradients relative to the largest one.

    rounding: the largest difference of weights between the published code and itself, started from weights next to those in float32.
    """
    ours, shifted = (Ours(side, mixer, PARITY_ROWS, faithful=True, supervision=2, outer=2, inner=3) for _ in range(2))
    with torch.no_grad():
        for weight in shifted.network.parameters():
            weight.copy_(weight.nextafter(torch.tensor(torch.inf)))
    peer, near = make_peer(folder, ours, side), make_peer(folder, shifted, side)
    found: dict[str, float] = {"loss": 0.0}
    for step in range(PARITY_STEPS):
        near.step(ours.rows.tokens_BT, ours.rows.labels_BT)
        losses = peer.step(ours.rows.tokens_BT, ours.rows.labels_BT), ours.step()
        found["loss"] = max(found["loss"], abs(losses[0] - losses[1]))
        if step == 0:
            gradients = [(peer.gradient(theirs), mine.grad.to_dense()) for theirs, mine in pairs(peer, ours) if mine.grad is not None]
            largest = max(float(theirs.abs().max()) for theirs, _ in gradients)
            found["gradients"] = max(float((theirs - mine).abs().max()) for theirs, mine in gradients) / largest
    found["weights"] = max(float((theirs - mine).detach().abs().max()) for theirs, mine in pairs(peer, ours))
    found["rounding"] = max(float((theirs - other).abs().max()) for theirs, other in zip(weights(peer), weights(near), strict=True))
    return found


def weights(peer: Peer) -> list[torch.Tensor]:
    """Detached parameters of the published model."""
    return [weight.detach() for weight in peer.model.parameters()]


def pairs(peer: Peer, ours: Ours) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights with the same role."""
    return paired(peer.model.inner, ours.network)


@click.command()
@click.option("--peer", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A checkout of the published code.")
@click.option("--quick", is_flag=True, help="Batches of 8 rows instead of 32, and fewer repeats.")
@click.option("--repeats", type=click.IntRange(min=1), help="Measurements, of which the median counts.  [default: 7, quick: 3]")
def main(folder: Path | None, quick: bool, repeats: int | None) -> None:
    """Measure and report a training step in each case."""
    prepare(1, "cpu")
    batch, repeats = (8, repeats or 3) if quick else (32, repeats or 7)
    table, differences = [], {}
    for name, (side, mixer) in CASES.items():
        ours = {sizes: Ours(side, mixer, batch, faithful=sizes == "faithful") for sizes in ("faithful", "slim")}
        steps: dict[str, Any] = {sizes: one.step for sizes, one in ours.items()}
        if folder:
            peer, rows = make_peer(folder, ours["faithful"], side), ours["faithful"].rows
            steps["peer"] = lambda peer=peer, rows=rows: peer.step(rows.tokens_BT, rows.labels_BT)
            differences[name] = parity(folder, side, mixer)
        else:
            one, other = torch.randn(*PRODUCT[:2]), torch.randn(*PRODUCT[1:])
            steps["peer"] = lambda one=one, other=other: one @ other
        times = measure(steps, repeats)
        for sizes, one in ours.items():
            if folder:
                table.append(compare(f"{name}, {sizes}", times[sizes], times["peer"], "ms", better="lower"))
            else:
                flops = count_flops(one.step)
                table.append(compare(f"{name}, {sizes}", flops / times[sizes] / 1e6, PRODUCT_FLOPS / times["peer"] / 1e6, "GFLOP/s"))
    report(table, parity=differences, batch=batch, width=WIDTH, repeats=repeats)


if __name__ == "__main__":
    main()
