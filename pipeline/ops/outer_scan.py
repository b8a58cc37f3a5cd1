"""The recurrence of outer products with one decay per entry of the state: one minus an outer product.

    S_t = (1 - (1 - f_t) (1 - g_t)^T) * S_{t-1} + k_t v_t^T        elementwise; S_{t-1} = 0 where t starts a new episode
    y_t = S_t^T q_t

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value, S = state (K x V); f and
g = fractions kept, in [0, 1]. The decay is computed as f + (1 - f) g, which is accurate for fractions near zero.

A product of such decays does not factor into vectors, so there is no chunked form that avoids the states. They are computed one block at a
time as K V channels of a `gated_scan`; only the state before each block is stored, and the backward pass recomputes the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops.gated_scan import gated_scan
from pipeline.ops.padding import Padding

NUMBERS = 1 << 20
"""Numbers in the states of a block on the CPU, 4 MB: a quarter and four times as many were slower. 32 times as many on other devices."""


class OuterScanInputs(NamedTuple):
    """Inputs of the recurrence, each of shape (B, T, H, K) or (B, T, H, V); kept_key and kept_value are f and g."""

    query: Tensor
    key: Tensor
    value: Tensor
    kept_key: Tensor
    kept_value: Tensor


def outer_scan(
    terms: OuterScanInputs, state_BHKV: Tensor, reset_BT: Tensor | None = None, length_B: Tensor | None = None, numbers: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return outputs y_BTHV and the state at each row's true end; reset_BT and length_B as in `Mixer.forward`.

    numbers: size limit of a block's states; affects only speed, memory and rounding. Differentiable once.
    """
    steps = terms.query.shape[1]
    padding = Padding(length_B, steps)
    terms = terms._replace(key=padding.fill(terms.key), kept_key=padding.fill(terms.kept_key, 1.0))
    reset_BT = padding.fill(reset_BT, False)
    if reset_BT is not None:
        forgotten = reset_BT[:, :, None, None]
        terms = terms._replace(kept_key=terms.kept_key.masked_fill(forgotten, 0.0), kept_value=terms.kept_value.masked_fill(forgotten, 0.0))
    most = numbers or (NUMBERS if state_BHKV.device.type == "cpu" else 32 * NUMBERS)
    size = max(1, most // state_BHKV.numel())
    if size >= steps:
        return _block(terms, state_BHKV)
    return _OuterScan.apply(*terms, state_BHKV, size)  # pyright: ignore[reportReturnType]


def outer_step(terms: OuterScanInputs, state_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one position of the recurrence, `terms` without the time dimension: y_BHV and the new state."""
    q, k, v, f, g = terms
    state_BHKV = _decay(f, g) * state_BHKV + k.unsqueeze(-1) * v.unsqueeze(-2)
    return (q.unsqueeze(-2) @ state_BHKV).squeeze(-2), state_BHKV


def _decay(f: Tensor, g: Tensor) -> Tensor:
    """Return the decay of every entry of the state."""
    return torch.addcmul(f.unsqueeze(-1), (1 - f).unsqueeze(-1), g.unsqueeze(-2))


def _block(terms: OuterScanInputs, state_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """Compute all positions of a block at once."""
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
                outputs = _block(OuterScanInputs(*inputs[:5]), inputs[5])
            *gradients, d_state = torch.autograd.grad(outputs, inputs, (d_part, d_state))
            found.append(gradients)
        return *(torch.cat(gradients[::-1], 1) for gradients in zip(*found, strict=True)), d_state, None


def _blocks(terms: Any, size: int) -> list[OuterScanInputs]:
    """Split the inputs into blocks of `size` positions."""
    return [OuterScanInputs(*parts) for parts in zip(*(term.split(size, 1) for term in terms), strict=True)]
