"""The recurrence of outer products whose decay differs in every entry of the state, itself an outer product taken from one.

    S_t = (1 - (1 - f_t) (1 - g_t)^T) * S_{t-1} + k_t v_t^T        elementwise; S_{t-1} counts as zero where t starts a new episode
    y_t = S_t^T q_t

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, S = state (K x V); f and
g = shares kept, 0..1. Entries decay by
f + (1 - f) g, which keeps the digits of shares near zero.

No product of such decays is one of vectors, so there is no form without the states themselves. They come block after block, K V channels
of a `gated_scan`, and only those before each block are kept: the gradient computes a block's states again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops.gated_scan import gated_scan
from pipeline.ops.padding import beyond, is_ragged

NUMBERS = 1 << 20
"""Numbers in the states of a block on the CPU, 4 MB: a quarter or four times as many were slower. Elsewhere 32 times as many."""


class Terms(NamedTuple):
    """What the recurrence reads, each of shape (B, T, H, K) or (B, T, H, V)."""

    query: Tensor
    key: Tensor
    value: Tensor
    kept_key: Tensor
    kept_value: Tensor


def outer_scan(
    terms: Terms, state_BHKV: Tensor, reset_BT: Tensor | None = None, length_B: Tensor | None = None, numbers: int | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs y_BTHV and the state at each row's true end; reset_BT and length_B as in `Mixer.forward`.

    numbers: how many a block's states may have; changes speed, memory and rounding only. Differentiable once.
    """
    steps = terms.query.shape[1]
    if length_B is not None and is_ragged(length_B, steps):
        padding = beyond(length_B, steps)
        terms = terms._replace(key=terms.key.masked_fill(padding, 0.0), kept_key=terms.kept_key.masked_fill(padding, 1.0))
        reset_BT = None if reset_BT is None else reset_BT & ~padding[:, :, 0, 0]
    if reset_BT is not None:
        forgotten = reset_BT[:, :, None, None]
        terms = terms._replace(kept_key=terms.kept_key.masked_fill(forgotten, 0.0), kept_value=terms.kept_value.masked_fill(forgotten, 0.0))
    most = numbers or (NUMBERS if state_BHKV.device.type == "cpu" else 32 * NUMBERS)
    size = max(1, most // state_BHKV.numel())
    if size >= steps:
        return _block(terms, state_BHKV)
    return _OuterScan.apply(*terms, state_BHKV, size)  # pyright: ignore[reportReturnType]


def outer_step(terms: Terms, state_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """One position of the recurrence, terms without the time dimension: y_BHV and the state."""
    q, k, v, f, g = terms
    state_BHKV = _decay(f, g) * state_BHKV + k.unsqueeze(-1) * v.unsqueeze(-2)
    return (q.unsqueeze(-2) @ state_BHKV).squeeze(-2), state_BHKV


def _decay(f: Tensor, g: Tensor) -> Tensor:
    """The share of every entry that is kept."""
    return torch.addcmul(f.unsqueeze(-1), (1 - f).unsqueeze(-1), g.unsqueeze(-2))


def _block(terms: Terms, state_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """All positions at once."""
    q, k, v, f, g = terms
    written = k.unsqueeze(-1) * v.unsqueeze(-2)
    states = gated_scan(_decay(f, g).flatten(2), written.flatten(2), state_BHKV.flatten(1)).view(written.shape)
    return (q.unsqueeze(-2) @ states).squeeze(-2), states[:, -1]


class _OuterScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *terms, state, size = arguments
        starts, outputs = [], []
        for block in _blocks(terms, size):
            starts.append(state)
            y, state = _block(block, state)
            outputs.append(y)
        ctx.size = size
        ctx.save_for_backward(*terms, *starts)
        return torch.cat(outputs, 1), state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        terms, starts = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        found = []
        for block, start, d_part in reversed(list(zip(_blocks(terms, ctx.size), starts, d_y.split(ctx.size, 1), strict=True))):
            inputs = [tensor.detach().requires_grad_() for tensor in (*block, start)]
            with torch.enable_grad():
                outputs = _block(Terms(*inputs[:5]), inputs[5])
            *gradients, d_state = torch.autograd.grad(outputs, inputs, (d_part, d_state))
            found.append(gradients)
        return *(torch.cat(gradients[::-1], 1) for gradients in zip(*found, strict=True)), d_state, None


def _blocks(terms: Any, size: int) -> list[Terms]:
    """Terms of `size` positions at a time."""
    return [Terms(*parts) for parts in zip(*(term.split(size, 1) for term in terms), strict=True)]
