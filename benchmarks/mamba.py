"""Cost of one training step of Mamba and Mamba-2, against a transformer of the same depth and against the `transformers` library.

    python -m benchmarks.mamba            4 rows of 512 tokens, width 256, 4 blocks: some minutes
    python -m benchmarks.mamba --quick    2 blocks, fewer repeats: under a minute

ours / peer: training tokens per process CPU second, medians; forward, backward and the optimiser's step, one thread. All networks of a
length are interleaved in one process, so that changes of load or clock frequency affect them equally. The transformer is plain torch:
pre-norm blocks of one fused scaled-dot-product attention and a feed-forward layer of four times the width, about twice a Mamba block's
weights. The library's Mamba runs on rows of 128 tokens, since its backward pass is quadratic in the length; without the library (extra
`peers`) its rows are omitted. `mamba_torch_transformer` is Mamba without the compiled scan.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import Row, compare, cpu_seconds, report
from pipeline.config.networks import SequenceNetwork
from pipeline.networks.build import build, count_parameters
from pipeline.ops import backends
from pipeline.training.device import prepare

ROWS, WIDTH, VOCABULARY, HEADS, STATES = 4, 256, 256, 8, 64
CHUNK = 64
"""Positions in a chunk of the library's Mamba-2: the fastest of 32, 64, 128 and its default of 256."""
LONG, SHORT = 512, 128
"""Tokens of a row; the shorter one for the library's Mamba."""
Step = Callable[[], object]


class TransformerBlock(nn.Module):
    """Attention and feed-forward layer, each after a norm and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feedforward = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """A whole sequence."""
        q, k, v = self.project(self.norms[0](x_BTD)).unflatten(-1, (3, HEADS, -1)).transpose(1, 3).unbind(2)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).flatten(2))
        return x_BTD + self.feedforward(self.norms[1](x_BTD))


def transformer(depth: int) -> nn.Module:
    """Logits of tokens."""
    blocks = [TransformerBlock() for _ in range(depth)]
    return nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *blocks, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY))


def ours(mixer: str, depth: int) -> nn.Module:
    """Blocks of a mixer alone, as the papers have them."""
    fields = {"name": mixer, "heads": HEADS, "d_state": STATES} if mixer == "mamba2" else {"name": mixer}
    config = {"mixer": fields, "width": WIDTH, "depth": depth, "norm": "rms", "final_norm": "rms", "residual": True}
    return build(SequenceNetwork.model_validate(config), {"vocabulary": VOCABULARY, "classes": VOCABULARY})


def library(mixer: str, depth: int) -> nn.Module:
    """The same sizes in the `transformers` library."""
    import transformers  # pyright: ignore[reportMissingImports]  # a peer, in an extra of its own

    transformers.logging.set_verbosity_error()
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": depth, "use_cache": False}
    if mixer == "mamba":
        return transformers.MambaForCausalLM(transformers.MambaConfig(**sizes))
    heads: dict[str, Any] = {"state_size": STATES, "head_dim": 2 * WIDTH // HEADS, "num_heads": HEADS, "n_groups": 1, "chunk_size": CHUNK}
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**sizes, **heads))


def training_step(network: nn.Module, tokens: int, backend: str = "auto") -> Step:
    """One update on random tokens."""
    optimizer = torch.optim.AdamW(network.parameters())
    tokens_BT, targets_BT = torch.randint(VOCABULARY, (2, ROWS, tokens))

    def step() -> None:
        os.environ[backends.VARIABLE] = backend
        optimizer.zero_grad()
        functional.cross_entropy(_logits(network(tokens_BT)).flatten(0, 1), targets_BT.flatten()).backward()
        optimizer.step()

    return step


def _logits(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    return output[0] if isinstance(output, tuple) else output.logits


def measure(steps: dict[str, Step], tokens: int, repeats: int) -> dict[str, float]:
    """Median tokens per CPU second of each step, taken in turns after one turn that does not count."""
    for step in steps.values():
        step()
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            rates[name].append(ROWS * tokens / cpu_seconds(step))
    return {name: statistics.median(values) for name, values in rates.items()}


def table(depth: int, repeats: int) -> tuple[list[Row], dict[str, int]]:
    """Every comparison, and the weights of each network."""
    there = importlib.util.find_spec("transformers") is not None
    long = {"mamba2": ours("mamba2", depth), "mamba": ours("mamba", depth), "transformer": transformer(depth)}
    if there:
        long["mamba2_library"] = library("mamba2", depth)
    steps = {name: training_step(network, LONG) for name, network in long.items()}
    steps["mamba_torch"] = training_step(long["mamba"], LONG, "torch")
    rates = measure(steps, LONG, repeats)
    pairs = {
        "mamba2_transformer": ("mamba2", "transformer"),
        "mamba2_transformers_library": ("mamba2", "mamba2_library"),
        "mamba_transformer": ("mamba", "transformer"),
        "mamba_torch_transformer": ("mamba_torch", "transformer"),
    }
    found = {name: (rates[one], rates[other]) for name, (one, other) in pairs.items() if other in rates}
    if there:
        short = {"mamba": training_step(long["mamba"], SHORT), "library": training_step(library("mamba", depth), SHORT)}
        brief = measure(short, SHORT, max(3, repeats // 3))
        found["mamba_transformers_library"] = (brief["mamba"], brief["library"])
    weights = {name: count_parameters(network) for name, network in long.items()}
    return [compare(name, *both, "tokens/s") for name, both in found.items()], weights


@click.command()
@click.option("--quick", is_flag=True, help="Half the depth and fewer repeats.")
@click.option("--repeats", type=click.IntRange(min=3), help="Measurements per network, of which the median counts.  [default: 9, quick: 5]")
def main(quick: bool, repeats: int | None) -> None:
    """Measure and report Mamba and Mamba-2 against their peers."""
    prepare(1, "cpu")
    torch.manual_seed(0)
    depth, repeats = (2, repeats or 5) if quick else (4, repeats or 9)
    rows, weights = table(depth, repeats)
    report(rows, rows_per_batch=ROWS, tokens=LONG, width=WIDTH, depth=depth, repeats=repeats, parameters=weights, backends=backends.used())


if __name__ == "__main__":
    main()
