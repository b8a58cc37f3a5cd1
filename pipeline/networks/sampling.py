"""Sampling from categorical distributions by the Gumbel-max trick, with noise from an explicit generator.

Notation: C = choices of all parts of an action, concatenated, A = parts of an action. All shapes may have further leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def gumbel(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Sample Gumbel noise on the CPU, always finite: in float32 an exponential sample may be zero, so it is clipped."""
    return torch.from_numpy(-np.log(np.maximum(random.standard_exponential(shape, np.float32), np.finfo(np.float32).tiny)))


def sample(logits: Tensor, noise: Tensor, parts: Sequence[int]) -> Tensor:
    """Sample actions (..., A), int64: one choice per part, from the softmax of its logits (..., C).

    noise: Gumbel noise (..., C). The argmax of logits plus noise is such a sample (Gumbel 1954).
    """
    perturbed = logits + noise
    if len(parts) == 1:
        return perturbed.argmax(-1, keepdim=True)
    return torch.stack([part.argmax(-1) for part in perturbed.split(list(parts), -1)], -1)
