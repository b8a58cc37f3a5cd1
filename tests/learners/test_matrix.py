"""The matrix: every mixer on every task with every learner that suits it makes two updates and validates."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from pipeline.config.learners import LEARNERS
from pipeline.config.mixers import MIXERS
from pipeline.config.tasks import TASKS
from tests.learners.small import small_learner


def suits(mixer: Any, task: Any, learner: Any) -> bool:
    """Whether the capabilities that a mixer and a task declare are what a learner needs."""
    fits = task.kind == learner.kind and (task.grid or not learner.grid)
    return fits and (task.grid or (mixer.causal and not mixer.needs_grid))


CELLS = [cell for cell in product(MIXERS, TASKS, LEARNERS) if suits(MIXERS[cell[0]], TASKS[cell[1]], LEARNERS[cell[2]])]


@pytest.mark.parametrize(("mixer", "task", "learner"), CELLS)
def test_two_updates_and_a_validation(mixer: str, task: str, learner: str) -> None:
    made = small_learner(mixer, task, learner)
    before = {name: tensor.clone() for name, tensor in made.models()["model"].state_dict().items()}
    for _ in range(2):
        assert all(math.isfinite(float(value)) for value in made.update().values())
    rows_drawn = made.config.rows_per_step if learner == "deep_supervision" else 2 * made.config.rows_per_step  # whose rows stay
    assert (made.steps, made.examples_seen) == (2, rows_drawn)
    assert any(not tensor.equal(before[name]) for name, tensor in made.models()["model"].state_dict().items())
    validation = made.validate()
    assert all(math.isfinite(value) for value in validation.values())
    assert math.isfinite(made.score(validation))
    assert 0 < made.progress(0.0) < 1
