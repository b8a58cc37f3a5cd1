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

    The numbers are those of `rotate`; longer inner loops, and a gradient of x in one piece.
    """
    length, _, heads, channels = x.shape[-4:]
    return _Heads.apply(x, *_turns(length, heads, channels, base, x.dtype, x.device))


@functools.lru_cache(maxsize=64)
def _turns(length: int, heads: int, channels: int, base: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines, and sines with the sign that goes with the other half's channels, written out for queries, keys and heads: (T, 2, H, E)."""
    with torch.inference_mode(False):  # tensors made in that mode could not serve a training
        angle = angles(torch.arange(length, device=device), channels, base, dtype)
        cosine, sine = torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)
        both = torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)
        written_out = [part.view(length, 1, 1, channels).expand(length, 2, heads, channels).contiguous() for part in both]
        return written_out[0], written_out[1]


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cosine, sine)
        some, half = x[..., :2, :, :], x.shape[-1] // 2
        turned = (some * cosine).add_(torch.roll(some, half, -1).mul_(sine))
        return turned.select(-3, 0), turned.select(-3, 1), x.select(-3, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_parts: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = (part.select(-3, 0) for part in ctx.saved_tensors)
        shape, half = d_parts[0].shape, d_parts[0].shape[-1] // 2
        d_x = d_parts[0].new_empty(*shape[:-2], 3, *shape[-2:])
        for place, d_part in enumerate(d_parts[:2]):
            torch.mul(d_part, cosine, out=d_x.select(-3, place)).sub_(torch.roll(d_part, half, -1).mul_(sine))
        d_x.select(-3, 2).copy_(d_parts[2])
        return d_x, None, None
