"""The LSTM and GRU that read m * x over whole sequences, as operations with backends; the equations are in the files of the two mixers.

Notation: B = batch size, T = sequence length, D = width, G = the gates' rows, E = D + G.

Backends. `torch`: a loop under autograd, for any device and number type. `triton`: one kernel, `pipeline.ops.multiplicative_triton`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.ops import backends, multiplicative_triton
from pipeline.ops.loop import States, loop


class Layers(NamedTuple):
    """W_m and b_m; W and b; U_m above U."""

    factor: nn.Linear
    into: nn.Linear
    recurrent: nn.Linear

    def projected(self, x: Tensor) -> Tensor:
        """x and W_m x + b_m, along the last dimension: W has to wait for h."""
        return torch.cat([x, self.factor(x)], -1)


def input_multiplicative(
    cell: str,
    x_BTD: Tensor,
    layers: Layers,
    advance: Callable[[Tensor, States], States],
    states: States,
    reset_BT: Tensor | None = None,
    backend: str | None = None,
) -> States:
    """States after every position, (B, T, D) each, from those before the first: h and c for cell `lstm`, h for `gru`.

    advance: the states after one position, from `Layers.projected` and those before it. Raises UserError where an explicit backend
    cannot serve.
    """
    candidates: dict[str, backends.Refusal] = {"triton": partial(multiplicative_triton.refusal, x_BTD), "torch": lambda: None}
    if backends.choose(f"input_multiplicative_{cell}", candidates, backend) == "torch":
        return loop(advance, layers.projected(x_BTD), states, reset_BT)
    projected_BTE = torch.cat([layers.factor(x_BTD), layers.into.bias.expand(*x_BTD.shape[:2], -1)], -1)
    return multiplicative_triton.run(cell, projected_BTE, layers.recurrent.weight, states, reset_BT, x_BTD, layers.into.weight)
