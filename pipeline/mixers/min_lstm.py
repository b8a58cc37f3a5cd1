"""Minimal long short-term memory (Feng et al. 2024, "Were RNNs all we needed?", arXiv 2410.01201, section 3.2).

Notation: B = batch size, T = sequence length, D = width; f = forget gate, i = input gate, c = candidate (the paper's h with a tilde), h =
hidden state.

Recurrent form, W of shape (3 D, D) in the order i, f, c:

    i, f = sigmoid(W x_t + b)   c = W x_t + b     or g(W x_t + b), positive, as in the paper's log-space form
    h_t = f / (f + i) h_{t-1} + i / (f + i) c     the two weights sum to one
    y_t = h_t

Parallel form: `gated_scan`, since neither gates nor candidate depend on the state. It computes h rather than log h, so h may have any sign,
and g is needed only to reproduce the positive states of the log-space form; h starts at zero in both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops.gate_init import init_gates
from pipeline.ops.minimal_cells import candidate, scan_by_rows, separately


class MinLSTM(HiddenMixer):
    """One layer of D units."""

    def __init__(self, config: config.MinLstm, width: int) -> None:
        super().__init__(width)
        self.positive = config.candidate == "positive"
        self.input = nn.Linear(width, 3 * width)
        init_gates(self.input.bias, None, config, keep=slice(width, 2 * width), write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        h, outputs = x_TD.new_zeros(self.width), []
        for x in x_TD:
            i, f, c = self.input(x).chunk(3)
            i, f = torch.sigmoid(i), torch.sigmoid(f)
            h = f / (f + i) * h + i / (f + i) * candidate(c, self.positive)
            outputs.append(h)
        return torch.stack(outputs)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decay and the input term; f / (f + i) = sigmoid(log f - log i), which is defined even if both are zero.

        The input weight is computed as sigmoid(log i - log f): one minus the decay would cancel where it is close to zero.
        """
        i, f, c = separately(self.input, x)
        ratio = functional.softplus(-i) - functional.softplus(-f)
        return torch.sigmoid(ratio), torch.sigmoid(-ratio) * candidate(c, self.positive)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute one step of the recurrence."""
        a_BD, u_BD = self.gates(projected_BP)
        return torch.addcmul(u_BD, a_BD, h_BD)

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Return the state after every position."""
        return scan_by_rows(self.gates, x_BTD, h_BD, reset_BT)
