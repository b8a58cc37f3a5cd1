"""The curriculum grows when, and only when, its hardest rows are mastered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.learners import Curriculum
from pipeline.learners.curriculum import Level


def level(largest: int = 100, smallest: int = 1, values: list[int] | None = None, **fields: Any) -> Level:
    config = Curriculum(**{"column": "delay", "start": 4, "window": 5, **fields})
    return Level(config, np.arange(smallest, largest + 1) if values is None else np.array(values))


def observe(found: Level, delays: list[int], right: list[bool], batches: int = 1) -> None:
    """Batches with one scored position per row."""
    for _ in range(batches):
        found.observe(np.array(delays, np.int32), torch.arange(len(delays)), torch.tensor(right))


def test_mastered_levels_double_up_to_the_largest() -> None:
    found, seen = level(), []
    for _ in range(6):
        seen.append(found.limit)
        observe(found, [found.value], [True], batches=5)
    assert seen == [4, 8, 16, 32, 64, None]
    assert found.value == found.largest == 100


def test_judged_only_after_enough_batches() -> None:
    found = level()
    observe(found, [4], [True], batches=4)
    assert found.value == 4
    observe(found, [4], [True])
    assert found.value == 8


def test_easy_rows_do_not_count() -> None:
    found = level(start=10)
    observe(found, [6, 10], [True, False], batches=50)
    assert found.value == 10
    observe(found, [6, 7], [False, True], batches=10)
    assert found.value == 20


def test_without_hard_rows_the_judgement_waits() -> None:
    found = level(start=10)
    observe(found, [1], [True], batches=50)
    assert found.value == 10
    observe(found, [10], [True])
    assert found.value == 20


def test_threshold_must_be_reached() -> None:
    found = level(threshold=0.5)
    observe(found, [4, 4, 4], [True, False, False], batches=5)
    assert found.value == 4
    observe(found, [4, 4], [True, False], batches=5)
    assert found.value == 8


def test_a_threshold_of_one_is_reached_by_no_mistake_and_by_nothing_less() -> None:
    found = level(threshold=1.0, largest=20, start=3)
    observe(found, [3] * 999, [True] * 998 + [False], batches=5)
    assert found.value == 3
    seen = []
    while found.limit is not None:
        seen.append(found.value)
        observe(found, [found.value] * 999, [True] * 999, batches=5)
    assert seen == [3, 6, 12] and found.value == 20


@pytest.mark.parametrize("upper", [0.0, 0.7, 1.0])
def test_sparse_values_are_passed_one_by_one(upper: float) -> None:
    """Every level is a value that rows have: 8 or 35 would have had no rows to judge by."""
    found, seen = level(values=[2, 5, 50, 90], upper=upper), []
    while found.limit is not None:
        seen.append(found.value)
        observe(found, [2, found.value], [True, True], batches=5)
    assert seen == [2, 5, 50] and found.value == 90


@pytest.mark.parametrize("factor", [1.0000001, 1e6])
def test_the_least_and_the_largest_factor(factor: float) -> None:
    found = level(factor=factor, window=1)
    observe(found, [4], [True])
    assert found.value == (5 if factor < 2 else 100)


def test_positions_count_by_their_row() -> None:
    found = level()
    for _ in range(5):
        found.observe(np.array([1, 4]), torch.tensor([0, 0, 0, 1]), torch.tensor([False, False, False, True]))
    assert found.value == 8


def test_bounds_of_the_data() -> None:
    assert level(smallest=7).value == 7
    assert level(largest=3).limit is None


@given(factor=st.floats(1.0001, 3), start=st.integers(1, 50))
def test_every_promotion_is_an_advance(factor: float, start: int) -> None:
    found = level(factor=factor, start=start, window=1)
    while found.limit is not None:
        before = found.value
        observe(found, [found.value], [True])
        assert found.value > before


def test_state_goes_on_where_it_was() -> None:
    one, other = level(), level()
    observe(one, [4, 3], [True, True], batches=3)
    other.load_state_dict(one.state_dict())
    for found in (one, other):
        observe(found, [4], [True], batches=2)
    assert one.value == other.value == 8 and one.state_dict() == other.state_dict()
