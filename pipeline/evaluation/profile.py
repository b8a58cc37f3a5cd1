"""What a network costs, whatever it has learned: weights, state, training speed, and the time of one more token at a given context.

One row per context. Seconds are CPU seconds of this process on the CPU, and seconds on the clock, the device waited for, on a GPU.
Medians after a warm-up; weights are random, which changes no cost.

column                        unit
network                       identifier
context                       tokens that the state holds after the last step measured
parameters                    trainable weights
state_bytes                   bytes carried per row at this context
training_tokens_per_second    tokens of a batch / seconds of its forward and backward pass, at the two columns that follow
training_batch                rows
training_length               tokens per row: the context, but no more than TRAINING_LENGTH
step_seconds                  one token more, batch of one
peak_bytes                    largest resident memory of the process so far
threads, device               as measured
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.config.frozen import read_spec, revive
from pipeline.networks.build import build, count_parameters, sizes_of
from pipeline.storage.tables import write_table
from pipeline.training.device import prepare

CONTEXTS = (128, 512, 2048, 8192)
TRAINING_LENGTH = 512
TRAINING_TOKENS = 4096
"""Tokens in the batch whose training step is measured."""
WARM_UP = 2
REPEATS = 5
STEPS = 31
"""Single tokens timed at each context."""

SCHEMA = pa.schema(
    {
        "network": pa.string(),
        "context": pa.int64(),
        "parameters": pa.int64(),
        "state_bytes": pa.int64(),
        "training_tokens_per_second": pa.float64(),
        "training_batch": pa.int64(),
        "training_length": pa.int64(),
        "step_seconds": pa.float64(),
        "peak_bytes": pa.int64(),
        "threads": pa.int64(),
        "device": pa.string(),
    }
)


def profile(spec_path: Path, out: Path, threads: int, device: str) -> None:
    """Measure the network that profiles/{network}.yaml describes and write the table `out`.

    Raises MissingFileError or CorruptFileError for the specification, UserError for a device that is not there.
    """
    spec = read_spec(spec_path, "network")
    there = prepare(threads, device)
    config, vocabulary, features = revive("network", spec["network"]), spec["vocabulary"], spec.get("features", 0)
    network: Any = build(config, seed=0, **sizes_of(spec)).to(there)
    shared = {"network": spec["id"], "parameters": count_parameters(network), "threads": threads, "device": there.type}
    speeds: dict[int, float] = {}
    rows = []
    for context in contexts(config.context):
        length = min(context, TRAINING_LENGTH)
        if length not in speeds:
            speeds[length] = training_speed(network, vocabulary, _rows(length), length, there, features)
        training = {"training_tokens_per_second": speeds[length], "training_batch": _rows(length), "training_length": length}
        seconds = step_seconds(network, vocabulary, context, there, features)
        sizes = {"state_bytes": network.state_bytes(context), "peak_bytes": peak_bytes()}
        rows.append(shared | {"context": context, "step_seconds": seconds} | training | sizes)
    write_table(out, pa.Table.from_pylist(rows, SCHEMA))


def contexts(longest: int) -> list[int]:
    """The contexts measured: those that the network accepts, or the longest it does where it accepts none of them."""
    return [context for context in CONTEXTS if context <= longest] or [longest]


def training_speed(network: Any, vocabulary: int, batch: int, length: int, device: torch.device, features: int = 0) -> float:
    """Tokens per second of forward and backward passes, without the optimizer."""
    tokens_BT, values_BTF = _inputs(vocabulary, features, batch, length, device)
    network.train()

    def update() -> None:
        network.zero_grad()
        logits_BTC, _ = network(tokens_BT, values_BTF=values_BTF)
        cross_entropy(logits_BTC.flatten(0, 1), torch.zeros_like(tokens_BT).flatten()).backward()

    return batch * length / statistics.median(_seconds(update, WARM_UP, REPEATS, device))


@torch.inference_mode()
def step_seconds(network: Any, vocabulary: int, context: int, device: torch.device, features: int = 0) -> float:
    """Seconds of one step, batch of one; the last step measured brings the state to `context` tokens."""
    network.eval()
    warm_up, steps = (WARM_UP, STEPS) if context > WARM_UP + STEPS else (0, 1)
    before = context - warm_up - steps
    tokens_BT, values_BTF = _inputs(vocabulary, features, 1, context, device)
    carried: Any = network.initial_state(1)
    if before:
        _, carried = network(tokens_BT[:, :before], values_BTF=None if values_BTF is None else values_BTF[:, :before])
    values_TBF = [None] * context if values_BTF is None else values_BTF.unbind(1)
    remaining = iter(list(zip(tokens_BT.unbind(1), values_TBF, strict=True))[before:])

    def step() -> None:
        nonlocal carried
        token_B, values_BF = next(remaining)
        _, carried = network.step(token_B, carried, values_BF=values_BF)

    return statistics.median(_seconds(step, warm_up, steps, device))


def _inputs(vocabulary: int, features: int, batch: int, length: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Random rows, with real numbers where the network reads some."""
    tokens_BT = torch.randint(vocabulary, (batch, length), device=device)
    return tokens_BT, torch.rand(batch, length, features, device=device) if features else None


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rows(length: int) -> int:
    return max(1, TRAINING_TOKENS // length)


def _seconds(work: Callable[[], None], warm_up: int, repeats: int, device: torch.device) -> list[float]:
    """Seconds of each call after the warm-up."""
    clock = _wall if device.type == "cuda" else time.process_time
    for _ in range(warm_up):
        work()
    found = []
    for _ in range(repeats):
        start = clock()
        work()
        found.append(clock() - start)
    return found


def _wall() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
