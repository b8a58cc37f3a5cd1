"""Policies over actions of one or several parts, each with so many values: drawing, probabilities, entropy.

Letters: A parts of an action, C values of all parts, end to end. All shapes may have further dimensions before these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
