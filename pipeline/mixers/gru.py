"""Gated recurrent unit (Cho et al. 2014), in the form of cuDNN and torch.

Letters: B batch, T time, D width; r reset gate, z update gate, n candidate, h hidden state.

Recurrent form, W and U of shape (3 D, D) in the order r, z, n:

    r, z = sigmoid(W x_t + b + U h_{t-1} + c)
    n = tanh(W x_t + b + r (U h_{t-1} + c))       reset after the product, so that one product serves all three
    h_t = (1 - z) n + z h_{t-1}                   z keeps; the paper's first version has the signs the other way round
    y_t = h_t

There is no parallel form. A whole sequence goes through torch's kernel; a single step does the cell's arithmetic on the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer, at_end
from pipeline.mixers.gates import start_gates, start_recurrence, weights_of
from pipeline.mixers.state import State


class GRU(Mixer):
    """One layer of GRU cells as wide as the network. State: h of shape (B, D)."""

    def __init__(self, config: config.Gru, width: int) -> None:
        super().__init__(width)
        self.layer = nn.GRU(width, width, batch_first=True)
        _, recurrent, bias, other_bias = weights_of(self.layer)
        start_recurrence(recurrent, config)
        start_gates(bias, other_bias, config, keep=slice(width, 2 * width), write=None)

    def initial_state(self, batch: int) -> State:
        """Zero."""
        return weights_of(self.layer)[0].new_zeros(batch, self.width)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, reset_BT: Tensor | None = None, length_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Torch's kernel where no episode starts inside the sequence, else a loop; see `Mixer.forward`."""
        start_BD = self.initial_state(x_BTD.shape[0]) if state is None else state
        if reset_BT is not None and bool(reset_BT.any()):
            y_BTD = self._loop(x_BTD, start_BD, reset_BT)
        else:
            y_BTD, _ = self.layer(x_BTD, start_BD.unsqueeze(0))
        return y_BTD, at_end(y_BTD, length_B, start_BD)

    def _loop(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor) -> Tensor:
        """One position after the other, the input's products done for all at once; `unbind`, because indexing x[:, t] makes the
        backward pass quadratic in time."""
        outputs = []
        for projected, reset_B in zip(self._projected(x_BTD).unbind(1), reset_BT.unsqueeze(-1).unbind(1), strict=True):
            h_BD = self._advance(projected, h_BD.masked_fill(reset_B, 0))
            outputs.append(h_BD)
        return torch.stack(outputs, 1)

    def step(self, x_BD: Tensor, state: State, active_B: Tensor | None = None) -> tuple[Tensor, State]:
        """One position; see `Mixer.step`."""
        h_BD = self._advance(self._projected(x_BD), state)
        return h_BD, h_BD if active_B is None else torch.where(active_B.unsqueeze(1), h_BD, state)

    def _projected(self, x: Tensor) -> Tensor:
        into, _, bias, _ = weights_of(self.layer)
        return functional.linear(x, into, bias)

    def _advance(self, projected: Tensor, h_BD: Tensor) -> Tensor:
        _, weight, _, bias = weights_of(self.layer)
        recurrent = functional.linear(h_BD, weight, bias)
        (x_gates, x_n), (h_gates, h_n) = (both.split([2 * self.width, self.width], 1) for both in (projected, recurrent))
        r, z = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
        return torch.lerp(torch.tanh(x_n + r * h_n), h_BD, z)

    def state_bytes(self, context: int) -> int:
        """D numbers, whatever the context."""
        return self.width * weights_of(self.layer)[0].element_size()
