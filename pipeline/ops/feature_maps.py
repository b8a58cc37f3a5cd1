"""Feature maps of linear attention: non-negative features of keys and queries.

Notation: E = channels per head, N = features per channel; the feature of channel i and scale n has index n E + i.

    projected_relu       relu(s) (x) relu(x)         outer product with N scales s, a separate linear map of the input
    projected_elu        the same with 1 + elu: 1 + x above zero, exp(x) below
    relu, elu            relu(x), 1 + elu(x)
    dpfp                 r times r rolled by 1 .. N / 2 channels, r = relu of x and -x (Schlag et al. 2021, arXiv 2102.11174)
"""

from __future__ import annotations

import torch
from torch import Tensor


def multiples(feature_map: str, eta: int) -> int:
    """Return N, the number of features per channel."""
    return {"relu": 1, "elu": 1, "dpfp": 2 * eta}.get(feature_map, eta)


def is_projected(feature_map: str) -> bool:
    """Whether the feature map has scales."""
    return feature_map.startswith("projected")


def features(feature_map: str, eta: int, x: Tensor, scale: Tensor) -> Tensor:
    """Map x (..., E) and its scales (..., N), unused if the map has none, to features (..., N E)."""
    if feature_map == "dpfp":
        r = torch.relu(torch.cat([x, -x], -1))
        return torch.cat([r * r.roll(places, -1) for places in range(1, eta + 1)], -1)
    x, scale = (torch.relu(part) if feature_map.endswith("relu") else elu_plus_one(part) for part in (x, scale))
    return outer(scale, x) if is_projected(feature_map) else x


def elu_plus_one(x: Tensor) -> Tensor:
    """Compute elu(x) + 1 at full precision: below zero it is exp(x), which computing exp(x) - 1 + 1 would round to 0 for x < -17."""
    return torch.relu(x) + x.clamp(max=0).exp()


def outer(scale: Tensor, x: Tensor) -> Tensor:
    """Return the outer product flattened to (..., N E)."""
    return (scale.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def outer_gate(scale: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return sigmoid(scale) (x) sigmoid(x), flattened, and 1 minus it."""
    gate, rest = product_gate(scale.unsqueeze(-1), x.unsqueeze(-2))
    return gate.flatten(-2), rest.flatten(-2)


def product_gate(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return sigmoid(x) sigmoid(y), and 1 minus it as sigmoid(-x) + sigmoid(x) sigmoid(-y), which does not cancel when both are near 1."""
    first = torch.sigmoid(x)
    return first * torch.sigmoid(y), torch.addcmul(torch.sigmoid(-x), first, torch.sigmoid(-y))
