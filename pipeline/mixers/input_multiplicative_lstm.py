"""LSTM whose input is m * x: the multiplicative LSTM of a study of such variants, included to reproduce it.

Notation: B = batch size, T = sequence length, D = width; i = input gate, f = forget gate, g = candidate, o = output gate, h = hidden state,
c = cell state.

Recurrent form, * elementwise, W and U of shape (4 D, D) in the order i, f, g, o:

    m = W_m x_t + U_m h_{t-1} + b_m               v = m * x_t
    i, f, o = sigmoid(W v + U h_{t-1} + b)        g = tanh(W v + U h_{t-1} + b)
    c_t = f * c_{t-1} + i * g                     h_t = o * tanh(c_t)          y_t = h_t

All parameters are initialised uniformly within ±1 / sqrt(D), as in the study: m is then small, so at first the cell hardly sees its input.
Not the cell of Krause et al. (2016), which is `multiplicative_lstm`. There is no parallel form; `pipeline.ops.multiplicative` runs whole
sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.ops.gate_init import init_gates, init_recurrence
from pipeline.ops.loop import States
from pipeline.ops.multiplicative import Layers, input_multiplicative
from pipeline.ops.padding import at_end
from pipeline.ops.state import State, where


class InputMultiplicativeLSTM(Mixer):
    """One layer of D units. State: {"hidden": h, "cell": c}, both of shape (B, D)."""

    def __init__(self, config: config.InputMultiplicativeLstm, width: int) -> None:
        super().__init__(width)
        self.factor = nn.Linear(width, width)  # W_m and b_m
        self.recurrent = nn.Linear(width, 5 * width, bias=False)  # U_m stacked on U
        self.into = nn.Linear(width, 4 * width)
        init_recurrence(self.recurrent.weight, config)
        init_gates(self.into.bias, None, config, keep=slice(width, 2 * width), write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        U_m, U = self.recurrent.weight.split([self.width, 4 * self.width])
        h, c, outputs = x_TD.new_zeros(self.width), x_TD.new_zeros(self.width), []
        for x in x_TD:
            v = (self.factor(x) + U_m @ h) * x
            i, f, g, o = (self.into(v) + U @ h).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        zeros = self.into.weight.new_zeros
        return {"hidden": zeros(batch, self.width), "cell": zeros(batch, self.width)}

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run a whole sequence; see `Mixer.forward`."""
        before = self.initial_state(x_BTD.shape[0]) if state is None else state
        states = (before["hidden"], before["cell"])
        h_BTD, c_BTD = input_multiplicative("lstm", x_BTD, self._layers(), self._advance, states, reset_BT)
        return h_BTD, {"hidden": at_end(h_BTD, length_B, before["hidden"]), "cell": at_end(c_BTD, length_B, before["cell"])}

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Run one position; see `Mixer.step`."""
        h_BD, c_BD = self._advance(self._layers().projected(x_BD), (state["hidden"], state["cell"]))
        new = {"hidden": h_BD, "cell": c_BD}
        return h_BD, new if active_B is None else where(active_B, new, state)

    def _layers(self) -> Layers:
        return Layers(self.factor, self.into, self.recurrent)

    def _advance(self, projected: Tensor, states: States) -> States:
        h_BD, c_BD = states
        (x_BD, of_x_BD), (of_h_BD, gates_BG) = projected.chunk(2, 1), self.recurrent(h_BD).split([self.width, 4 * self.width], 1)
        read_BG = self.into((of_x_BD + of_h_BD) * x_BD)
        i, f, g, o = (read_BG + gates_BG).chunk(4, 1)
        c_BD = torch.sigmoid(f) * c_BD + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_BD), c_BD

    def state_bytes(self, context: int) -> int:
        """2 D numbers, independent of the context."""
        return 2 * self.width * self.into.weight.element_size()
