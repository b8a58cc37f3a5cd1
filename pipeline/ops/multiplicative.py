"""The four multiplicative cells over whole sequences, as operations with backends. The two cells after Krause et al. (2016):

    m_t = (W_m x_t) * (U_m h_{t-1})        h_{t-1} = 0 where t starts a new episode

    LSTM   i, f, o = sigmoid(W x_t + b + U m_t)      g = tanh(W x_t + b + U m_t)
           c_t = f * c_{t-1} + i * g                 h_t = o * tanh(c_t)
    GRU    z, r = sigmoid(W x_t + b + U m_t)         n = tanh(W x_t + b + U (r * m_t))
           h_t = (1 - z) * h_{t-1} + z * n

Notation: B = batch size, T = sequence length, D = width, G = rows of the gates' matrices (4 D in the order i, f, g, o; 3 D in the order
z, r, n), E = D + G, S = T + 1. In the code u is W_m x and q is U_m h.

Backends. `torch`: a loop under autograd, for any device and dtype. `c`: on the CPU, one operation with its own gradient, computed by
`multiplicative.c`. Its loop computes only the recurrent products; input projections before it and weight gradients after it are larger
products over a block of positions that is still in cache. `triton`: the same on CUDA, with the whole loop in one kernel.

The equations of the two cells that read m * x are in the files of their mixers; their backends are `torch` and `triton`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.ops import backends, multiplicative_c, multiplicative_triton, native
from pipeline.ops.loop import States, loop


class Weights(NamedTuple):
    """Weights of one cell: W_m stacked on W, U_m, U and b."""

    into_ED: Tensor
    factor_DD: Tensor
    recurrent_GD: Tensor
    bias_G: Tensor

    def project(self, x: Tensor) -> Tensor:
        """Return W_m x and W x + b, concatenated along the last dimension."""
        return functional.linear(x, self.into_ED, self.bias_E)

    @property
    def bias_E(self) -> Tensor:
        """Zeros for u, which has no bias, then b."""
        return functional.pad(self.bias_G, (len(self.factor_DD), 0))


def lstm_step(weights: Weights, projected_BE: Tensor, states: States) -> States:
    """Return h and c after one position, given the output of `Weights.project` and the previous h and c."""
    h_BD, c_BD = states
    m_BD, gates_BG = _factor(weights, projected_BE, h_BD)
    i, f, g, o = torch.addmm(gates_BG, m_BD, weights.recurrent_GD.t()).chunk(4, 1)
    c_BD = torch.sigmoid(f) * c_BD + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c_BD), c_BD


def gru_step(weights: Weights, projected_BE: Tensor, states: States) -> States:
    """Return h after one position, given the output of `Weights.project` and the previous h."""
    (h_BD,) = states
    m_BD, gates_BG = _factor(weights, projected_BE, h_BD)
    width = h_BD.shape[1]
    (of_gates, of_n), (x_gates, x_n) = weights.recurrent_GD.split([2 * width, width]), gates_BG.split([2 * width, width], 1)
    z, r = torch.sigmoid(torch.addmm(x_gates, m_BD, of_gates.t())).chunk(2, 1)
    return (torch.lerp(h_BD, torch.tanh(torch.addmm(x_n, r * m_BD, of_n.t())), z),)


def _factor(weights: Weights, projected_BE: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
    u_BD, gates_BG = projected_BE.split([h_BD.shape[1], len(weights.recurrent_GD)], 1)
    return u_BD * functional.linear(h_BD, weights.factor_DD), gates_BG


STEPS = {"lstm": lstm_step, "gru": gru_step}


def multiplicative(
    cell: str, x_BTD: Tensor, weights: Weights, states: States, reset_BT: Tensor | None = None, backend: str | None = None
) -> States:
    """Return the states after every position, (B, T, D) each, given the initial ones: h and c for cell `lstm`, h for `gru`.

    Differentiable in every float input; only once unless the backend is `torch`. Raises UserError if an explicit backend is not available.
    """
    candidates: dict[str, backends.UnavailableReason] = {
        "c": partial(native.unavailable_reason, multiplicative_c.SOURCE, x_BTD),
        "triton": partial(multiplicative_triton.unavailable_reason, x_BTD),
        "torch": lambda: None,
    }
    chosen = backends.choose(f"multiplicative_{cell}", candidates, backend)
    if chosen == "torch":
        return loop(partial(STEPS[cell], weights), weights.project(x_BTD), states, reset_BT)
    if chosen == "triton":
        recurrent_ED = torch.cat([weights.factor_DD, weights.recurrent_GD])
        return multiplicative_triton.run(cell, weights.project(x_BTD), recurrent_ED, states, reset_BT)
    tensors = (x_BTD, weights.into_ED, weights.bias_E, weights.factor_DD, weights.recurrent_GD)
    return multiplicative_c.run(cell, tensors, states, reset_BT)


class Layers(NamedTuple):
    """Layers of one cell: W_m and b_m; W and b; U_m stacked on U."""

    factor: nn.Linear
    into: nn.Linear
    recurrent: nn.Linear

    def projected(self, x: Tensor) -> Tensor:
        """Return x and W_m x + b_m, concatenated along the last dimension; the product with W depends on h."""
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
    """Return the states after every position, (B, T, D) each, given the initial ones: h and c for cell `lstm`, h for `gru`.

    advance: maps the output of `Layers.projected` at one position and the previous states to the new ones. Raises UserError if an explicit
    backend is not available.
    """
    candidates: dict[str, backends.UnavailableReason] = {
        "triton": partial(multiplicative_triton.unavailable_reason, x_BTD),
        "torch": lambda: None,
    }
    if backends.choose(f"input_multiplicative_{cell}", candidates, backend) == "torch":
        return loop(advance, layers.projected(x_BTD), states, reset_BT)
    projected_BTE = torch.cat([layers.factor(x_BTD), layers.into.bias.expand(*x_BTD.shape[:2], -1)], -1)
    return multiplicative_triton.run(cell, projected_BTE, layers.recurrent.weight, states, reset_BT, x_BTD, layers.into.weight)
