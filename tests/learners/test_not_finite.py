"""Numbers that are not finite are named where they arise: bad rows, bad weights, a network that gives them, a training that diverged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from pipeline.config.learners import A2c, Ppo
from pipeline.config.tasks import Adding
from pipeline.learners.base import NotFiniteError
from pipeline.learners.on_policy import std
from pipeline.learners.sampler import collate, sequential_batches
from pipeline.storage.errors import UserError
from pipeline.storage.loader import MemoryRows
from pipeline.tasks import generate
from pipeline.training.serialization import check_finite
from tests.learners.small import small_learner, small_problem, small_task


def spoiled(column: str, place: int, value: float = np.nan) -> MemoryRows:
    """Rows of the adding problem with one number that is none."""
    rows: Any = small_problem(small_task("adding")).train
    sequences = getattr(rows.rows, column)
    values = sequences.values.copy()
    values[place] = value
    sequences.values = values
    return rows


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["values", "target"])
def test_a_row_with_a_number_that_is_none_is_named(column: str, value: float) -> None:
    rows = spoiled(column, 0, value)
    with pytest.raises(UserError, match=rf"^train: row 0: {column}.* is {value}; expected finite numbers$"):
        list(sequential_batches(rows, 4))


def test_the_row_of_a_target_is_counted() -> None:
    rows = spoiled("target", 7)
    with pytest.raises(UserError, match=r"^train: row 7: target is nan"):
        list(sequential_batches(rows, 40))
    with pytest.raises(UserError, match=r"^rows: row 7: target is nan"):
        collate(rows.gather(np.arange(10)))


def test_a_generator_is_told_what_it_made(tmp_path: Path) -> None:
    config = Adding(length=5)
    made: Any = small_problem(config).train
    assert made is not None
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.array([0, 1, 2, np.inf], np.float32)), 2)
    tokens = pa.FixedSizeListArray.from_arrays(pa.array(np.array([0, 0, 1, config.vocabulary], np.uint16)), 2)
    for name, values, message in (
        ("values", column, "row 1: adding made values inf; expected finite numbers"),
        ("tokens", tokens, f"row 1: adding made tokens {config.vocabulary}; expected 0..{config.vocabulary - 1}"),
    ):
        with pytest.raises(UserError, match=message):
            generate._refuse_wrong(pa.RecordBatch.from_arrays([values], [name]), config, tmp_path / "00000.parquet")


def test_a_batch_with_nothing_to_learn_from_is_named() -> None:
    learner: Any = small_learner()
    batch = learner.sampler.next()
    nothing = batch._replace(labels_BT=torch.full_like(batch.labels_BT, -100))
    with pytest.raises(UserError, match=r"^train: a batch of 4 rows has no scored token; expected at least one$"):
        learner.learn_from(nothing)


def test_a_part_of_a_batch_with_nothing_to_learn_from_counts_for_nothing() -> None:
    whole, parts = small_learner(max_grad_norm=None), small_learner(max_grad_norm=None, micro_batch_size=1)
    learners: list[Any] = [whole, parts]
    for learner in learners:
        batch = learner.sampler.next()
        batch.labels_BT[2] = -100
        assert np.isfinite(float(learner.learn_from(batch)["train_loss"]))
    for name, weight in whole.models()["model"].state_dict().items():
        torch.testing.assert_close(weight, parts.models()["model"].state_dict()[name], msg=name)


@pytest.mark.parametrize(("name", "task"), [("ppo", "t_maze"), ("a2c", "t_maze")])
def test_a_network_that_gives_nan_is_not_a_learning_rate_too_high(name: str, task: str) -> None:
    learner: Any = small_learner("gru", task, name)
    with torch.no_grad():
        learner.network.critic[0].weight[0, 0] = np.nan
    found = r"^step 0: the policy or the critic gives numbers that are not finite before any update: the initial weights cause it"
    with pytest.raises(NotFiniteError, match=found):
        learner.update()
    learner.steps = 3
    with pytest.raises(
        NotFiniteError, match=r"^step 3: .*: training has diverged; lower learner.learning_rate, or set learner.max_grad_norm$"
    ):
        learner.update()


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    network: Any = small_learner().network
    check_finite(network, tmp_path / "model.safetensors")
    with torch.no_grad():
        network.head.bias[1] = np.inf
    with pytest.raises(UserError, match=r"model.safetensors: head.bias: 1 of \d+ weights are not finite"):
        check_finite(network, tmp_path / "model.safetensors")


@pytest.mark.parametrize("fields", [{"num_envs": 4, "rollout_steps": 1}, {"num_envs": 1, "rollout_steps": 4, "bptt_steps": 1}])
def test_minibatches_of_one_step_are_refused_where_they_would_be_normalised(fields: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError,
        match="got minibatches of one step, whose advantages have no deviation; expected more steps, or normalize_advantage",
    ):
        Ppo(num_updates=1, num_minibatches=4, **fields)
    Ppo(num_updates=1, num_minibatches=4, normalize_advantage=False, **fields)
    Ppo(num_updates=1, num_minibatches=2, **fields)
    assert "cannot be normalised" in str(Ppo(num_updates=1, num_minibatches=2, **fields).division_error(2)) or "bptt_steps" in fields


def test_a_rollout_of_one_step_is_refused_where_it_would_be_normalised() -> None:
    with pytest.raises(ValidationError, match="got rollouts of one step, whose advantage has no deviation"):
        A2c(num_updates=1, num_envs=1, rollout_steps=1, normalize_advantage=True)
    assert "cannot be normalised" in str(A2c(num_updates=1, num_envs=2, rollout_steps=1, normalize_advantage=True).division_error(2))
    assert A2c(num_updates=1, num_envs=4, rollout_steps=1, normalize_advantage=True).division_error(2) is None


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_one_step_of_one_copy_gives_figures_that_are_numbers(name: str) -> None:
    fields = {"num_minibatches": 1, "normalize_advantage": False} if name == "ppo" else {}
    learner: Any = small_learner("gru", "t_maze", name, num_envs=1, rollout_steps=1, **fields)
    for _ in range(3):
        assert all(np.isfinite(float(value)) for value in learner.update().values())


def test_the_deviation_of_one_number_is_zero_and_of_more_that_of_a_sample() -> None:
    assert float(std(torch.tensor([[3.0]]))) == 0
    assert float(std(torch.tensor([1.0, 2.0, 4.0]))) == pytest.approx(np.std([1, 2, 4], ddof=1))
