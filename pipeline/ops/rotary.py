"""Rotary position embedding (Su et al. 2021, RoFormer, section 3.2): pairs of channels are rotated by an angle proportional to the position.

The product of a query at position p and a key at position q depends only on p - q. Notation: E = channels per head; channels j and j + E/2
form a pair, which is rotated by base^(-2 j / E) radians per position.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
