"""Multiplicative gated recurrent unit: the factored product of Krause et al. (2016) in the cell of Cho et al. (2014).

Notation: B = batch size, T = sequence length, D = width; z = update gate, r = reset gate, n = candidate, h = hidden state.

Recurrent form, * elementwise, W and U of shape (3 D, D) in the order z, r, n:

    m = (W_m x_t) * (U_m h_{t-1})                 no bias: the input selects the transition by scaling D factors
    z, r = sigmoid(W x_t + U m + b)               n = tanh(W x_t + U (r * m) + b)
    h_t = (1 - z) * h_{t-1} + z * n               y_t = h_t

z writes, as in the paper's first version; the state is h, not m. This cell is from no paper; it is defined by analogy with the LSTM.
There is no parallel form; `pipeline.ops.multiplicative` runs whole sequences. With W_m x = 1 and U_m the identity it is Cho's GRU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops.gate_init import init_gates, init_recurrence
from pipeline.ops.multiplicative import Weights, gru_step, multiplicative


class MultiplicativeGRU(HiddenMixer):
    """One layer of D units; m has D channels too.

    `recurrent_init: orthogonal` also makes W_m orthogonal, so that for inputs of unit variance m is on average as large as h.
    """

    def __init__(self, config: config.MultiplicativeGru, width: int) -> None:
        super().__init__(width)
        self.into = nn.Linear(width, 4 * width, bias=False)  # W_m stacked on W
        self.factor = nn.Linear(width, width, bias=False)
        self.recurrent = nn.Linear(width, 3 * width)
        for weight in (self.into.weight[:width], self.factor.weight, self.recurrent.weight):
            init_recurrence(weight, config)
        init_gates(self.recurrent.bias, None, config, keep=None, write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        W_m, W = self.into.weight.split([self.width, 3 * self.width])
        U_m, (U_z, U_r, U_n), b = self.factor.weight, self.recurrent.weight.chunk(3), self.recurrent.bias
        h, outputs = x_TD.new_zeros(self.width), []
        for x in x_TD:
            m = (W_m @ x) * (U_m @ h)
            x_z, x_r, x_n = (W @ x + b).chunk(3)
            z, r = torch.sigmoid(x_z + U_z @ m), torch.sigmoid(x_r + U_r @ m)
            n = torch.tanh(x_n + U_n @ (r * m))
            h = (1 - z) * h + z * n
            outputs.append(h)
        return torch.stack(outputs)

    def projected(self, x: Tensor) -> Tensor:
        """Return W_m x and W x + b."""
        return self._weights().project(x)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute one step of the recurrence."""
        return gru_step(self._weights(), projected_BP, (h_BD,))[0]

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Return the state after every position, computed by the chosen backend."""
        return multiplicative("gru", x_BTD, self._weights(), (h_BD,), reset_BT)[0]

    def _weights(self) -> Weights:
        return Weights(self.into.weight, self.factor.weight, self.recurrent.weight, self.recurrent.bias)
