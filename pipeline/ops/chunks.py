"""Cutting sequences into chunks, for recurrences that are matrix products within a chunk and a short loop from chunk to chunk.

Notation: B = batch size, T = sequence length, H = heads, F = features of a head, C = positions of a chunk, N = chunks. A query at i reads a
key at j of its own chunk.

Episodes are told apart by masks, not by decays of minus infinity: what crosses a reset is exactly zero, its gradient too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


class Chunks:
    """The cut of one batch: sequences of `steps` positions into chunks of at most `size`, with resets where a new episode starts.

    A chunk is no longer than the power of two that holds the sequence. The last one is filled up with zeros, which for every recurrence
    here is a write of nothing and a logarithm of the decay that keeps everything.
    """

    def __init__(self, steps: int, size: int, reset_BT: Tensor | None) -> None:
        self.steps = steps
        self.size = min(size, 1 << max(steps - 1, 0).bit_length())
        self.missing = -steps % self.size
        self._episode_NBC: Tensor | None = None
        if reset_BT is not None and bool(reset_BT.any()):
            self._episode_NBC = self.split(reset_BT[:, :, None, None].long())[:, :, 0, :, 0].cumsum(-1)

    def split(self, x_BTHF: Tensor) -> Tensor:
        """x_NBHCF, contiguous, so that the loop over chunks and every product read it in order."""
        return self.cut(x_BTHF).contiguous()

    def cut(self, x_BTHF: Tensor) -> Tensor:
        """x_NBHCF in the order it has: enough for what is pointwise, and a copy less."""
        filled = functional.pad(x_BTHF, (0, 0, 0, 0, 0, self.missing)) if self.missing else x_BTHF
        return filled.unflatten(1, (-1, self.size)).permute(1, 0, 3, 2, 4)

    def join(self, y_NBHCF: Tensor) -> Tensor:
        """y_BTHF: the opposite of `split`."""
        return y_NBHCF.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, : self.steps]

    def causal(self, scores_NBHCC: Tensor, diagonal: int = 0) -> Tensor:
        """Zero where j > i + diagonal, and where i and j are of different episodes."""
        below = scores_NBHCC.tril(diagonal)
        if self._episode_NBC is None:
            return below
        same = self._episode_NBC.unsqueeze(-1) == self._episode_NBC.unsqueeze(-2)
        return below.masked_fill(~same.unsqueeze(2), 0.0)

    def of_first(self, x_NBHCF: Tensor) -> Tensor:
        """Zero at positions that do not see the state before the chunk."""
        if self._episode_NBC is None:
            return x_NBHCF
        return x_NBHCF.masked_fill((self._episode_NBC > 0)[:, :, None, :, None], 0.0)

    def of_last(self, x_NBHCF: Tensor) -> Tensor:
        """Zero at positions that the state after the chunk does not know of."""
        if self._episode_NBC is None:
            return x_NBHCF
        earlier = self._episode_NBC < self._episode_NBC[..., -1:]
        return x_NBHCF.masked_fill(earlier[:, :, None, :, None], 0.0)

    def carried(self, factor_NBHKF: Tensor) -> Tensor:
        """Zero for chunks that a reset lies in: what multiplies the state from one chunk to the next."""
        if self._episode_NBC is None:
            return factor_NBHKF
        return factor_NBHKF.masked_fill((self._episode_NBC[..., -1] > 0)[:, :, None, None, None], 0.0)

    def sums(self, x_NBHCF: Tensor) -> Tensor:
        """Sums from the chunk's start, or the episode's where that is later, up to and with each position."""
        ones_CC = torch.ones(self.size, self.size, dtype=x_NBHCF.dtype, device=x_NBHCF.device)
        return self.causal(ones_CC.expand(*x_NBHCF.shape[:2], 1, -1, -1)) @ x_NBHCF


def spans(log_decay_NBHC: Tensor) -> Tensor:
    """Sum of log decays after j up to and with i, shape (N, B, H, C, C); zero where j >= i.

    One product with matrices of ones: differences of cumulative sums would cancel, and let gradients of rounding cross a reset.
    """
    size = log_decay_NBHC.shape[-1]
    ones_CC = torch.ones(size, size, dtype=log_decay_NBHC.dtype, device=log_decay_NBHC.device)
    return (ones_CC.tril() * log_decay_NBHC.unsqueeze(-2)) @ ones_CC.tril(-1)
