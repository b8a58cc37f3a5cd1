"""Multiplicative gated recurrent unit: the factored product of Krause et al. (2016) in the cell of Cho et al. (2014).

Notation: B = batch size, T = sequence length, D = width; z = update gate, r = reset gate, n = candidate, h = hidden state.

Recurrent form, * elementwise, W and U of shape (3 D, D) in the order z, r, n:

    m = (W_m x_t) * (U_m h_{t-1})                 no bias: the input chooses the transition, scaling each of D factors
    z, r = sigmoid(W x_t + U m + b)               n = tanh(W x_t + U (r * m) + b)
    h_t = (1 - z) * h_{t-1} + z * n               y_t = h_t

z lets the new in, as in the paper's first version; what is carried on is h, never m. No paper has this cell: it is made by analogy.
There is no parallel form; `pipeline.ops.multiplicative` runs a whole sequence. With W_m x = 1 and U_m the identity it is Cho's GRU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.gate_init import start_gates, start_recurrence
from pipeline.ops.multiplicative import Weights, gru_step, multiplicative
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where


class MultiplicativeGRU(Mixer):
    """One layer as wide as the network, m too. State: h of shape (B, D).

    `recurrent: orthogonal` rotates W_m as well, so that for inputs of unit variance m is on average as large as h.
    """

    def __init__(self, config: config.MultiplicativeGru, width: int) -> None:
        super().__init__(width)
        self.into = nn.Linear(width, 4 * width, bias=False)  # W_m above W
        self.factor = nn.Linear(width, width, bias=False)
        self.recurrent = nn.Linear(width, 3 * width)
        for weight in (self.into.weight[:width], self.factor.weight, self.recurrent.weight):
            start_recurrence(weight, config)
        start_gates(self.recurrent.bias, None, config, keep=None, write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """y_TD of one row, as the formulas above say it; see `Mixer.recurrence`."""
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

    def initial_state(self, batch: int) -> State:
        """Zero."""
        return self.factor.weight.new_zeros(batch, self.width)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`."""
        start_BD = self.initial_state(x_BTD.shape[0]) if state is None else state
        (y_BTD,) = multiplicative("gru", x_BTD, self._weights(), (start_BD,), reset_BT)
        return y_BTD, at_end(y_BTD, length_B, start_BD)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """One position; see `Mixer.step`."""
        weights = self._weights()
        (h_BD,) = gru_step(weights, weights.project(x_BD), (state,))
        return h_BD, h_BD if active_B is None else where(active_B, h_BD, state)

    def _weights(self) -> Weights:
        return Weights(self.into.weight, self.factor.weight, self.recurrent.weight, self.recurrent.bias)

    def state_bytes(self, context: int) -> int:
        """D numbers, whatever the context."""
        return self.width * self.factor.weight.element_size()
