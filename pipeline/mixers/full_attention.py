"""Multi-head softmax attention over all positions of a row (Vaswani et al. 2017) with rotary positions (Su et al. 2021).

Notation: B = batch size, T = sequence length, D = width, H = heads, E = D / H = channels per head; q, k, v = query, key and value.

    y_t = W sum_s softmax_s(R(t) q_t . R(s) k_s / sqrt(E)) v_s        over all positions s of the row, before and after t

R(t) rotates pairs of channels by angles proportional to the position t, so that a product depends on t - s only.
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
from pipeline.ops.rotary import rotate_heads


class FullAttention(WholeRowMixer):
    """Every position attends to every position of its row; padding is masked."""

    def __init__(self, config: config.FullAttention, width: int) -> None:
        super().__init__(width)
        self.heads, self.channels, self.base = config.heads, width // config.heads, config.rope_theta
        assert width % (2 * config.heads) == 0, "the heads divide the width into even parts"
        self.project = nn.Linear(width, 3 * width, bias=False)
        lecun_normal_(self.project.weight)
        self.out = nn.Linear(width, width, bias=False)
        lecun_normal_(self.out.weight)

    def recurrence(self, x_TD: Tensor) -> Tensor:
        """Compute y_TD of one row by the equation above, one position at a time."""
        q, k, v = self._projected(x_TD)
        outputs = []
        for t in range(len(x_TD)):
            weight_TH = torch.softmax((k * q[t]).sum(-1) / math.sqrt(self.channels), 0)
            outputs.append(self.out((weight_TH.unsqueeze(-1) * v).sum(0).flatten()))
        return torch.stack(outputs)

    def mix(self, x_BTD: Tensor, length_B: Tensor | None) -> Tensor:
        """Attend with all positions at once; see `WholeRowMixer.mix`."""
        q, k, v = (part.transpose(1, 2) for part in self._projected(x_BTD))
        mask_B11T = None
        if length_B is not None and is_ragged(length_B, x_BTD.shape[1]):
            # An empty row attends to its first position: a softmax over nothing is not a number.
            mask_B11T = torch.arange(x_BTD.shape[1], device=x_BTD.device) < length_B.clamp(min=1)[:, None, None, None]
        mixed_BHTE = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11T)
        return self.out(mixed_BHTE.transpose(1, 2).flatten(2))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries and keys, and values, each of shape (..., T, H, E)."""
        return rotate_heads(self.project(x).unflatten(-1, (3, self.heads, self.channels)), self.base)
