"""How gates start, for mixers that keep their state through a sigmoid: their biases and their recurrent matrices.

A gate that keeps a share f of the state at each step has a time constant of 1 / (1 - f) steps; f = sigmoid(b) at rest.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pipeline.config.mixers import Gru, InputMultiplicativeGru, InputMultiplicativeLstm, Lstm, MultiplicativeGru, MultiplicativeLstm

Gated = Gru | InputMultiplicativeGru | InputMultiplicativeLstm | Lstm | MultiplicativeGru | MultiplicativeLstm


def weights_of(layer: nn.LSTM | nn.GRU) -> list[Tensor]:
    """A layer's matrices W and U, of all gates stacked, and the two bias vectors that go with them."""
    return cast("list[Tensor]", layer.all_weights[0])


@torch.no_grad()
def start_gates(bias: Tensor, other_bias: Tensor | None, config: Gated, keep: slice, write: slice | None) -> None:
    """Set both bias vectors of a recurrent layer, or its only one, by `config.init`, in place; `default` leaves torch's uniform start.

    keep: the gate whose sigmoid keeps the state; write: the gate that lets the input in, None where it is 1 - keep.
    forget_bias: the keeping gate starts at the value given (Jozefowicz et al. 2015). chrono: time constants drawn evenly from
    2..horizon, and the writing gate their mirror image (Tallec & Ollivier 2018, equation 16). Every other bias is zero, as is the
    second vector: torch adds the two up.
    """
    if config.init == "default":
        return
    bias.zero_()
    if other_bias is not None:
        other_bias.zero_()
    if config.init == "forget_bias":
        bias[keep] = config.forget_bias
        return
    bias[keep] = torch.log(torch.empty_like(bias[keep]).uniform_(1, config.horizon - 1))
    if write is not None:
        bias[write] = -bias[keep]


@torch.no_grad()
def start_recurrence(weight: Tensor, config: Gated) -> None:
    """Set the recurrent matrices of all gates, stacked in rows (G D, D), by `config.recurrent`; `uniform` leaves torch's start.

    orthogonal: a random rotation for each gate, which neither shrinks nor stretches the state (Saxe et al. 2014).
    """
    if config.recurrent == "orthogonal":
        for gate in weight.split(weight.shape[1]):
            nn.init.orthogonal_(gate)


@torch.no_grad()
def start_writing_gate(bias: Tensor, config: Gated, write: slice) -> None:
    """As `start_gates` for a cell that keeps the share 1 - sigmoid(b) = sigmoid(-b) of its state, so with the sign turned round."""
    start_gates(bias, None, config, keep=write, write=None)
    bias[write] *= -1
