"""Initialisation of weights: a truncated normal distribution with the variance of LeCun et al. 1998."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SHRINK = 0.87962566103423978
"""Standard deviation of a standard normal distribution truncated at two standard deviations."""


@torch.no_grad()
def lecun_normal_(weight: Tensor, fan_in: int | None = None) -> Tensor:
    """Fill a weight, in place, from a normal distribution truncated at two standard deviations, with standard deviation 1 / sqrt(fan_in).

    fan_in: inputs of each output, by default the last dimension.
    """
    sigma = 1 / math.sqrt(fan_in or weight.shape[-1]) / SHRINK
    return nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)
