"""Rotary positions (Su et al. 2021, RoFormer, section 3.2): pairs of channels turned by an angle that grows with the position.

The product of a query turned by p and a key turned by q depends on p - q only. Notation: E = channels per head; the pairs are channels j
and j + E/2, and pair j turns by base^(-2 j / E) radians per position.
"""

from __future__ import annotations

import torch
from torch import Tensor


def angles(positions: Tensor, channels: int, base: float, dtype: torch.dtype) -> Tensor:
    """Angles of shape (*positions.shape, channels / 2), in radians; computed in float32 at least."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    pairs = torch.arange(0, channels, 2, device=positions.device, dtype=exact)
    return positions.to(exact).unsqueeze(-1) * base ** (-pairs / channels)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """x (..., E) with its pairs turned by angle (..., E/2), which broadcasts."""
    cosine, sine = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
