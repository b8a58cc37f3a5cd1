"""Backend `c` of the delta rule: one autograd operation, computed by `delta_rule.c`. Notation: that of `delta_rule`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops import huge_pages, native

SOURCE = "delta_rule.c"
POSITIONS = 16
"""Positions between stored states."""
COLUMNS = 64
"""Columns of the state processed at a time."""
LANES = 16
"""Partial sums of a sum over columns."""
SEQUENCES = ("q", "k", "v", "strength", "kept")
GRADIENTS = ("d_y", "d_q", "d_k", "d_v", "d_strength", "d_kept", "carry")
SIZES = ("rows", "steps", "heads", "keys", "values", "positions")

_SEQUENCE = native.structure((*SEQUENCES, "starts", "scratch", "y", *GRADIENTS), SIZES)


def run(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, strength_BTH: Tensor, kept_BTH: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y_BTHV and the state after the last position. kept_BTH: the decay a, 0 where an episode starts.

    Differentiable once in every input.
    """
    sequences = (part.contiguous() for part in (q_BTHK, k_BTHK, v_BTHV, strength_BTH, kept_BTH))
    return _DeltaRule.apply(*sequences, state_BHKV, torch.is_grad_enabled())  # pyright: ignore[reportReturnType]


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *sequences, state, differentiable = arguments
        q, _, v, *_ = sequences
        steps = q.shape[1]
        positions = POSITIONS if differentiable else max(steps, 1)
        sizes: dict[str, int] = dict(zip(SIZES, (*q.shape, v.shape[-1], positions), strict=True))
        starts = huge_pages.empty((*state.shape[:2], -(-steps // positions) + 1, *state.shape[2:]), state)
        starts[:, :, 0] = state
        tensors = {"starts": starts, "scratch": v.new_empty(q.shape[-1], COLUMNS), "y": huge_pages.empty(v.shape, v)}
        _call("forward", sizes, sequences, tensors)
        ctx.sizes = sizes
        ctx.save_for_backward(*sequences, starts)
        return tensors["y"], starts[:, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *sequences, starts = ctx.saved_tensors
        q, k, v, strength, kept = sequences
        found = torch.zeros_like(q), torch.zeros_like(k), huge_pages.empty(v.shape, v), torch.zeros_like(strength), torch.zeros_like(kept)
        d_y, carry = d_outputs[0].contiguous(), d_outputs[1].clone(memory_format=torch.contiguous_format)
        scratch = v.new_empty(((POSITIONS + 2) * q.shape[-1] + 2 * POSITIONS) * COLUMNS + 2 * q.shape[-1] * LANES)
        tensors = {"starts": starts, "scratch": scratch, **dict(zip(GRADIENTS, (d_y, *found, carry), strict=True))}
        _call("backward", ctx.sizes, sequences, tensors)
        return *found, carry, None


def _call(function: str, sizes: dict[str, int], sequences: list[Tensor], others: dict[str, Tensor]) -> None:
    tensors: dict[str, Tensor | None] = {**dict(zip(SEQUENCES, sequences, strict=True)), **others}
    getattr(native.load_for(sequences[0].dtype, SOURCE), function)(native.make_struct(_SEQUENCE, tensors, sizes))
