"""Rotary position embedding (Su et al. 2021, RoFormer, section 3.2): pairs of channels are rotated by an angle proportional to the position.

The product of a query at position p and a key at position q depends only on p - q. Notation: E = channels per head; channels j and j + E/2
form a pair, which is rotated by base^(-2 j / E) radians per position.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def angles(positions: Tensor, channels: int, base: float, dtype: torch.dtype) -> Tensor:
    """Compute angles of shape (*positions.shape, channels / 2), in radians, in at least float32."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    pairs = torch.arange(0, channels, 2, device=positions.device, dtype=exact)
    return positions.to(exact).unsqueeze(-1) * base ** (-pairs / channels)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate the pairs of x (..., E) by angle (..., E/2), which broadcasts."""
    cosine, sine = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def rotate_heads(x: Tensor, base: float) -> tuple[Tensor, Tensor, Tensor]:
    """Split x (..., T, 3, H, E) into queries and keys, both rotated by their positions 0..T-1, and values, each of shape (..., T, H, E).

    The numbers are those of `rotate`; half as many operations, and a gradient of x in one piece.
    """
    return _Heads.apply(x, *_turns(x.shape[-4], x.shape[-1], base, x.dtype, x.device))


@functools.lru_cache(maxsize=64)
def _turns(length: int, channels: int, base: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles of the first positions, of shape (T, 1, 1, E / 2)."""
    with torch.inference_mode(False):  # tensors made in that mode could not serve a training
        angle = angles(torch.arange(length, device=device), channels, base, dtype).view(length, 1, 1, channels // 2)
        return torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)


def _rotate_into(out: Tensor, x: Tensor, cosine: Tensor, sine: Tensor) -> None:
    (first, second), (out_1, out_2) = x.chunk(2, -1), out.chunk(2, -1)
    torch.mul(first, cosine, out=out_1).sub_(second * sine)
    torch.mul(second, cosine, out=out_2).add_(first * sine)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cosine, sine)
        turned = x.new_empty(*x.shape[:-3], 2, *x.shape[-2:])
        _rotate_into(turned, x[..., :2, :, :], cosine, sine)
        return turned.select(-3, 0), turned.select(-3, 1), x.select(-3, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_parts: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = (part.squeeze(1) for part in ctx.saved_tensors)
        shape = d_parts[0].shape
        d_x = d_parts[0].new_empty(*shape[:-2], 3, *shape[-2:])
        for place in range(2):
            _rotate_into(d_x.select(-3, place), d_parts[place], cosine, -sine)
        d_x.select(-3, 2).copy_(d_parts[2])
        return d_x, None, None
