"""How gates start, for mixers that keep their state through a sigmoid: their biases and their recurrent matrices.

A gate that keeps a share f of the state at each step has a time constant of 1 / (1 - f) steps; f = sigmoid(b) at rest.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

OPEN = 3.0
"""Bias of a gate that starts open, at 0.95."""


class GateStart(Protocol):
    """The fields of an entry that say how gates start."""

    @property
    def init(self) -> str:
        """default, forget_bias or chrono."""
        ...

    @property
    def forget_bias(self) -> float:
        """Bias of the keeping gate."""
        ...

    @property
    def horizon(self) -> int:
        """Steps."""
        ...


class RecurrentStart(Protocol):
    """The field of an entry that says how recurrent matrices start."""

    @property
    def recurrent_init(self) -> str:
        """uniform or orthogonal."""
        ...


def weights_of(layer: nn.RNNBase) -> list[Tensor]:
    """A layer's matrices W and U, of all gates stacked, and the two bias vectors that go with them."""
    return cast("list[Tensor]", layer.all_weights[0])


@torch.no_grad()
def start_gates(bias: Tensor, other_bias: Tensor | None, config: GateStart, keep: slice | None, write: slice | None) -> None:
    """Set the bias vectors of a recurrent layer by `config.init`, in place; `default` leaves torch's uniform start.

    keep: the gate whose sigmoid keeps the state, None where that is 1 - write; write: the gate that lets the input in, None where that
    is 1 - keep. forget_bias: the keeping gate starts at the value given (Jozefowicz et al. 2015), 1 - write as sigmoid of that value.
    chrono: time constants drawn evenly from 2..horizon, and the writing gate their mirror image (Tallec & Ollivier 2018, equation 16).
    Every other bias is zero, as is the second vector, which torch's layers have: it adds the two up.
    """
    if config.init == "default":
        return
    bias.zero_()
    if other_bias is not None:
        other_bias.zero_()
    kept = torch.empty_like(bias[write if keep is None else keep])
    kept = kept.fill_(config.forget_bias) if config.init == "forget_bias" else torch.log(kept.uniform_(1, config.horizon - 1))
    if keep is not None:
        bias[keep] = kept
    if write is not None and (keep is None or config.init == "chrono"):
        bias[write] = -kept


@torch.no_grad()
def start_recurrence(weight: Tensor, config: RecurrentStart) -> None:
    """Set the recurrent matrices of all gates, stacked in rows (G D, D), by `config.recurrent_init`; `uniform` leaves torch's start.

    orthogonal: a random rotation for each gate, which neither shrinks nor stretches the state (Saxe et al. 2014).
    """
    if config.recurrent_init == "orthogonal":
        for gate in weight.split(weight.shape[1]):
            nn.init.orthogonal_(gate)


def slow_biases(shape: torch.Size, horizon: int) -> Tensor:
    """Biases of writing gates, where the state keeps 1 - write: time constants drawn evenly from 2..horizon steps, on the CPU."""
    return -torch.log(torch.empty(shape, device="cpu").uniform_(1, horizon - 1))
