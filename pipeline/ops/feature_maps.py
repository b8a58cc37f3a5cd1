"""Positive features of keys and queries, as linear attention needs them, for every feature map that a mixer may choose.

Notation: E = channels per head, N = features per channel; the feature of channel i and scale n has index n E + i.

    projected_relu       relu(s) (x) relu(x)         outer product with N scales s, a map of the input of their own
    projected_elu        the same of 1 + elu: 1 + x above zero, exp(x) below
    relu, elu            of x alone, elu with the 1
    dpfp                 r (x) its own rotation by 1 .. N / 2 places, r = relu of x and -x (Schlag et al. 2021, arXiv 2102.11174)
"""

from __future__ import annotations

import torch
from torch import Tensor


def multiples(feature_map: str, eta: int) -> int:
    """N: features for each channel."""
    return {"relu": 1, "elu": 1, "dpfp": 2 * eta}.get(feature_map, eta)


def is_projected(feature_map: str) -> bool:
    """Whether there are scales."""
    return feature_map.startswith("projected")


def features(feature_map: str, eta: int, x: Tensor, scale: Tensor) -> Tensor:
    """(..., N E) from x of (..., E) and its scales of (..., N), of which there may be none."""
    if feature_map == "dpfp":
        r = torch.relu(torch.cat([x, -x], -1))
        return torch.cat([r * r.roll(places, -1) for places in range(1, eta + 1)], -1)
    x, scale = (torch.relu(part) if feature_map.endswith("relu") else elu_plus_one(part) for part in (x, scale))
    return outer(scale, x) if is_projected(feature_map) else x


def elu_plus_one(x: Tensor) -> Tensor:
    """elu(x) + 1 to the last digit: below zero it is exp(x), of which adding 1 to exp(x) - 1 leaves nothing where x < -17."""
    return torch.relu(x) + x.clamp(max=0).exp()


def outer(scale: Tensor, x: Tensor) -> Tensor:
    """The outer product as one vector, (..., N E)."""
    return (scale.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def outer_gate(scale: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(scale) (x) sigmoid(x), and 1 minus that."""
    gate, rest = product_gate(scale.unsqueeze(-1), x.unsqueeze(-2))
    return gate.flatten(-2), rest.flatten(-2)


def product_gate(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(x) sigmoid(y), and 1 minus that as sigmoid(-x) + sigmoid(x) sigmoid(-y), where no digit is lost if both are nearly one."""
    first = torch.sigmoid(x)
    return first * torch.sigmoid(y), torch.addcmul(torch.sigmoid(-x), first, torch.sigmoid(-y))
