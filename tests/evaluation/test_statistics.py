from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.evaluation.measurements.base import Score
from pipeline.evaluation.statistics import (
    bounded_interval,
    rows_interval,
    student_interval,
    summarise,
    summarise_scores,
    wilson_interval,
)

SHARE, LOSS = Score("accuracy", bounds=(0, 1)), Score("loss", bounds=(0, None))
SEEDS = [0.91, 0.972, 0.985, 0.99, 0.95]
shares = st.lists(st.floats(0, 1), min_size=2, max_size=8)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def solved_by_some(likely: float, solved: float = 0.99, failed: float = 0.3) -> tuple[Draw, float]:
    """Accuracies of which a share `likely` is near that of a solved task and the rest near that of a failed one."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.clip(np.where(rng.random(n) < likely, solved, failed) + rng.normal(0, 0.003, n), 0, 1)

    return draw, likely * solved + (1 - likely) * failed


ACCURACIES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(0.6, 0.05, n), 0.6),
    "normal, near 1": (lambda rng, n: rng.normal(0.97, 0.005, n), 0.97),
    "skewed, near 1": (lambda rng, n: rng.beta(8, 0.5, n), 8 / 8.5),
    "skewed, near 0": (lambda rng, n: rng.beta(0.5, 8, n), 0.5 / 8.5),
    "U-shaped": (lambda rng, n: rng.beta(0.3, 0.3, n), 0.5),
    **{f"{likely:.0%} of seeds solve it": solved_by_some(likely) for likely in (0.1, 0.35, 0.5, 0.8, 0.95)},
    "all or nothing": solved_by_some(0.3, 1.0, 0.0),
}
UNBOUNDED: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(-3, 2, n), -3),
    "exponential": (lambda rng, n: rng.exponential(1, n), 1),
    "log-normal": (lambda rng, n: rng.lognormal(0, 0.5, n), math.exp(0.125)),
    "gamma": (lambda rng, n: rng.gamma(2, 1, n), 2),
}


def coverage(draw: Draw, mean: float, n: int, bounds: tuple[float, float] | None, trials: int) -> float:
    rng = np.random.default_rng(n)
    found = [summarise(draw(rng, n), bounds) for _ in range(trials)]
    return float(np.mean([summary.low <= mean <= summary.high for summary in found]))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", ACCURACIES)
def test_the_interval_of_an_accuracy_covers_its_mean(kind: str, n: int) -> None:
    assert coverage(*ACCURACIES[kind], n, (0, 1), trials=2000 if n == 3 else 400) >= 0.94


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", UNBOUNDED)
def test_the_interval_of_a_value_without_bounds_covers_its_mean(kind: str, n: int) -> None:
    assert coverage(*UNBOUNDED[kind], n, None, trials=4000) >= 0.94


RETURNS: dict[str, tuple[float, float, float, tuple[float, float]]] = {
    "CartPole, 80 % of seeds at 500": (0.8, 500, 20, (0, 500)),
    "CartPole, 30 % of seeds at 500": (0.3, 500, 20, (0, 500)),
    "T-Maze of 30 steps, 90 % at 1.1": (0.9, 1.1, -1.4, (-4.0, 1.1)),
    "Mystery Path, half at 1.6": (0.5, 1.6, 0.7, (0, 1.81)),
}


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", RETURNS)
def test_the_interval_of_a_return_of_known_range_covers_its_mean_where_only_some_seeds_solve_the_task(kind: str, n: int) -> None:
    likely, solved, failed, (lowest, highest) = RETURNS[kind]

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(rng.random(n) < likely, solved, failed)

    mean = likely * solved + (1 - likely) * failed
    assert coverage(draw, mean, n, (lowest, highest), 400) >= 0.94
    if n < 5:
        assert coverage(draw, mean, n, None, 1000) < 0.9  # Student's does not: the check can fail


def test_the_bounds_of_a_score_are_its_own_or_those_of_its_rows() -> None:
    row = {"held": 30.0, "lowest": -4.0, "highest": 1.5}
    assert SHARE.bounds_at([row]) == (0, 1)
    assert Score("bits", bounds=(0, "held")).bounds_at([row]) == (0, 30)
    ranged = Score("return", bounds=("lowest", "highest"))
    assert ranged.bounds_at([row, row | {"highest": 2.0}]) == (-4.0, 2.0)
    assert ranged.bounds_at([row, {}]) == (-math.inf, math.inf)
    assert ranged.bounds_at([row | {"lowest": math.nan}]) == (-math.inf, 1.5)
    assert LOSS.bounds_at([row]) == (0, math.inf) and ranged.bounds_at([]) == (-math.inf, math.inf)


def test_an_interval_between_bounds_holds_them_and_one_without_is_cut_off_there() -> None:
    rows = [{"return": value, "loss": loss, "lowest": 0.0, "highest": 5.0} for value, loss in ((1.0, 0.1), (4.0, 2.0))]
    ranged = Score("return", bounds=("lowest", "highest"))
    assert summarise_scores(rows, "return", ranged)[-2:] == bounded_interval(np.array([1.0, 4.0]), 0, 5)
    assert summarise_scores(rows, "loss", LOSS).low == 0 < summarise_scores(rows, "loss", LOSS).high
    assert student_interval(np.array([0.1, 2.0]))[0] < 0


@given(shares, st.floats(-100, 100), st.floats(0.1, 1000))
def test_bounds_scale_the_interval(values: list[float], lowest: float, width: float) -> None:
    low, high = bounded_interval(np.array(values))
    scaled = bounded_interval(lowest + width * np.array(values), lowest, lowest + width)
    assert scaled == pytest.approx((lowest + width * low, lowest + width * high), abs=1e-6 * width + 1e-9)


def test_bounds_that_meet_are_the_interval() -> None:
    assert bounded_interval(np.array([3.0, 3.0]), 3, 3) == (3, 3)


def test_these_checks_of_coverage_can_fail() -> None:
    """An interval of Student's that is right for normal values is not for the others."""

    def student(values: np.ndarray) -> bool:
        low, high = student_interval(values, 0.95)
        return low <= mean <= high

    rng = np.random.default_rng(0)
    draw, mean = ACCURACIES["50% of seeds solve it"]
    assert np.mean([student(draw(rng, 3)) for _ in range(2000)]) < 0.8
    draw, mean = UNBOUNDED["exponential"]
    assert np.mean([student(draw(rng, 3)) for _ in range(2000)]) < 0.9


