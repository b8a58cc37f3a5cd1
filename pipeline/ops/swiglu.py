"""The gate of SwiGLU (Shazeer 2020): y = silu(g) * u, with g and u in one tensor.

The backward pass writes both gradients into one tensor, where autograd computes two and concatenates them. The results are those of torch's own
operations to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def swiglu(both: Tensor) -> Tensor:
    """Return silu(g) * u of shape (..., I) for both = [g, u] of shape (..., 2 I)."""
    return _Gate.apply(both)


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        gated = functional.silu(gate)
        if not ctx.needs_input_grad[0]:
            return gated.mul_(up)
        ctx.save_for_backward(both, gated)
        return gated * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> Tensor:
        both, gated = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        d_both = torch.empty_like(both)
        d_gate, d_up = d_both.chunk(2, -1)
        torch.mul(d_y, gated, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_y * up, gate, grad_input=d_gate)
        return d_both
