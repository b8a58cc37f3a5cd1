"""Policies of one or several parts, against torch's own distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from pipeline.learners.policy import draw, entropy, gumbel, log_probability

PARTS = [(4,), (3, 2), (2, 5, 3)]


@pytest.mark.parametrize("parts", PARTS)
def test_probabilities_and_entropy_add_up_over_the_parts(parts: tuple[int, ...]) -> None:
    logits = torch.randn(6, 7, sum(parts), dtype=torch.float64)
    action = torch.stack([torch.randint(size, (6, 7)) for size in parts], -1)
    kinds = [Categorical(logits=part) for part in logits.split(list(parts), -1)]
    expected = torch.stack([kind.log_prob(taken) for kind, taken in zip(kinds, action.unbind(-1), strict=True)]).sum(0)
    torch.testing.assert_close(log_probability(logits, action, parts), expected)
    torch.testing.assert_close(entropy(logits, parts), torch.stack([kind.entropy() for kind in kinds]).sum(0))


@pytest.mark.parametrize("parts", PARTS)
def test_actions_are_drawn_by_their_probabilities(parts: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(sum(parts), generator=generator)
    noise = gumbel(np.random.default_rng(1), (40_000, sum(parts)))
    action = draw(logits, noise, parts)
    assert action.shape == (40_000, len(parts)) and action.dtype == torch.int64
    for place, part in enumerate(logits.split(list(parts))):
        share = torch.bincount(action[:, place], minlength=len(part)).float() / len(action)
        torch.testing.assert_close(share, part.softmax(-1), rtol=0, atol=0.015)


def test_the_numbers_that_draw_are_finite() -> None:
    class Zero:
        def standard_exponential(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.zeros(shape, dtype)

    found = gumbel(Zero(), (2, 3))  # pyright: ignore[reportArgumentType]
    assert bool(found.isfinite().all()) and float(found.min()) > 50
    assert float(gumbel(np.random.default_rng(0), (100_000,)).mean()) == pytest.approx(0.5772, abs=0.02)
