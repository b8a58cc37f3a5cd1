"""Token mixing of MLP-Mixer (Tolstikhin et al. 2021), with the SwiGLU (Shazeer 2020) of the Tiny Recursive Model (Jolicoeur-Martineau 2025).

Notation: B = batch size, T = sequence length, D = width, I = inner width.

    y_d = V (silu(G x_d) * (U x_d))        x_d: channel d at all T positions; G and U (I, T), V (T, I), the same for every channel

I is 2/3 `expansion` T, rounded up to a multiple of `multiple_of`. G and U are stored as one matrix. The weights are for rows of T positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import mixers as config
from pipeline.mixers.base import WholeRowMixer
from pipeline.ops.init import lecun_normal_
from pipeline.ops.padding import is_ragged
from pipeline.ops.swiglu import swiglu


class TokenMixing(WholeRowMixer):
    """A feed-forward layer along the positions of rows of `cells` positions."""

    def __init__(self, config: config.TokenMixing, width: int, cells: int) -> None:
        super().__init__(width)
        inner = math.ceil(max(1, round(2 / 3 * config.expansion * cells)) / config.multiple_of) * config.multiple_of
        self.cells = cells
        self.into = nn.Linear(cells, 2 * inner, bias=False)
        lecun_normal_(self.into.weight)
        self.out = nn.Linear(inner, cells, bias=False)
        lecun_normal_(self.out.weight)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equation above, one channel at a time."""
        gate_IT, up_IT = self.into.weight.chunk(2)
        channels = [self.out.weight @ (functional.silu(gate_IT @ x_T) * (up_IT @ x_T)) for x_T in x_TD.unbind(1)]
        return torch.stack(channels, 1)

    def mix(self, x_BTD: Tensor, length_B: Tensor | None) -> Tensor:
        """Mix all channels at once; see `WholeRowMixer.mix`. Rows are not padded."""
        assert x_BTD.shape[1] == self.cells and not is_ragged(length_B, self.cells), f"rows of {self.cells} positions"
        return self.out(swiglu(self.into(x_BTD.mT))).mT

    def extra_repr(self) -> str:
        """Shown by print(network)."""
        return f"{super().extra_repr()}, cells={self.cells}"
