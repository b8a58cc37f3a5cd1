"""Splitting sequences into chunks, for recurrences computed as matrix products within a chunk and a short loop over chunks.

Notation: B = batch size, T = sequence length, H = heads, F = features per head, C = positions per chunk, N = chunks. A query at position i
reads a key at position j of the same chunk.

Episodes are separated by masks, not by log decays of minus infinity: nothing crosses a reset, and neither does a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


class Chunks:
    """Chunks of at most `size` positions for a batch of sequences of `steps` positions, with resets at episode starts.

    The chunk size is at most the smallest power of two >= `steps`. The last chunk is zero-padded; in every recurrence here, zeros write
    nothing and, as log decays, keep the whole state.
    """

    def __init__(self, steps: int, size: int, reset_BT: Tensor | None) -> None:
        self.steps = steps
        self.size = min(size, 1 << max(steps - 1, 0).bit_length())
        self.missing = -steps % self.size
        self._episode_NBC: Tensor | None = None
        if reset_BT is not None and bool(reset_BT.any()):
            self._episode_NBC = self.split(reset_BT[:, :, None, None].long())[:, :, 0, :, 0].cumsum(-1)

    def split(self, x_BTHF: Tensor) -> Tensor:
        """Split into chunks: contiguous x_NBHCF, which the loop over chunks and every product read in order."""
        return self.cut(x_BTHF).contiguous()

    def cut(self, x_BTHF: Tensor) -> Tensor:
        """Split into chunks as a view x_NBHCF: saves a copy where only pointwise operations follow."""
        padded = functional.pad(x_BTHF, (0, 0, 0, 0, 0, self.missing)) if self.missing else x_BTHF
        return padded.unflatten(1, (-1, self.size)).permute(1, 0, 3, 2, 4)

    def join(self, y_NBHCF: Tensor) -> Tensor:
        """Join chunks to y_BTHF: the inverse of `split`."""
        return y_NBHCF.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, : self.steps]

    def causal(self, scores_NBHCC: Tensor, diagonal: int = 0) -> Tensor:
        """Zero the scores where j > i + diagonal and where i and j belong to different episodes."""
        below = scores_NBHCC.tril(diagonal)
        if self._episode_NBC is None:
            return below
        same = self._episode_NBC.unsqueeze(-1) == self._episode_NBC.unsqueeze(-2)
        return below.masked_fill(~same.unsqueeze(2), 0.0)

    def mask_reads(self, x_NBHCF: Tensor) -> Tensor:
        """Zero the positions that cannot read the state before the chunk, because a reset lies in between."""
        if self._episode_NBC is None:
            return x_NBHCF
        return x_NBHCF.masked_fill((self._episode_NBC > 0)[:, :, None, :, None], 0.0)

    def mask_writes(self, x_NBHCF: Tensor) -> Tensor:
        """Zero the positions whose writes a later reset in the chunk discards."""
        if self._episode_NBC is None:
            return x_NBHCF
        earlier = self._episode_NBC < self._episode_NBC[..., -1:]
        return x_NBHCF.masked_fill(earlier[:, :, None, :, None], 0.0)

    def mask_decay(self, factor_NBHKF: Tensor) -> Tensor:
        """Zero the decay from one chunk's state to the next for chunks that contain a reset."""
        if self._episode_NBC is None:
            return factor_NBHKF
        return factor_NBHKF.masked_fill((self._episode_NBC[..., -1] > 0)[:, :, None, None, None], 0.0)

    def sums(self, x_NBHCF: Tensor) -> Tensor:
        """Inclusive cumulative sums from the start of the chunk, or of the episode if that is later."""
        ones_CC = torch.ones(self.size, self.size, dtype=x_NBHCF.dtype, device=x_NBHCF.device)
        return self.causal(ones_CC.expand(*x_NBHCF.shape[:2], 1, -1, -1)) @ x_NBHCF


def spans(log_decay_NBHC: Tensor) -> Tensor:
    """Sum log decays over positions j + 1 to i, shape (N, B, H, C, C); zero where j >= i.

    Computed as a product with matrices of ones: differences of cumulative sums cancel, and would let rounding gradients cross a reset.
    """
    size = log_decay_NBHC.shape[-1]
    ones_CC = torch.ones(size, size, dtype=log_decay_NBHC.dtype, device=log_decay_NBHC.device)
    return (ones_CC.tril() * log_decay_NBHC.unsqueeze(-2)) @ ones_CC.tril(-1)
