"""Budgets of learners: exactly one, with suffixes, in FLOPs up to 10**21; warm-ups as a fraction of them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import learners
from pipeline.config.base import canonical
from pipeline.config.learners import LEARNERS, Learner

Supervised: Any = learners.Supervised
Ppo: Any = learners.Ppo
A2c: Any = learners.A2c


@pytest.mark.parametrize("learner", sorted(LEARNERS))
@pytest.mark.parametrize(
    ("written", "flops"),
    [
        ("2P", 2 * 10**15),
        ("0.5T", 5 * 10**11),
        ("3g", 3 * 10**9),
        ("1_000M", 10**9),
        ("40k", 40_000),
        (7, 7),
        (2e15, 2 * 10**15),
        (1e21, 10**21),
    ],
)
def test_flops_have_suffixes(learner: str, written: Any, flops: int) -> None:
    config: Any = LEARNERS[learner](flops=written)  # pyright: ignore[reportCallIssue]
    assert (config.budget, config.flops, config.total_steps) == ("flops", flops, None)


@pytest.mark.parametrize("flops", [0, -1, 1.5, "2E", "1001000P", 1.1e21, float("inf"), True, ""])
def test_other_flops_are_refused(flops: Any) -> None:
    with pytest.raises(ValidationError, match="flops"):
        Supervised(flops=flops)


def test_exactly_one_budget() -> None:
    with pytest.raises(ValidationError, match="got rows and flops; expected one budget out of rows, steps, flops and seconds"):
        Supervised(flops=1, rows=100)
    with pytest.raises(ValidationError, match="missing budget; expected one of total_timesteps, num_updates, flops and seconds"):
        Ppo()
    for budget in Supervised.budgets:
        assert Supervised(**{budget: 64}).budget == budget


def test_a_learner_that_does_not_count_refuses_the_budget() -> None:
    class Plain(Learner):
        name: str = "plain"
        steps: int | None = None
        rows: int | None = None

        @property
        def rows_per_step(self) -> int:
            return 1

    assert Plain(steps=3).budget == "steps"
    with pytest.raises(ValidationError, match="plain does not count FLOPs; expected one budget out of rows, steps and seconds"):
        Plain(flops=3)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "inverse"])
def test_every_schedule_goes_with_flops(schedule: Any) -> None:
    assert Supervised(flops=100, lr_schedule=schedule).lr_schedule == schedule
    assert A2c(flops=100, lr_schedule=schedule, ent_coef_schedule=schedule).ent_coef_schedule == schedule


def test_stored_rows_are_as_many_as_with_seconds() -> None:
    assert Supervised(flops="1P").stored_rows == Supervised(seconds=1).stored_rows == 100_000
    assert Supervised(flops="1P", distinct_rows=7).stored_rows == 7


def test_warm_up_in_updates_or_as_a_fraction_of_the_budget() -> None:
    assert Supervised(rows=3200, warmup_steps=0.1).warmup_updates == 10
    assert Supervised(steps=300, warmup_steps=0.01).warmup_updates == 3
    assert Supervised(steps=4, warmup_steps=0.01).warmup_updates == 1
    in_flops = Ppo(flops="1T", warmup_steps=0.1)
    assert (in_flops.warmup_updates, in_flops.warmup_flops) == (0, 10**11)
    whole = Ppo(flops="1T", warmup_steps=12)
    assert (whole.warmup_updates, whole.warmup_flops) == (12, 0)


def test_whole_warm_ups_keep_their_identifiers() -> None:
    assert canonical(Supervised(steps=9)) == {"name": "supervised", "version": Supervised.version, "steps": 9}
    for written in (3, 3.0):
        found = canonical(Supervised(steps=9, warmup_steps=written))
        assert found["warmup_steps"] == 3 and isinstance(found["warmup_steps"], int)
    assert canonical(Supervised(steps=9, warmup_steps=0.25))["warmup_steps"] == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 9, "warmup_steps": 1.5}, "warmup_steps"),
        ({"steps": 9, "warmup_steps": -0.5}, "warmup_steps"),
        ({"seconds": 9, "warmup_steps": 0.5}, "warmup_steps: 0.5 with a budget in seconds; expected one in rows, steps or flops"),
        (
            {"flops": 9, "warmup_steps": 0.5, "lr_schedule": "inverse"},
            "got warmup_steps: 0.5 of a budget in flops with lr_schedule: inverse; expected a number of updates",
        ),
    ],
)
def test_other_warm_ups_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Supervised(**fields)
