"""How a block's outputs join its stream: in their place, added to it, or through a gate.

Letters: D width; x the stream, y what joins it. The gate of GTrXL (Parisotto et al. 2020, "Stabilizing transformers for reinforcement
learning", arXiv 1910.06764, section 3.2), a gated recurrent unit over the depth of the network:

    r = sigmoid(W_r y + U_r x)      z = sigmoid(W_z y + U_z x - b)      c = tanh(W_c y + U_c (r * x))
    out = (1 - z) * x + z * c       where y is relu of what the mixer or feed-forward layer gives

At b = 2, where it starts, z is 0.12 at rest: the stream passes nearly as it is. The six matrices start orthogonal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

START = 2.0
"""Of b."""


class Replaced(nn.Module):
    """Only what joins goes on."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """y."""
        return y


class Added(nn.Module):
    """A residual connection."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y."""
        return x + y


class GruGate(nn.Module):
    """The gate of GTrXL; `gain` is that of its orthogonal matrices at the start."""

    def __init__(self, width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.of_new = nn.Linear(width, 3 * width, bias=False)
        self.of_stream = nn.Linear(width, 2 * width, bias=False)
        self.of_kept = nn.Linear(width, width, bias=False)
        self.bias_D = nn.Parameter(torch.full((width,), START))
        for layer in (self.of_new, self.of_stream, self.of_kept):
            for matrix_DD in layer.weight.split(width):
                nn.init.orthogonal_(matrix_DD, gain)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream after y has joined it; any number of positions."""
        new_r, new_z, new_c = self.of_new(torch.relu(y)).chunk(3, -1)
        stream_r, stream_z = self.of_stream(x).chunk(2, -1)
        z = torch.sigmoid(new_z + stream_z - self.bias_D)
        c = torch.tanh(new_c + self.of_kept(torch.sigmoid(new_r + stream_r) * x))
        return torch.lerp(x, c, z)


def make_join(residual: bool | str, width: int, gain: float = 1.0) -> nn.Module:
    """What `residual` in a network's config stands for; gates start with that orthogonal gain."""
    if residual == "gru":
        return GruGate(width, gain)
    return Added() if residual else Replaced()
