"""GRU whose input is m * x: the multiplicative GRU of a study of such variants, included to reproduce it.

Notation: B = batch size, T = sequence length, D = width; z = update gate, r = reset gate, n = candidate, h = hidden state.

Recurrent form, * elementwise, W and U of shape (3 D, D) in the order z, r, n:

    m = W_m x_t + U_m h_{t-1} + b_m               v = m * x_t
    z, r = sigmoid(W v + U h_{t-1} + b)           n = tanh(W v + U (r * h_{t-1}) + b)
    h_t = (1 - z) * h_{t-1} + z * n               y_t = h_t

z writes, as in the first version of Cho et al. (2014). All parameters are initialised uniformly within ±1 / sqrt(D), as in the study: m
is then small, so at first the cell hardly sees its input. There is no parallel form; `pipeline.ops.multiplicative` runs whole sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops.gate_init import init_gates, init_recurrence
from pipeline.ops.loop import States
from pipeline.ops.multiplicative import Layers, input_multiplicative


class InputMultiplicativeGRU(HiddenMixer):
    """One layer of D units."""

    def __init__(self, config: config.InputMultiplicativeGru, width: int) -> None:
        super().__init__(width)
        self.factor = nn.Linear(width, width)  # W_m and b_m
        self.recurrent = nn.Linear(width, 4 * width, bias=False)  # U_m stacked on U
        self.into = nn.Linear(width, 3 * width)
        init_recurrence(self.recurrent.weight, config)
        init_gates(self.into.bias, None, config, keep=None, write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
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

    def projected(self, x: Tensor) -> Tensor:
        """Return x and W_m x + b_m; the product with W depends on h."""
        return self._layers().projected(x)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute one step of the recurrence."""
        return self._advance(projected_BP, (h_BD,))[0]

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Return the state after every position, computed by the chosen backend."""
        return input_multiplicative("gru", x_BTD, self._layers(), self._advance, (h_BD,), reset_BT)[0]

    def _layers(self) -> Layers:
        return Layers(self.factor, self.into, self.recurrent)

    def _advance(self, projected: Tensor, states: States) -> States:
        (h_BD,), width = states, self.width
        of_mzr, of_n = self.recurrent.weight.split([3 * width, width])
        (x_BD, of_x_BD), (of_h_BD, h_gates) = projected.chunk(2, 1), functional.linear(h_BD, of_mzr).split([width, 2 * width], 1)
        x_gates, x_n = self.into((of_x_BD + of_h_BD) * x_BD).split([2 * width, width], 1)
        z, r = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
        return (torch.lerp(h_BD, torch.tanh(x_n + functional.linear(r * h_BD, of_n)), z),)
