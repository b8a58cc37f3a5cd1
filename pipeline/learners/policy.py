"""Policies over actions of one or several parts, each with so many values: drawing, probabilities, entropy.

Letters: A parts of an action, C values of all parts, end to end. All shapes may have further dimensions before these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def draw(logits: Tensor, noise: Tensor, parts: Sequence[int]) -> Tensor:
    """Actions (..., A), int64, each with the probability that its logits (..., C) give it.

    noise: numbers (..., C) of Gumbel's distribution; the value with the largest sum of logit and noise is such a draw (Gumbel 1954).
    """
    race = logits + noise
    if len(parts) == 1:
        return race.argmax(-1, keepdim=True)
    return torch.stack([part.argmax(-1) for part in race.split(list(parts), -1)], -1)


def gumbel(chance: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Numbers of Gumbel's distribution, on the CPU; all finite: in single precision an exponential number may be zero."""
    return torch.from_numpy(-np.log(np.maximum(chance.standard_exponential(shape, np.float32), np.finfo(np.float32).tiny)))


def log_probability(logits: Tensor, action: Tensor, parts: Sequence[int]) -> Tensor:
    """Log-probability (...) of whole actions (..., A), whose parts are independent given the state."""
    chosen = [
        part.log_softmax(-1).gather(-1, taken.unsqueeze(-1)).squeeze(-1)
        for part, taken in zip(logits.split(list(parts), -1), action.unbind(-1), strict=True)
    ]
    return torch.stack(chosen).sum(0)


def entropy(logits: Tensor, parts: Sequence[int]) -> Tensor:
    """Entropy (...) in nats, summed over the parts."""
    found = []
    for part in logits.split(list(parts), -1):
        log = part.log_softmax(-1)
        found.append(-(log.exp() * log).sum(-1))
    return torch.stack(found).sum(0)