@pytest.mark.parametrize(("right", "n"), [(0, 2), (2, 2), (0, 3), (1, 3), (3, 3), (4, 5), (7, 10), (10, 10)])
def test_of_values_0_and_1_the_interval_is_that_of_clopper_and_pearson(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(confidence_level=0.95, method="exact")
    assert bounded_interval(np.array([1.0] * right + [0.0] * (n - right))) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("values", [[0.2, 0.5, 0.9], [0.99, 0.99, 0.31], SEEDS, [0.7, 0.7]])
def test_the_interval_of_shares_equals_its_definition_by_sampling(values: list[float]) -> None:
    weights = np.random.default_rng(3).dirichlet(np.ones(len(values) + 1), size=400_000)
    low = np.quantile(weights @ np.sort([0, *values]), 0.025)
    high = np.quantile(weights @ np.sort([*values, 1]), 0.975)
    assert bounded_interval(np.array(values)) == pytest.approx((low, high), abs=2e-3)


def test_the_interval_without_bounds_is_scipys() -> None:
    expected = stats.t.interval(0.99, 4, loc=stats.tmean(SEEDS), scale=stats.sem(SEEDS))
    assert student_interval(np.array(SEEDS)) == pytest.approx(expected, rel=1e-12)


def test_moments_equal_scipy() -> None:
    summary = summarise(SEEDS)
    assert summary.n == 5
    assert summary.mean == pytest.approx(stats.tmean(SEEDS), rel=1e-12)
    assert summary.sd == pytest.approx(stats.tstd(SEEDS), rel=1e-12)
    assert summary.se == pytest.approx(stats.sem(SEEDS), rel=1e-12)


@given(shares)
def test_the_interval_of_shares_holds_the_mean_and_stays_between_0_and_1(values: list[float]) -> None:
    summary = summarise(values, (0, 1))
    assert summary == summarise(reversed(values), (0, 1))._replace(mean=summary.mean, sd=summary.sd, se=summary.se)
    assert 0 <= summary.low <= summary.mean + 1e-12
    assert summary.mean - 1e-12 <= summary.high <= 1


@given(shares, st.integers(0, 7), st.floats(0, 1))
def test_a_better_seed_never_lowers_the_interval(values: list[float], place: int, gain: float) -> None:
    better = list(values)
    better[place % len(values)] += gain * (1 - better[place % len(values)])
    below, above = summarise(values, (0, 1)), summarise(better, (0, 1))
    assert above.low >= below.low - 1e-9
    assert above.high >= below.high - 1e-9


@pytest.mark.parametrize("values", [[0.5], [0.5, None], [math.nan, 0.5]])
@pytest.mark.parametrize("bounds", [(0, 1), None])
def test_one_seed_has_no_interval_over_seeds(values: list[float | None], bounds: tuple[float, float] | None) -> None:
    summary = summarise(values, bounds)
    assert (summary.n, summary.mean) == (1, 0.5)
    assert all(math.isnan(value) for value in (summary.sd, summary.se, summary.low, summary.high))


def test_no_seed_has_nothing() -> None:
    summary = summarise([None])
    assert summary.n == 0
    assert math.isnan(summary.mean)


def test_a_single_seed_has_the_interval_over_its_own_examples() -> None:
    row = {"rows": 500, "accuracy": 0.75, "accuracy_low": 0.71, "accuracy_high": 0.79, "exact": 0.5, "loss": 0.2}
    assert summarise_scores([row], "accuracy", SHARE)[-2:] == (0.71, 0.79)
    assert summarise_scores([row], "exact", SHARE._replace(share_of_examples=True))[-2:] == wilson_interval(250, 500)
    assert all(math.isnan(end) for end in summarise_scores([row], "loss", LOSS)[-2:])


def test_seeds_are_the_unit_whatever_the_number_of_their_examples() -> None:
    """Three seeds at 50, 75 and 100 % of 500 episodes: their 1,125 of 1,500 episodes say nothing of a fourth seed."""
    rows = [{"rows": 500, "accuracy": share, "accuracy_low": share - 0.04, "accuracy_high": share + 0.04} for share in (0.5, 0.75, 1.0)]
    found = summarise_scores(rows, "accuracy", SHARE)
    assert (found.low, found.high) == bounded_interval(np.array([0.5, 0.75, 1.0]))
    assert found.low < 0.5 < 0.95 < found.high


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (37, 50), (1, 2000), (1999, 2000)])
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_examples() -> None:
    assert all(math.isnan(value) for value in wilson_interval(0, 0))


