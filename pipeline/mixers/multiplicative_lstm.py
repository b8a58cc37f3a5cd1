"""Multiplicative long short-term memory (Krause et al. 2016, equations 9 to 13).

Notation: B = batch size, T = sequence length, D = width; i = input gate, f = forget gate, g = candidate, o = output gate, h = hidden state,
c = cell state.

Recurrent form, * elementwise, W and U of shape (4 D, D) in the order i, f, g, o:

    m = (W_m x_t) * (U_m h_{t-1})                 no bias: the input selects the transition by scaling D factors
    i, f, o = sigmoid(W x_t + U m + b)            g = tanh(W x_t + U m + b)
    c_t = f * c_{t-1} + i * g                     h_t = o * tanh(c_t)          y_t = h_t

There is no parallel form; `pipeline.ops.multiplicative` runs whole sequences. With W_m x = 1 and U_m the identity it is the LSTM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.gate_init import init_gates, init_recurrence
from pipeline.ops.multiplicative import Weights, lstm_step, multiplicative
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where


class MultiplicativeLSTM(Mixer):
    """One layer of D units; m has D channels too. State: {"hidden": h, "cell": c}, both of shape (B, D).

    `recurrent_init: orthogonal` also makes W_m orthogonal, so that for inputs of unit variance m is on average as large as h.
    """

    def __init__(self, config: config.MultiplicativeLstm, width: int) -> None:
        super().__init__(width)
        self.into = nn.Linear(width, 5 * width, bias=False)  # W_m stacked on W
        self.factor = nn.Linear(width, width, bias=False)
        self.recurrent = nn.Linear(width, 4 * width)
        for weight in (self.into.weight[:width], self.factor.weight, self.recurrent.weight):
            init_recurrence(weight, config)
        init_gates(self.recurrent.bias, None, config, keep=slice(width, 2 * width), write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        W_m, W = self.into.weight.split([self.width, 4 * self.width])
        U_m, U, b = self.factor.weight, self.recurrent.weight, self.recurrent.bias
        h, c, outputs = x_TD.new_zeros(self.width), x_TD.new_zeros(self.width), []
        for x in x_TD:
            m = (W_m @ x) * (U_m @ h)
            i, f, g, o = (W @ x + U @ m + b).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        zeros = self.factor.weight.new_zeros
        return {"hidden": zeros(batch, self.width), "cell": zeros(batch, self.width)}

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run a whole sequence; see `Mixer.forward`."""
        before = self.initial_state(x_BTD.shape[0]) if state is None else state
        h_BTD, c_BTD = multiplicative("lstm", x_BTD, self._weights(), (before["hidden"], before["cell"]), reset_BT)
        return h_BTD, {"hidden": at_end(h_BTD, length_B, before["hidden"]), "cell": at_end(c_BTD, length_B, before["cell"])}

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        weights = self._weights()
        h_BD, c_BD = lstm_step(weights, weights.project(x_BD), (state["hidden"], state["cell"]))
        new = {"hidden": h_BD, "cell": c_BD}
        return h_BD, new if active_B is None else where(active_B, new, state)

    def _weights(self) -> Weights:
        return Weights(self.into.weight, self.factor.weight, self.recurrent.weight, self.recurrent.bias)

    def state_bytes(self, context: int) -> int:
        """2 D numbers, independent of the context."""
        return 2 * self.width * self.factor.weight.element_size()
