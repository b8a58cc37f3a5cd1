"""Statistics over seeds and over examples. Every figure and table takes its means and intervals from here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000


class Summary(NamedTuple):
    """A quantity over seeds: how many seeds, mean, standard deviation (n - 1), standard error, 95 % interval. NaN where undefined."""

    n: int
    mean: float
    sd: float
    se: float
    low: float
    high: float


def summarise(values: Iterable[float | None]) -> Summary:
    """Mean, spread and 95 % bootstrap interval of one value per seed; missing values are left out.

    One seed has a mean and no interval: nothing is known of its spread.
    """
    known = np.array([value for value in values if value is not None and not math.isnan(value)], dtype=np.float64)
    n = len(known)
    mean = float(known.mean()) if n else math.nan
    sd = float(known.std(ddof=1)) if n > 1 else math.nan
    low, high = bootstrap_interval(known)
    return Summary(n, mean, sd, sd / math.sqrt(n) if n > 1 else math.nan, low, high)


def bootstrap_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), from resamples that depend on the number of values only.

    So the interval is a function of the values: computed twice, it is the same number. Fewer than two values give NaN.
    """
    if len(values) < 2:
        return math.nan, math.nan
    means = values[_resamples(len(values))].mean(axis=1)
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


@lru_cache(maxsize=32)
def _resamples(n: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(n)).integers(n, size=(RESAMPLES, n))


def wilson_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927): right for few examples and for shares near 0 and 1. NaN without examples."""
    if n == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)
