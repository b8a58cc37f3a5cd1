"""Statistics over seeds and over examples. Every figure and table takes its means and intervals from here.

The seed is the unit: an interval is for the mean over all seeds that training could have started from. The examples of a run tell how precisely
that run is measured, and nothing about other seeds; the interval over examples is used only if there is a single seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.storage.lazy import np

if TYPE_CHECKING:
    from pipeline.evaluation.measurements.base import Score

LEVEL = 0.95
SKEWED = 0.99
"""Level of the Student interval of unbounded values, at which it covers the mean of exponential values in 95 % of cases."""
Interval = tuple[float, float]
NOWHERE: Interval = (math.nan, math.nan)


class Summary(NamedTuple):
    """A quantity over seeds: how many seeds, mean, standard deviation (n - 1), standard error, 95 % interval. NaN where undefined."""

    n: int
    mean: float
    sd: float
    se: float
    low: float
    high: float


def summarise(values: Iterable[float | None], bounds: Interval | None = None) -> Summary:
    """Return mean, spread and 95 % interval of one value per seed; missing values are left out.

    bounds: lowest and highest possible value; None: unbounded. One seed has a mean but no interval.
    """
    known = np.array([value for value in values if value is not None and not math.isnan(value)], dtype=np.float64)
    n = len(known)
    mean = float(known.mean()) if n else math.nan
    sd = float(known.std(ddof=1)) if n > 1 else math.nan
    low, high = bounded_interval(known, *bounds) if bounds else student_interval(known)
    return Summary(n, mean, sd, sd / math.sqrt(n) if n > 1 else math.nan, low, high)


def summarise_scores(rows: Iterable[Mapping[str, Any]], name: str, score: Score) -> Summary:
    """Summarise one score over rows of results.parquet, one per seed; a single seed has the interval over its examples."""
    known = [row for row in rows if row.get(name) is not None and not math.isnan(row[name])]
    low, high = score.bounds_at(known)
    summary = summarise((row[name] for row in known), (low, high) if math.isfinite(high - low) else None)
    if summary.n != 1:
        return summary._replace(low=low if summary.low < low else summary.low, high=high if summary.high > high else summary.high)
    low, high = over_examples(known[0], name, score)
    return summary._replace(low=low, high=high)


def over_examples(row: Mapping[str, Any], name: str, score: Score) -> Interval:
    """Return the 95 % interval of one run's score over its examples; NaN if unknown."""
    if f"{name}_low" in row:
        ends = row[f"{name}_low"], row[f"{name}_high"]
        return ends if None not in ends else NOWHERE
    return wilson_interval(row[name] * row["rows"], row["rows"]) if score.share_of_examples else NOWHERE


def bounded_interval(values: np.ndarray, lowest: float = 0.0, highest: float = 1.0, level: float = LEVEL) -> Interval:
    """Return an interval of the mean of bounded values that holds for any distribution (Gaffke 2005; Learned-Miller and Thomas 2020, eq. 2).

    Weight the sorted values, with `lowest` added below them, by random weights that sum to one: the lower end is the (1 - level) / 2 quantile
    of that sum, and the upper end likewise with `highest` added above them. For values that are 0 or 1 these are the ends of Clopper and
    Pearson. If all seeds agree it stays wide: n equal seeds are likely as long as the share of such seeds is above 0.025^(1/n), 29 % for
    three. Fewer than two values give NaN.
    """
    if len(values) < 2:
        return NOWHERE
    width = highest - lowest
    assert values.min() >= lowest - 1e-6 * width and values.max() <= highest + 1e-6 * width, "values lie within their bounds"
    if width == 0:
        return lowest, highest
    inside, tail = sorted(np.clip((values - lowest) / width, 0, 1).tolist()), (1 - level) / 2
    low = _weighted_quantile([0.0, *inside], tail)
    high = 1 - _weighted_quantile([0.0, *(1 - value for value in reversed(inside))], tail)
    return lowest + width * low, lowest + width * high


def _weighted_quantile(values: list[float], tail: float) -> float:
    """Return the `tail` quantile of the sum of sorted values with uniformly distributed weights, found by bisection."""
    low, high = values[0], values[-1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _weighted_share(values, middle) >= tail else (middle, high)
    return high


def _weighted_share(values: list[float], limit: float) -> float:
    """Return the probability that the sum of sorted values with uniformly distributed weights is at most `limit`.

    The sum's density is the B-spline whose knots are the values, and its integral obeys the recursion of de Boor (1972).
    """
    share = [float(value <= limit) for value in values]
    for order in range(1, len(values)):
        spans = zip(values, values[order:], share, share[1:], strict=False)
        share = [
            float(b <= limit) if not a <= limit < b else ((limit - a) * below + (b - limit) * above) / (b - a)
            for a, b, below, above in spans
        ]
    return share[0]


def student_interval(values: np.ndarray, level: float = SKEWED) -> Interval:
    """Return Student's t interval of the mean of unbounded values, widened so that it also holds for skewed ones.

    No interval holds for every unbounded distribution (Bahadur and Savage 1956). Fewer than two values give NaN.
    """
    if len(values) < 2:
        return NOWHERE
    from scipy.special import stdtrit

    mean, n = float(values.mean()), len(values)
    reach = float(stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - reach, mean + reach


def wilson_interval(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of a share (Wilson 1927), valid for few examples and shares near 0 and 1. NaN without examples."""
    if n == 0:
        return NOWHERE
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(max(0.0, share * (1 - share)) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def rows_interval(correct_R: np.ndarray, scored_R: np.ndarray, level: float = LEVEL) -> Interval:
    """Return the interval of the share of right answers when those of one row are correlated (Korn and Graubard 1998).

    correct_R, scored_R: right answers of each row, and all. Wilson's interval with the effective number of independent answers, which would
    have the same variance; one per row if there is no variance.
    """
    scored, rows = int(scored_R.sum(dtype=np.int64)), len(scored_R)
    if not scored:
        return NOWHERE
    share = int(correct_R.sum(dtype=np.int64)) / scored
    variance = float(np.square(correct_R - share * scored_R).sum()) / scored**2
    independent = min(share * (1 - share) / variance, scored) if variance > 0 else rows
    if scored > rows > 1:
        from scipy.special import stdtrit

        independent *= (NormalDist().inv_cdf(0.5 + level / 2) / float(stdtrit(rows - 1, 0.5 + level / 2))) ** 2
    return wilson_interval(share * independent, independent, level)
