"""Gated recurrent unit that reads m * x: the multiplicative GRU of a study of such variants, kept to reproduce it.

Notation: B = batch size, T = sequence length, D = width; z = update gate, r = reset gate, n = candidate, h = hidden state.

Recurrent form, * elementwise, W and U of shape (3 D, D) in the order z, r, n:

    m = W_m x_t + U_m h_{t-1} + b_m               v = m * x_t
    z, r = sigmoid(W v + U h_{t-1} + b)           n = tanh(W v + U (r * h_{t-1}) + b)
    h_t = (1 - z) * h_{t-1} + z * n               y_t = h_t

z lets the new in, as in the first version of Cho et al. (2014). Every number starts uniform within 1 / sqrt(D), as in the study: m then
is small, so the cell starts nearly blind to its input. There is no parallel form; `pipeline.ops.input_multiplicative` runs a whole
sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.gate_init import start_gates, start_recurrence
from pipeline.ops.input_multiplicative import Layers, input_multiplicative
from pipeline.ops.loop import States
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where


class InputMultiplicativeGRU(Mixer):
    """One layer as wide as the network. State: h of shape (B, D)."""

    def __init__(self, config: config.InputMultiplicativeGru, width: int) -> None:
        super().__init__(width)
        self.factor = nn.Linear(width, width)  # W_m and b_m
        self.recurrent = nn.Linear(width, 4 * width, bias=False)  # U_m above U
        self.into = nn.Linear(width, 3 * width)
        start_recurrence(self.recurrent.weight, config)
        start_gates(self.into.bias, None, config, keep=None, write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """y_TD of one row, as the formulas above say it; see `Mixer.recurrence`."""
        U_m, U_z, U_r, U_n = self.recurrent.weight.chunk(4)
        h, outputs = x_TD.new_zeros(self.width), []
        for x in x_TD:
            v = (self.factor(x) + U_m @ h) * x
            v_z, v_r, v_n = self.into(v).chunk(3)
            z, r = torch.sigmoid(v_z + U_z @ h), torch.sigmoid(v_r + U_r @ h)
            n = torch.tanh(v_n + U_n @ (r * h))
            h = (1 - z) * h + z * n
            outputs.append(h)
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Zero."""
        return self.into.weight.new_zeros(batch, self.width)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`."""
        start_BD = self.initial_state(x_BTD.shape[0]) if state is None else state
        (y_BTD,) = input_multiplicative("gru", x_BTD, self._layers(), self._advance, (start_BD,), reset_BT)
        return y_BTD, at_end(y_BTD, length_B, start_BD)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """One position; see `Mixer.step`."""
        (h_BD,) = self._advance(self._layers().projected(x_BD), (state,))
        return h_BD, h_BD if active_B is None else where(active_B, h_BD, state)

    def _layers(self) -> Layers:
        return Layers(self.factor, self.into, self.recurrent)

    def _advance(self, projected: Tensor, states: States) -> States:
        (h_BD,), width = states, self.width
        of_mzr, of_n = self.recurrent.weight.split([3 * width, width])
        (x_BD, of_x_BD), (of_h_BD, h_gates) = projected.chunk(2, 1), functional.linear(h_BD, of_mzr).split([width, 2 * width], 1)
        x_gates, x_n = self.into((of_x_BD + of_h_BD) * x_BD).split([2 * width, width], 1)
        z, r = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
        return (torch.lerp(h_BD, torch.tanh(x_n + functional.linear(r * h_BD, of_n)), z),)

    def state_bytes(self, context: int) -> int:
        """D numbers, whatever the context."""
        return self.width * self.into.weight.element_size()
