"""Sampling by Gumbel noise, against the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.networks.sampling import gumbel, sample

PARTS = [(4,), (3, 2), (2, 5, 3)]


@pytest.mark.parametrize("parts", PARTS)
def test_actions_are_sampled_by_their_probabilities(parts: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(sum(parts), generator=generator)
    noise = gumbel(np.random.default_rng(1), (40_000, sum(parts)))
    action = sample(logits, noise, parts)
    assert action.shape == (40_000, len(parts)) and action.dtype == torch.int64
    for place, part in enumerate(logits.split(list(parts))):
        share = torch.bincount(action[:, place], minlength=len(part)).float() / len(action)
        torch.testing.assert_close(share, part.softmax(-1), rtol=0, atol=0.015)


def test_gumbel_noise_is_finite() -> None:
    class Zero:
        def standard_exponential(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.zeros(shape, dtype)

    found = gumbel(Zero(), (2, 3))  # pyright: ignore[reportArgumentType]
    assert bool(found.isfinite().all()) and float(found.min()) > 50
    assert float(gumbel(np.random.default_rng(0), (100_000,)).mean()) == pytest.approx(0.5772, abs=0.02)
