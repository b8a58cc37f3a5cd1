"""Initialisation of gate biases and recurrent matrices, for mixers whose state decays through a sigmoid gate.

A gate that keeps a fraction f of the state per step has a time constant of 1 / (1 - f) steps; with zero input, f = sigmoid(b).
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

OPEN = 3.0
"""Bias of a gate that is open at initialisation, at 0.95."""


class GateInit(Protocol):
    """Config fields for the initialisation of gates."""

    @property
    def init(self) -> str:
        """default, forget_bias or chrono."""
        ...

    @property
    def forget_bias(self) -> float:
        """Bias of the forget gate."""
        ...

    @property
    def horizon(self) -> int:
        """Largest time constant in steps."""
        ...


class RecurrentInit(Protocol):
    """Config field for the initialisation of recurrent matrices."""

    @property
    def recurrent_init(self) -> str:
        """uniform or orthogonal."""
        ...


def weights_of(layer: nn.RNNBase) -> list[Tensor]:
    """Return a layer's matrices W and U, stacked over gates, and their two bias vectors."""
    return cast("list[Tensor]", layer.all_weights[0])


@torch.no_grad()
def init_gates(bias: Tensor, other_bias: Tensor | None, config: GateInit, keep: slice | None, write: slice | None) -> None:
    """Initialise the bias vectors of a recurrent layer in place by `config.init`; `default` leaves torch's uniform initialisation.

    keep: slice of the forget gate, None if that is 1 - write; write: slice of the input gate, None if that is 1 - keep.
    forget_bias: the forget gate's bias is set to the given value (Jozefowicz et al. 2015); for 1 - write, so that it is sigmoid of that value.
    chrono: time constants uniform in 2..horizon, with the opposite bias for the input gate (Tallec & Ollivier 2018, equation 16).
    All other biases are zero, as is the second bias vector of torch's layers, which is added to the first.
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
def init_recurrence(weight: Tensor, config: RecurrentInit) -> None:
    """Initialise the recurrent matrices of all gates, stacked to (G D, D), by `config.recurrent_init`; `uniform` leaves torch's.

    orthogonal: a random orthogonal matrix per gate, which preserves the norm of the state (Saxe et al. 2014).
    """
    if config.recurrent_init == "orthogonal":
        for gate in weight.split(weight.shape[1]):
            nn.init.orthogonal_(gate)


def slow_biases(shape: torch.Size, horizon: int) -> Tensor:
    """Sample biases of input gates of a state that keeps 1 - write: time constants uniform in 2..horizon steps; sampled on the CPU."""
    return -torch.log(torch.empty(shape, device="cpu").uniform_(1, horizon - 1))
