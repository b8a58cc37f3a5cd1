"""Backend `c` of the minimal GRU: one autograd operation; `min_gru.c` computes products, gates and scan one block at a time.

Equations: `pipeline.mixers.min_gru`. Notation: B = batch size, T = sequence length, D = width, G = 2 D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.ops import huge_pages, native, packed_matrix

POSITIONS = 256
"""Positions per block, over all rows."""
SOURCE = "min_gru.c"
INPUTS = ("x", "start", "bias", "weights", "zeros", "reset", "gates", "h")
GRADIENTS = ("d_h", "d_x", "d_start", "d_weight", "d_bias", "d_gates", "panels")
SIZES = ("rows", "steps", "width", "block", "kept", "positive")

_SEQUENCE = native.structure((*INPUTS, *GRADIENTS), SIZES)


def run(x_BTD: Tensor, weight_GD: Tensor, bias_G: Tensor, start_BD: Tensor, reset_BT: Tensor | None, positive: bool) -> Tensor:
    """Return h_BTD, given the linear layer of z and c and the state before the first position."""
    assert x_BTD.dtype == weight_GD.dtype == bias_G.dtype == start_BD.dtype
    reset = None if reset_BT is None else reset_BT.contiguous()
    inputs = (x_BTD.contiguous(), weight_GD, bias_G.contiguous(), start_BD.contiguous())
    return _MinGRU.apply(*inputs, reset, positive, torch.is_grad_enabled())  # pyright: ignore[reportReturnType]


class _MinGRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, weight, bias, start, reset, positive, kept = arguments
        library = native.load_for(x.dtype, SOURCE)
        sizes: dict[str, int] = dict(zip(SIZES, (*x.shape, POSITIONS, kept, positive), strict=True))
        gates = huge_pages.empty((x.shape[0] * x.shape[1] if kept else POSITIONS, len(weight)), x)
        h, zeros = huge_pages.empty(x.shape, x), x.new_zeros(x.shape[2])
        tensors = (x, start, bias, packed_matrix.packed(library, weight.t()), zeros, reset, gates, h)
        library.forward(native.make_struct(_SEQUENCE, dict(zip(INPUTS, tensors, strict=True)), sizes))
        ctx.sizes = sizes
        ctx.save_for_backward(x, weight, bias, start, reset, h, *([gates] if kept else []))
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, start, reset, h, gates = ctx.saved_tensors
        library, block = native.load_for(x.dtype, SOURCE), ctx.sizes["block"]
        found = huge_pages.empty(x.shape, x), torch.zeros_like(start), torch.zeros_like(weight), torch.zeros_like(bias)
        room = x.new_empty(block, len(weight)), packed_matrix.panels(library, block, x.shape[2], x)
        tensors = (x, start, bias, packed_matrix.packed(library, weight), x.new_zeros(x.shape[2]), reset, gates, h)
        gradients = (d_outputs[0].contiguous(), *found, *room)
        pointers: dict[str, Tensor | None] = dict(zip((*INPUTS, *GRADIENTS), (*tensors, *gradients), strict=True))
        library.backward(native.make_struct(_SEQUENCE, pointers, ctx.sizes))
        d_x, d_start, d_weight, d_bias = found
        return d_x, d_weight, d_bias, d_start, None, None, None
