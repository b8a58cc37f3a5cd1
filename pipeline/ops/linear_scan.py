"""The recurrence of outer products with decay, shared by linear attention, gated linear attention and the matrix LSTM.

    S_t = diag(a_t) S_{t-1} + k_t v_t^T        S_{t-1} = 0 where t starts a new episode
    y_t = S_t^T q_t

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, S = state (K x V), C = positions
per chunk, N = chunks; a = decay: none, one per head, or one per channel of the key (its last dimension has size 1 or K).

Chunked form (Yang et al. 2024, "Gated linear attention transformers with hardware-efficient training", arXiv 2312.06635, section 4):
within a chunk y_i = sum_j A_ij v_j with A_ij = sum_K q_i k_j prod_{j < t <= i} a_t; the state is passed from chunk to chunk.
Decays are given as logarithms, and only sums over a span are exponentiated: with a <= 1 nothing overflows, however strong the decay.
With one decay per channel, A is not one matrix product for a whole chunk; the chunk is then halved recursively. Across the middle of a
block, the log decay from j to i is the sum of that from j to the middle and from the middle to i, each <= 0, and A is one product again.

Backends: `torch` is this form; `fla` computes it by `pipeline.ops.fla`, on CUDA.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pipeline.ops import backends, fla
from pipeline.ops.chunks import Chunks, spans
from pipeline.ops.padding import Padding

SIZE = 64
"""Positions per chunk."""


def linear_scan(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay: Tensor | None,
    state_BHKV: Tensor,
    reset_BT: Tensor | None = None,
    length_B: Tensor | None = None,
    size: int = SIZE,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return outputs y_BTHV and the state at each row's true end; reset_BT and length_B as in `Mixer.forward`.

    q, k: H heads, or one shared by all heads as in Mamba-2 (not with one decay per channel).
    log_decay: log a <= 0, shape (B, T, H, 1) or (B, T, H, K); None for no decay.
    size: positions per chunk of backend `torch`, a power of two; affects only speed and rounding.
    Raises UserError if an explicit backend is not available.
    """
    steps = q_BTHK.shape[1]
    padding = Padding(length_B, steps)
    k_BTHK, log_decay, reset_BT = padding.fill(k_BTHK), padding.fill(log_decay), padding.fill(reset_BT, False)
    candidates: dict[str, backends.UnavailableReason] = {"fla": partial(fla.unavailable_reason, k_BTHK), "torch": lambda: None}
    if backends.choose("linear_scan", candidates, backend) == "fla":
        return fla.linear_scan(q_BTHK, k_BTHK, v_BTHV, log_decay, state_BHKV, reset_BT)
    chunks = Chunks(steps, size, reset_BT)
    q, k, v = chunks.split(q_BTHK), chunks.split(k_BTHK), chunks.split(v_BTHV)
    if log_decay is None:
        scores, reading, writing, kept = q @ k.mT, q, k, q.new_ones(len(q), 1, 1, 1, 1)
    else:
        halve = log_decay.shape[-1] > 1
        scores, before, after = (_per_channel if halve else _per_head)(q, k, chunks.split(log_decay))
        reading, writing, kept = q * before.exp(), k * after.exp(), before[..., -1, :].exp().unsqueeze(-1)
    written = chunks.mask_writes(writing).mT @ v
    starts, state_BHKV = _carry(state_BHKV, chunks.mask_decay(kept.expand(-1, *written.shape[1:3], -1, -1)), written)
    return chunks.join(chunks.causal(scores) @ v + chunks.mask_reads(reading) @ starts), state_BHKV


def linear_step(q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, log_decay: Tensor | None, state_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one position of the recurrence: y_BHV and the new state. log_decay: (B, H, 1) or (B, H, K)."""
    kept = state_BHKV if log_decay is None else state_BHKV * log_decay.exp().unsqueeze(-1)
    state_BHKV = kept + k_BHK.unsqueeze(-1) * v_BHV.unsqueeze(-2)
    return (q_BHK.unsqueeze(-2) @ state_BHKV).squeeze(-2), state_BHKV


def _carry(state_BHKV: Tensor, kept: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """Loop over chunks: the state before each chunk, shape (N, B, H, K, V), and the final state."""
    starts = []
    for kept_BHK1, written_BHKV in zip(kept.unbind(), written.unbind(), strict=True):
        starts.append(state_BHKV)
        state_BHKV = torch.addcmul(written_BHKV, state_BHKV, kept_BHK1)
    return torch.stack(starts), state_BHKV


def _per_head(q: Tensor, k: Tensor, log_decay_NBHC1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return A before masking, and sums of log decays up to each position (inclusive) and after it, shape (N, B, H, C, 1)."""
    span = spans(log_decay_NBHC1.squeeze(-1))
    before = span[..., :1] + log_decay_NBHC1[..., :1, :]
    return (q @ k.mT) * span.exp(), before, span[..., -1, :].unsqueeze(-1)


def _per_channel(q: Tensor, k: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Same as `_per_head` for decays of shape (N, B, H, C, K): merges pairs of blocks, from single positions to the whole chunk.

    before, after: sums of log decays from the block's start up to a position (inclusive), and after it up to the block's end.
    """
    scores, before, after = (q * k).sum(-1)[..., None, None], log_decay, torch.zeros_like(log_decay)
    half = 1
    while half < q.shape[-2]:
        (_, q_second), (k_first, _) = _halves(q, half), _halves(k, half)
        (before_first, before_second), (after_first, after_second) = _halves(before, half), _halves(after, half)
        across = (q_second * before_second.exp()) @ (k_first * after_first.exp()).mT
        first, second = scores.unflatten(-3, (-1, 2)).unbind(-3)
        scores = torch.cat([torch.cat([first, torch.zeros_like(across)], -1), torch.cat([across, second], -1)], -2)
        before = torch.stack([before_first, before_second + before_first[..., -1:, :]], -3).flatten(-4, -2)
        after = torch.stack([after_first + before_second[..., -1:, :], after_second], -3).flatten(-4, -2)
        half *= 2
    return scores.squeeze(-3), before, after


def _halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Return the first and second halves of all blocks of 2 `half` positions, shape (..., blocks, half, K)."""
    first, second = x.unflatten(-2, (-1, 2, half)).unbind(-3)
    return first, second
