"""Elman network (Elman 1990, "Finding structure in time", Cognitive Science 14): no gates.

Notation: B = batch size, T = sequence length, D = width; h = hidden state.

Recurrent form, W and U of shape (D, D):

    h_t = tanh(W x_t + b + U h_{t-1} + c)         y_t = h_t

There is no parallel form. A whole sequence uses torch's kernel; a single step computes the cell with the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops.gate_init import init_recurrence, weights_of


class RNN(HiddenMixer):
    """One layer of D tanh units."""

    def __init__(self, config: config.Rnn, width: int) -> None:
        super().__init__(width)
        self.layer = nn.RNN(width, width, batch_first=True)
        init_recurrence(weights_of(self.layer)[1], config)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        (W, U, b, c), h, outputs = weights_of(self.layer), x_TD.new_zeros(self.width), []
        for x in x_TD:
            h = torch.tanh(W @ x + b + U @ h + c)
            outputs.append(h)
        return torch.stack(outputs)

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Use torch's kernel if no episode starts inside the sequence, else the loop."""
        if reset_BT is not None and bool(reset_BT.any()):
            return self.loop(x_BTD, h_BD, reset_BT)
        return self.layer(x_BTD, h_BD.unsqueeze(0))[0]

    def projected(self, x: Tensor) -> Tensor:
        """Compute W x + b + c."""
        into, _, bias, other_bias = weights_of(self.layer)
        return functional.linear(x, into, bias + other_bias)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute one step of the recurrence."""
        return torch.tanh(torch.addmm(projected_BP, h_BD, weights_of(self.layer)[1].t()))
