"""Root-mean-square normalisation in place: v <- v / sqrt(mean(v^2) + eps).

For sums that nothing else reads, such as a residual and its branch: a third of the memory traffic of torch's own operations.

    y = r v,  r = 1 / sqrt(mean(v^2) + eps),  dL/dv = r (d - y mean(d y)) for d = dL/dy
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm_(v: Tensor, eps: float, axis: int = -1) -> Tensor:
    """Divide by the root mean square over an axis, in place, and return v."""
    return _Normalise.apply(v, eps, axis)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, eps: float, axis: int) -> Tensor:
        r = (_mean_square(v, axis) + eps).rsqrt_()
        v.mul_(r)
        ctx.mark_dirty(v)
        ctx.save_for_backward(v, r)
        ctx.axis = axis
        return v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None, None]:
        y, r = ctx.saved_tensors
        along = (d_y * y).mean(ctx.axis, keepdim=True)
        return torch.addcmul(d_y, y, along, value=-1).mul_(r), None, None


def _mean_square(v: Tensor, axis: int) -> Tensor:
    if axis % v.dim() == v.dim() - 1:  # torch's norm over other axes is slow
        return torch.linalg.vector_norm(v, dim=axis, keepdim=True).square_().div_(v.shape[axis])
    return v.square().mean(axis, keepdim=True)
