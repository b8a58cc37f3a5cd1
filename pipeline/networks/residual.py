"""Residual connections of mixers and feed-forward layers: addition, none, or a gate.

Notation: D = width, x = residual stream, y = relu of the layer's output. The gate of GTrXL (Parisotto et al. 2020, "Stabilizing
transformers for reinforcement learning", arXiv 1910.06764, section 3.2), a gated recurrent unit over the depth of the network:

    r = sigmoid(W_r y + U_r x)      z = sigmoid(W_z y + U_z x - b_g)      g = tanh(W_g y + U_g (r * x))
    out = (1 - z) * x + z * g

b_g is initialised to 2, so z is 0.12 for zero input and the stream passes almost unchanged. The six matrices are initialised orthogonally.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INITIAL_BIAS = 2.0
"""Initial value of b_g."""


class NoResidual(nn.Module):
    """No residual connection."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y."""
        return y


class Residual(nn.Module):
    """A residual connection."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y."""
        return x + y


class GRUGate(nn.Module):
    """The gate of GTrXL. `gain`: gain of the orthogonal initialisation of its matrices."""

    def __init__(self, width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.W_rzg = nn.Linear(width, 3 * width, bias=False)
        self.U_rz = nn.Linear(width, 2 * width, bias=False)
        self.U_g = nn.Linear(width, width, bias=False)
        self.b_g = nn.Parameter(torch.full((width,), INITIAL_BIAS))
        for layer in (self.W_rzg, self.U_rz, self.U_g):
            for matrix_DD in layer.weight.split(width):
                nn.init.orthogonal_(matrix_DD, gain)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the new residual stream, for any number of positions."""
        y_r, y_z, y_g = self.W_rzg(torch.relu(y)).chunk(3, -1)
        x_r, x_z = self.U_rz(x).chunk(2, -1)
        z = torch.sigmoid(y_z + x_z - self.b_g)
        g = torch.tanh(y_g + self.U_g(torch.sigmoid(y_r + x_r) * x))
        return torch.lerp(x, g, z)


def make_residual(residual: bool | str, width: int, gain: float = 1.0) -> nn.Module:
    """Return the module for a network's `residual`: true, false or gru."""
    if residual == "gru":
        return GRUGate(width, gain)
    return Residual() if residual else NoResidual()
