"""Sampling from categorical distributions by the Gumbel-max trick, so that the random numbers can come from a generator of one's own.

Notation: C = choices of all parts of an action end to end, A = parts of an action. All shapes may have further dimensions before these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def gumbel(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Gumbel noise on the CPU, all finite: in single precision an exponential sample may be zero."""
    return torch.from_numpy(-np.log(np.maximum(random.standard_exponential(shape, np.float32), np.finfo(np.float32).tiny)))


def sample(logits: Tensor, noise: Tensor, parts: Sequence[int]) -> Tensor:
    """Actions (..., A), int64: one choice per part, sampled from the softmax of its logits (..., C).

    noise: Gumbel noise (..., C). The argmax of logits plus noise is such a sample (Gumbel 1954).
    """
    perturbed = logits + noise
    if len(parts) == 1:
        return perturbed.argmax(-1, keepdim=True)
    return torch.stack([part.argmax(-1) for part in perturbed.split(list(parts), -1)], -1)
