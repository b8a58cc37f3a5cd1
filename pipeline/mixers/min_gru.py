"""Minimal gated recurrent unit (Feng et al. 2024, "Were RNNs all we needed?", arXiv 2410.01201, section 3.1).

Notation: B = batch size, T = sequence length, D = width; z = gate, c = candidate (the paper's h with a tilde), h = hidden state.

Recurrent form, W of shape (2 D, D) in the order z, c:

    z = sigmoid(W x_t + b)      c = W x_t + b     or g(W x_t + b), positive, as in the paper's log-space form
    h_t = (1 - z) h_{t-1} + z c                   z is the update gate
    y_t = h_t

Parallel form: `gated_scan`, since neither gate nor candidate depends on the state. It computes h rather than log h, so h may have any sign,
and g is needed only to reproduce the positive states of the log-space form; h starts at zero in both.

Backends. `torch`: products and gates in torch, then the scan. `c`: everything in `min_gru.c`, on the CPU.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops import backends, min_gru_c, native
from pipeline.ops.gate_init import init_gates
from pipeline.ops.minimal_cells import candidate, scan_by_rows, separately


class MinGRU(HiddenMixer):
    """One layer of D units."""

    def __init__(self, config: config.MinGru, width: int) -> None:
        super().__init__(width)
        self.positive = config.candidate == "positive"
        self.input = nn.Linear(width, 2 * width)
        init_gates(self.input.bias, None, config, keep=None, write=slice(0, width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        h, outputs = x_TD.new_zeros(self.width), []
        for x in x_TD:
            z, c = self.input(x).chunk(2)
            z = torch.sigmoid(z)
            h = (1 - z) * h + z * candidate(c, self.positive)
            outputs.append(h)
        return torch.stack(outputs)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - z and z c."""
        z, c = separately(self.input, x)
        z = torch.sigmoid(z)
        return 1 - z, z * candidate(c, self.positive)

    def sequence(self, x_BTD: Tensor, h_BD: Tensor, reset_BT: Tensor | None) -> Tensor:
        """Return the state after every position, computed by the chosen backend."""
        candidates: dict[str, backends.UnavailableReason] = {
            "c": partial(native.unavailable_reason, min_gru_c.SOURCE, x_BTD),
            "torch": lambda: None,
        }
        if backends.choose("min_gru", candidates) == "torch":
            return scan_by_rows(self.gates, x_BTD, h_BD, reset_BT)
        return min_gru_c.run(x_BTD, self.input.weight, self.input.bias, h_BD, reset_BT, self.positive)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute one step of the recurrence."""
        a_BD, u_BD = self.gates(projected_BP)
        return torch.addcmul(u_BD, a_BD, h_BD)
