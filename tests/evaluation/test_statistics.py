from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.statistics import bootstrap_interval, summarise, wilson_interval

SEEDS = [0.91, 0.972, 0.985, 0.99, 0.95]
shares = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def test_moments_equal_scipy() -> None:
    from scipy import stats

    summary = summarise(SEEDS)
    assert summary.n == 5
    assert summary.mean == pytest.approx(stats.tmean(SEEDS), rel=1e-12)
    assert summary.sd == pytest.approx(stats.tstd(SEEDS), rel=1e-12)
    assert summary.se == pytest.approx(stats.sem(SEEDS), rel=1e-12)


def test_bootstrap_agrees_with_scipy() -> None:
    from scipy import stats

    expected = stats.bootstrap((SEEDS,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)).confidence_interval
    assert bootstrap_interval(np.array(SEEDS)) == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_bootstrap_of_three_equals_the_exact_enumeration() -> None:
    values = np.array([0.2, 0.5, 0.9])
    means = [np.mean([a, b, c]) for a in values for b in values for c in values]
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(np.percentile(means, 2.5, method="inverted_cdf"), abs=1e-12)
    assert high == pytest.approx(np.percentile(means, 97.5, method="inverted_cdf"), abs=1e-12)


@given(shares)
def test_interval_is_a_function_of_the_values(values: list[float]) -> None:
    summary = summarise(values)
    assert summary == summarise(values)
    assert min(values) - 1e-12 <= summary.low <= summary.high <= max(values) + 1e-12


@pytest.mark.parametrize("values", [[0.5], [0.5, None], [math.nan, 0.5]])
def test_one_seed_has_no_interval(values: list[float | None]) -> None:
    summary = summarise(values)
    assert (summary.n, summary.mean) == (1, 0.5)
    assert all(math.isnan(value) for value in (summary.sd, summary.se, summary.low, summary.high))


def test_no_seed_has_nothing() -> None:
    summary = summarise([None])
    assert summary.n == 0
    assert math.isnan(summary.mean)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (37, 50), (1, 2000), (1999, 2000)])
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    from scipy import stats

    expected = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_examples() -> None:
    assert all(math.isnan(value) for value in wilson_interval(0, 0))
