"""Gated recurrent unit (Cho et al. 2014), in the form of cuDNN and torch.

Notation: B = batch size, T = sequence length, D = width; r = reset gate, z = update gate, n = candidate, h = hidden state.

Recurrent form, W and U of shape (3 D, D) in the order r, z, n:

    r, z = sigmoid(W x_t + b + U h_{t-1} + c)
    n = tanh(W x_t + b + r (U h_{t-1} + c))       reset after the product, so one product serves all three
    h_t = (1 - z) n + z h_{t-1}                   z keeps the state; in the paper's first version z and 1 - z are swapped
    y_t = h_t

There is no parallel form. A whole sequence uses torch's kernel; a single step computes the cell with the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops.gate_init import init_gates, init_recurrence, weights_of


class GRU(HiddenMixer):
    """One layer of D GRU units."""

    def __init__(self, config: config.Gru, width: int) -> None:
        super().__init__(width)
        self.layer = nn.GRU(width, width, batch_first=True)
        _, recurrent, bias, other_bias = weights_of(self.layer)
        init_recurrence(recurrent, config)
        init_gates(bias, other_bias, config, keep=slice(width, 2 * width), write=None)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        (W, U, b, c), h, outputs = weights_of(self.layer), x_TD.new_zeros(self.width), []
        for x in x_TD:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = (W @ x + b).chunk(3), (U @ h + c).chunk(3)
            r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
            n = torch.tanh(x_n + r * h_n)
            h = (1 - z) * n + z * h
            outputs.append(h)
        return torch.stack(outputs)

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Use torch's kernel if no episode starts inside the sequence, else the loop."""
        if reset_BT is not None and bool(reset_BT.any()):
            return self.loop(x_BTD, h_BD, reset_BT)
        return self.layer(x_BTD, h_BD.unsqueeze(0))[0]

    def projected(self, x: Tensor) -> Tensor:
        """Compute W x + b for r, z and n."""
        into, _, bias, _ = weights_of(self.layer)
        return functional.linear(x, into, bias)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute gates and candidate by one product, and the new state."""
        _, weight, _, bias = weights_of(self.layer)
        recurrent = functional.linear(h_BD, weight, bias)
        (x_gates, x_n), (h_gates, h_n) = (both.split([2 * self.width, self.width], 1) for both in (projected_BP, recurrent))
        r, z = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
        return torch.lerp(torch.tanh(x_n + r * h_n), h_BD, z)
