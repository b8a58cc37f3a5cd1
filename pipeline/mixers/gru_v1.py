"""Gated recurrent unit in its first form (Cho et al. 2014, arXiv 1406.1078v1), slower than the later one because of its reset gate.

Notation: B = batch size, T = sequence length, D = width; r = reset gate, z = update gate, n = candidate, h = hidden state.

Recurrent form, W of shape (3 D, D) in the order r, z, n; U of shape (2 D, D) for the gates and (D, D) for the candidate:

    r, z = sigmoid(W x_t + b + U h_{t-1})
    n = tanh(W x_t + b + U (r h_{t-1}))           reset before the product, so two products in sequence
    h_t = (1 - z) h_{t-1} + z n                   z writes; in cuDNN's form it keeps the state
    y_t = h_t

There is no parallel form, and torch has no kernel for this version.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import mixers as config
from pipeline.mixers.base import HiddenMixer
from pipeline.ops.gate_init import init_gates, init_recurrence


class GRUv1(HiddenMixer):
    """One layer of D units."""

    def __init__(self, config: config.GruV1, width: int) -> None:
        super().__init__(width)
        self.input = nn.Linear(width, 3 * width)
        self.gates = nn.Linear(width, 2 * width, bias=False)
        self.candidate = nn.Linear(width, width, bias=False)
        for recurrent in (self.gates, self.candidate):
            init_recurrence(recurrent.weight, config)
        init_gates(self.input.bias, None, config, keep=None, write=slice(width, 2 * width))

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equations above; see `Mixer.recurrence`."""
        (U_r, U_z), U_n = self.gates.weight.chunk(2), self.candidate.weight
        h, outputs = x_TD.new_zeros(self.width), []
        for x in x_TD:
            x_r, x_z, x_n = self.input(x).chunk(3)
            r, z = torch.sigmoid(x_r + U_r @ h), torch.sigmoid(x_z + U_z @ h)
            n = torch.tanh(x_n + U_n @ (r * h))
            h = (1 - z) * h + z * n
            outputs.append(h)
        return torch.stack(outputs)

    def projected(self, x: Tensor) -> Tensor:
        """Compute W x + b for r, z and n."""
        return self.input(x)

    def advance(self, projected_BP: Tensor, h_BD: Tensor) -> Tensor:
        """Compute the gates, then the candidate and the new state."""
        gates_BP, n_BD = projected_BP.split([2 * self.width, self.width], 1)
        r_BD, z_BD = torch.sigmoid(torch.addmm(gates_BP, h_BD, self.gates.weight.t())).chunk(2, 1)
        n_BD = torch.tanh(torch.addmm(n_BD, r_BD * h_BD, self.candidate.weight.t()))
        return torch.lerp(h_BD, n_BD, z_BD)
