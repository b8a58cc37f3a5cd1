"""Policies of one or several parts, against torch's own distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical

from pipeline.learners.policy import entropy, log_probability

PARTS = [(4,), (3, 2), (2, 5, 3)]


@pytest.mark.parametrize("parts", PARTS)
def test_probabilities_and_entropy_add_up_over_the_parts(parts: tuple[int, ...]) -> None:
    logits = torch.randn(6, 7, sum(parts), dtype=torch.float64)
    action = torch.stack([torch.randint(size, (6, 7)) for size in parts], -1)
    kinds = [Categorical(logits=part) for part in logits.split(list(parts), -1)]
    expected = torch.stack([kind.log_prob(taken) for kind, taken in zip(kinds, action.unbind(-1), strict=True)]).sum(0)
    torch.testing.assert_close(log_probability(logits, action, parts), expected)
    torch.testing.assert_close(entropy(logits, parts), torch.stack([kind.entropy() for kind in kinds]).sum(0))