@pytest.mark.parametrize("right", [0, 37, 50])
def test_rows_of_one_answer_have_wilsons_interval(right: int) -> None:
    correct = np.array([1] * right + [0] * (50 - right))
    assert rows_interval(correct, np.ones(50, dtype=int)) == pytest.approx(wilson_interval(right, 50), abs=1e-12)


@pytest.mark.parametrize("together", [0.5, 4, 400])
def test_the_interval_over_rows_covers_where_the_answers_of_a_row_stand_and_fall_together(together: float) -> None:
    """Rows of ten answers that are right with a probability of their own, drawn from a beta distribution of mean 0.8."""
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(1500):
        scored = rng.integers(5, 16, 200)
        low, high = rows_interval(rng.binomial(scored, rng.beta(0.8 * together, 0.2 * together, 200)), scored)
        inside.append(low <= 0.8 <= high)
    assert np.mean(inside) >= 0.93


@pytest.mark.parametrize("rows", [10, 20, 50])
def test_the_interval_over_few_rows_covers_too(rows: int) -> None:
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(2000):
        scored = rng.integers(1, 11, rows)
        low, high = rows_interval(rng.binomial(scored, rng.beta(2, 0.3, rows)), scored)
        inside.append(low <= 2 / 2.3 <= high)
    assert np.mean(inside) >= 0.92


def test_the_interval_over_rows_is_no_wider_than_it_must_be() -> None:
    scored = np.full(200, 10)
    low, _ = rows_interval(np.random.default_rng(3).binomial(scored, 0.8), scored)
    assert low > 0.75
