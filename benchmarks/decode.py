"""Cost of decoding: batched free running with carried state, and one more token at a long context.

    python -m benchmarks.decode            some minutes
    python -m benchmarks.decode --quick    under a minute

icr_64: traces per CPU second of IsTree with 64 nodes and searches, 64 rows in a batch with carried state, against one row at a time
that is read again as a whole for every token. Both follow the true traces, so that the work is that of a network that has learned them;
rereading is timed at prefixes spread evenly over a trace. Before that, both ways must decode the same tokens.

mamba_8192: milliseconds of one step after 8192 tokens, one row, of Mamba against attention with a cache of keys and values, at equal width
and depth, without feed-forward layers; and the bytes of state that they carry there. Each network takes BURST steps in a row, as in
real decoding: interleaving single steps would evict its weights from the CPU cache.

ours / peer, process CPU time, medians. One thread.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from benchmarks.common import Row, compare, cpu_seconds, report
from pipeline.config.catalogue import implementation
from pipeline.config.networks import SequenceNetwork
from pipeline.config.tasks import TASKS
from pipeline.networks.build import build
from pipeline.networks.decoding import AfterToken, decode
from pipeline.storage.loader import MemoryRows
from pipeline.storage.rng import derive_key
from pipeline.tasks.base import PROMPT
from pipeline.tasks.retriever import Retriever
from pipeline.training.device import prepare

BATCH, NODES, CONTEXT = 64, 64, 8192
BURST = 10
CPU = torch.device("cpu")


class Traced(NamedTuple):
    """A prompt and what truly follows."""

    prompt: np.ndarray
    after: list[int]


class Led:
    """Forces what truly follows, while the searches are answered as ever."""

    def __init__(self, searches: Retriever, after: list[int]) -> None:
        self.searches, self.rest = searches, iter(after[1:])

    def feed(self, token: int) -> int | None:
        """The next true token."""
        self.searches.feed(token)
        return next(self.rest, None)


def network_of(mixer: str, width: int, depth: int, tokens: int = 80) -> Any:
    """A network with random weights."""
    fields = {"mixer": mixer, "width": width, "depth": depth, "norm": "rms", "final_norm": "rms", "residual": True, "context": 2 * CONTEXT}
    return build(SequenceNetwork.model_validate(fields), {"vocabulary": tokens, "classes": tokens}).eval()


def rows_of(task: Any) -> list[Traced]:
    """A batch of a task's rows."""
    rows = MemoryRows.of("benchmark", task.generate(BATCH, derive_key("benchmark", "decode"))).gather(np.arange(BATCH))
    found = []
    for tokens, roles, length in zip(rows.tokens, rows.roles, rows.lengths, strict=True):
        begin = int((roles[:length] != PROMPT).argmax())
        found.append(Traced(tokens[:begin], tokens[begin:length].tolist()))
    return found


def carried(network: Any, task: Any, rows: list[Traced]) -> float:
    """Traces per CPU second, all rows side by side, none ending before its true length."""
    prompts = [row.prompt for row in rows]
    led = [Led(task.retriever(row.prompt), row.after) for row in rows]
    budgets = [len(row.after) for row in rows]
    return BATCH / cpu_seconds(lambda: decode(network, prompts, budgets, AfterToken(-1), CPU, BATCH, led))


@torch.inference_mode()
def read_again(network: Any, rows: list[Traced], prefixes: int) -> float:
    """Traces per CPU second, one at a time, all of it read for every token: from the seconds of single tokens."""
    row = sorted(rows, key=lambda row: len(row.after))[BATCH // 2]
    tokens_BT = torch.tensor([[*row.prompt.tolist(), *row.after]])
    ends = np.linspace(len(row.prompt), tokens_BT.shape[1] - 1, prefixes).astype(int).tolist()
    last = {end: torch.tensor([end - 1]) for end in ends}
    seconds = [cpu_seconds(lambda end=end: network(tokens_BT[:, :end], at_N=last[end])) for end in ends]
    return 1 / (statistics.mean(seconds) * statistics.mean(len(row.after) for row in rows))


@torch.inference_mode()
def check(network: Any, task: Any, rows: list[Traced], budget: int) -> None:
    """Rows decoded freely side by side have the tokens that each has alone, all read again for every one; in float64."""
    prompts = [row.prompt for row in rows]
    retrievers = [task.retriever(prompt) for prompt in prompts]
    together = decode(network, prompts, [budget] * len(rows), AfterToken(task.eos, further=1), CPU, BATCH, retrievers)
    for prompt, found in zip(prompts[:4], together, strict=False):
        searches, tokens, force = task.retriever(prompt), prompt.tolist(), None
        for token in found.tokens:
            likeliest = int(network(torch.tensor([tokens]))[0][0, -1].argmax())
            if token != (likeliest if force is None else force):
                raise SystemExit("benchmarks.decode: batched and single decoding differ; expected the same tokens")
            tokens.append(token)
            force = searches.feed(token)


def traces(quick: bool) -> Row:
    """The row icr_64."""
    config: Any = TASKS["is_tree"]
    task = implementation(config)(config(nodes=NODES, layout="icr"))
    network, rows = network_of("mamba", 64, 2 if quick else 16), rows_of(task)
    check(network.double(), task, rows, 30 if quick else 120)
    network.float()
    return compare("icr_64", carried(network, task, rows), read_again(network, rows, 8 if quick else 32), "traces/s")


@torch.inference_mode()
def steps(quick: bool) -> list[Row]:
    """The rows mamba_8192: time and state."""
    names, depth = ("mamba", "attention"), 2 if quick else 4
    networks = {name: network_of(name, 256, depth) for name in names}
    tokens_BT = torch.randint(80, (1, CONTEXT))
    states = {name: networks[name](tokens_BT)[1] for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for token_RB in torch.randint(80, (5 if quick else 21, BURST, 1)):
        for name in names:

            def burst(name: str = name, token_RB: torch.Tensor = token_RB) -> None:
                for token_B in token_RB:
                    states[name] = networks[name].step(token_B, states[name])[1]

            times[name].append(1e3 * cpu_seconds(burst) / BURST)
    medians = [statistics.median(times[name]) for name in names]
    sizes = [networks[name].state_bytes(CONTEXT) for name in names]
    return [compare("mamba_8192", medians[0], medians[1], "ms", "lower"), compare("mamba_8192, state", sizes[0], sizes[1], "B", "lower")]


@click.command()
@click.option("--quick", is_flag=True, help="Shallower networks and fewer repeats.")
def main(quick: bool) -> None:
    """Measure and report."""
    prepare(1, "cpu")
    torch.manual_seed(0)
    report([traces(quick), *steps(quick)], batch=BATCH, nodes=NODES, context=CONTEXT, burst=BURST)


if __name__ == "__main__":
    main()
