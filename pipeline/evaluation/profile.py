"""Profile a network: weights, state, training speed, and the time of one more token at a given context.

One row per context; a token is what a network reads at a step, for an actor an observation. Seconds are CPU seconds of this process on the
CPU, and wall seconds including synchronization on a GPU. Medians after a warm-up; weights are random, which does not affect costs.

A network that is not causal has no steps: it has one row, at the longest grid of its task, and its "step" is a pass over a whole grid.

column                        unit
network                       identifier
context                       tokens in the state after the last step measured; cells of the grid, if the network is not causal
parameters                    trainable weights
state_bytes                   bytes carried per row at this context
training_tokens_per_second    tokens of a batch / seconds of its forward and backward pass, at the two columns that follow
training_batch                rows
training_length               tokens per row: the context, but no more than TRAINING_LENGTH if the network is causal
step_seconds                  one token more, or one whole grid, batch of one
step_macs                     multiplications of matrix products in that step, without element-wise operations
peak_bytes                    peak resident memory of the process so far
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

from pipeline.config.code import code_of
from pipeline.config.spec_files import load_component, read_spec
from pipeline.networks.build import build, count_parameters
from pipeline.networks.flops import PART, count_flops, input_at, random_inputs, row_flops
from pipeline.networks.mode import training
from pipeline.storage.console import ProgressLine
from pipeline.storage.digest import canonical_json
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
        "step_macs": pa.int64(),
        "peak_bytes": pa.int64(),
        "threads": pa.int64(),
        "device": pa.string(),
    }
)


def profile(spec_path: Path, out: Path, threads: int, device: str) -> None:
    """Measure the network that profiles/{network}.yaml describes and write the table `out`.

    Raises MissingFileError or CorruptFileError for the specification, UserError if the device is missing.
    """
    spec = read_spec(spec_path, "network")
    torch_device = prepare(threads, device)
    config = load_component("network", spec["network"])
    network: Any = build(config, spec["sizes"]).to(torch_device)
    shared = {"network": spec["id"], "parameters": count_parameters(network), "threads": threads, "device": torch_device.type}
    speeds: dict[int, float] = {}
    rows, measured = [], contexts(config.context) if config.causal else [spec["sizes"]["cells"]]
    progress = ProgressLine(spec["id"], len(measured), "contexts measured")
    for context in measured:
        progress(len(rows))
        length = min(context, TRAINING_LENGTH) if config.causal else context
        if length not in speeds:
            speeds[length] = training_speed(network, _rows(length), length, torch_device)
        training = {"training_tokens_per_second": speeds[length], "training_batch": _rows(length), "training_length": length}
        seconds, macs = (step_cost if config.causal else pass_cost)(network, context, torch_device)
        state = {"state_bytes": network.state_bytes(context), "peak_bytes": peak_bytes()}
        rows.append(shared | {"context": context, "step_seconds": seconds, "step_macs": macs} | training | state)
    write_table(out, pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({"code": canonical_json(code_of(config))}))


def contexts(longest: int) -> list[int]:
    """Return the contexts to measure: those that the network accepts, or the longest it accepts if none of them."""
    return [context for context in CONTEXTS if context <= longest] or [longest]


def training_speed(network: Any, batch: int, length: int, device: torch.device) -> float:
    """Measure tokens per second of forward and backward passes, without the optimizer."""
    inputs = random_inputs(network, batch, length)

    def update() -> None:
        network.zero_grad()
        output, _ = network(**inputs)
        if isinstance(output, Tensor):
            logits_NC = output.flatten(0, 1)
            cross_entropy(logits_NC, torch.zeros_like(logits_NC[:, 0], dtype=torch.int64)).backward()
        else:
            torch.stack([part.square().mean() for part in output]).sum().backward()

    with training(network):
        return batch * length / statistics.median(_seconds(update, WARM_UP, REPEATS, device))


@torch.inference_mode()
def step_cost(network: Any, context: int, device: torch.device) -> tuple[float, int]:
    """Measure seconds and multiplications of one step, batch of one; the last timed step brings the state to `context` tokens."""
    warm_up, steps = (WARM_UP, STEPS) if context > WARM_UP + STEPS else (0, 1)
    carried: Any = network.initial_state(1)
    for start in range(0, before := context - warm_up - steps, PART):
        _, carried = network(**random_inputs(network, 1, min(PART, before - start)), state=carried)
    read = random_inputs(network, 1, warm_up + steps)
    last: Any = carried

    def step(at: int) -> None:
        nonlocal carried, last
        last = carried
        _, carried = network.step(**input_at(read, at), state=carried)

    places = iter(range(warm_up + steps))
    seconds = statistics.median(_seconds(lambda: step(next(places)), warm_up, steps, device))
    return seconds, count_flops(lambda: network.step(**input_at(read, -1), state=last)) // 2


def pass_cost(network: Any, cells: int, device: torch.device) -> tuple[float, int]:
    """Measure seconds and multiplications of one pass over a grid, batch of one, of a network that is not causal."""
    inputs = random_inputs(network, 1, cells)

    @torch.inference_mode()
    def read() -> None:
        network(**inputs)

    return statistics.median(_seconds(read, WARM_UP, STEPS, device)), row_flops(network, cells).forward // 2


def peak_bytes() -> int:
    """Return the peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rows(length: int) -> int:
    return max(1, TRAINING_TOKENS // length)


def _seconds(work: Callable[[], None], warm_up: int, repeats: int, device: torch.device) -> list[float]:
    """Time each call after the warm-up, in seconds."""
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
