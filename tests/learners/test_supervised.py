"""Supervised learning: what is counted in its figures, what validation leaves alone, and that it learns."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.learners import Supervised as Config
from pipeline.config.mixers import Lstm
from pipeline.config.networks import SequenceNetwork
from pipeline.config.tasks import Copy, Mqar
from pipeline.learners.sampler import ShardSampler, sequential_batches
from pipeline.learners.supervised import Supervised
from pipeline.networks.build import build
from tests.learners.small import small_learner, small_problem


class Answers(nn.Module):
    """Says the label of some rows and something else of the others; knows them from the rows it is shown first."""

    def __init__(self, learner: Supervised, right: set[int]) -> None:
        super().__init__()
        self.known = {}
        for batch in sequential_batches(learner.validation, 1):
            self.known[tuple(batch.tokens_BT[0].tolist())] = (batch.labels_BT[0], int(batch.columns["row"][0]) in right)

    def forward(self, tokens_BT: Tensor, at_N: Tensor) -> tuple[Tensor, None]:
        logits_BTC = torch.zeros(*tokens_BT.shape, 4)
        for row, tokens in enumerate(tokens_BT):
            labels, right = next(found for known, found in self.known.items() if tuple(tokens[: len(known)].tolist()) == known)
            for place in (labels >= 0).nonzero()[:, 0].tolist():
                logits_BTC[row, place, (int(labels[place]) + (not right)) % 4] = 50.0
        return logits_BTC.flatten(0, 1)[at_N], None


def supervised(**fields: Any) -> Supervised:
    made = small_learner(**fields)
    assert isinstance(made, Supervised)
    return made


def test_validation_counts_positions_and_rows() -> None:
    learner = supervised()
    learner.networks["model"] = Answers(learner, right={0, 3, 4})
    assert learner.validate() == pytest.approx({"loss": 50 * 0.7, "accuracy": 0.3, "sequence_accuracy": 0.3}, rel=1e-5)


def test_a_row_with_one_fault_is_not_a_whole_one() -> None:
    learner = supervised()
    answers = Answers(learner, right=set(range(10)))
    for labels, _ in answers.known.values():
        first = int((labels >= 0).nonzero()[0])
        labels[first] = (labels[first] + 1) % 4
    learner.networks["model"] = answers
    found = learner.validate()
    assert found["accuracy"] == pytest.approx(2 / 3) and found["sequence_accuracy"] == 0


def test_the_update_is_gradient_descent_on_the_mean_cross_entropy() -> None:
    learner, twin = supervised(), supervised()
    batch = twin.sampler.next()
    logits_BTC, _ = twin.network(batch.tokens_BT, length_B=batch.length_B)
    loss = nn.functional.cross_entropy(logits_BTC.flatten(0, 1), batch.labels_BT.flatten(), ignore_index=-100)
    loss.backward()
    figures = learner.update()
    assert float(figures["train_loss"]) == pytest.approx(loss.item(), rel=1e-6)
    for (name, mine), theirs in zip(learner.network.named_parameters(), twin.network.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        norm = max(float(figures["gradient_norm"]), 1.0)
        assert torch.allclose(mine.grad, theirs.grad / norm, rtol=1e-4, atol=1e-6), name


def test_real_answers_are_learned_by_their_mean_squared_error() -> None:
    learner, twin = supervised(task="adding"), supervised(task="adding")
    batch = twin.sampler.next()
    output_BTC, _ = twin.network(batch.tokens_BT, length_B=batch.length_B, values_BTF=batch.values_BTF)
    rows = range(len(batch.tokens_BT))
    errors = [output_BTC[row, int(batch.length_B[row]) - 1, 0] - batch.labels_BT[row, int(batch.length_B[row]) - 1] for row in rows]
    loss = torch.stack(errors).square().mean()
    loss.backward()
    figures = learner.update()
    assert float(figures["train_loss"]) == pytest.approx(loss.item(), rel=1e-6)
    assert float(figures["train_accuracy"]) == np.mean([abs(error.item()) <= 0.04 for error in errors])
    for (name, mine), theirs in zip(learner.network.named_parameters(), twin.network.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad / max(float(figures["gradient_norm"]), 1.0), rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_parts_of_a_batch_add_up_to_the_whole(micro_batch_size: int) -> None:
    curriculum: Any = {"column": "delay", "start": 2, "window": 3}
    whole, parted = (supervised(batch_size=8, curriculum=curriculum, micro_batch_size=rows) for rows in (None, micro_batch_size))
    for learner in (whole, parted):
        learner.network.double()
    for _ in range(5):
        expected, found = whole.update(), parted.update()
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}
        )
    for name, weight in whole.network.state_dict().items():
        torch.testing.assert_close(parted.network.state_dict()[name], weight, rtol=1e-9, atol=1e-12)
    assert whole.level and parted.level
    assert {**parted.level.state_dict()} == {**whole.level.state_dict()}


def test_classes_may_depend_on_real_numbers() -> None:
    task = Mqar(continuous=3, pairs=2, length=10, vocab_size=12)
    network = build(SequenceNetwork(width=8), task.sizes)
    learner = Supervised(Config(steps=2, batch_size=4), network, small_problem(task), 0, torch.device("cpu"))
    assert 1 < float(learner.update()["train_loss"]) < 4
    weight = network.get_parameter("values.weight")
    assert weight.shape == (8, 3) and weight.grad is not None and bool(weight.grad.any())
    assert learner.validate()["loss"] > 1


def test_figures_stay_on_the_device() -> None:
    assert all(isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad for value in supervised().update().values())


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_validation_changes_nothing(average: float) -> None:
    learner, twin = (supervised(ema_decay=average, network={"dropout": 0.5}) for _ in range(2))
    for _ in range(3):
        torch.manual_seed(learner.steps)
        state = torch.get_rng_state()
        first = learner.validate()
        assert first == learner.validate(), "dropout is off"
        assert torch.get_rng_state().equal(state)
        mine = learner.update()
        torch.manual_seed(twin.steps)
        theirs = twin.update()
        assert {name: float(value) for name, value in mine.items()} == {name: float(value) for name, value in theirs.items()}


@pytest.mark.parametrize("data", ["shards", "stream"])
def test_the_curriculum_limits_what_is_drawn(data: Any) -> None:
    learner = supervised(data=data, curriculum={"column": "delay", "start": 2, "threshold": 0.01, "window": 3}, steps=60)
    seen, draw = [], learner.sampler.next

    def watched() -> Any:
        batch = draw()
        seen.append((learner.metrics()["level"], int(batch.columns["delay"].max())))
        return batch

    learner.sampler.next = watched  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(40):
        learner.update()
    assert all(longest <= level for level, longest in seen)
    assert seen[0][0] == 2 and seen[-1][0] == 6
    assert learner.sampler.level is None


def test_learning_rate_is_the_one_of_the_schedule() -> None:
    learner = supervised(lr_schedule="linear", learning_rate=0.5, warmup_steps=2)
    rates = []
    for _ in range(10):
        announced = learner.metrics()["learning_rate"]
        learner.update()
        rates.append(learner.optimizers.rules["main"].optimizer.param_groups[0]["lr"])
        assert announced == rates[-1]
    assert rates == pytest.approx([0.25, 0.5, *(0.5 * (8 - step) / 8 for step in range(8))])


def test_score_and_goal() -> None:
    learner = supervised(stop_at=0.9)
    assert learner.score({"loss": 1.0}) > learner.score({"loss": 1.1})
    assert learner.is_good_enough({"accuracy": 0.9}) and not learner.is_good_enough({"accuracy": 0.89})
    assert not supervised().is_good_enough({"accuracy": 1.0})


def test_state_holds_everything_that_changes() -> None:
    fields = {"ema_decay": 0.9, "curriculum": {"column": "delay", "start": 2, "threshold": 0.01, "window": 3}, "optimizer": "rmsprop"}
    one, other = supervised(**fields), supervised(**fields)
    for _ in range(5):
        one.update()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(4):
        mine, theirs = one.update(), other.update()
        assert {name: float(value) for name, value in mine.items()} == {name: float(value) for name, value in theirs.items()}
    assert one.validate() == other.validate() and one.metrics() == other.metrics()


def test_the_smoke_problem_is_learned_in_seconds() -> None:
    """One symbol across ten tokens: an LSTM whose gates start slow must get it right every time. Ten seeds of ten needed 50 steps."""
    torch.set_num_threads(1)
    task = Copy(symbols=1, delay=10)
    config = Config(steps=400, batch_size=32, learning_rate=0.01)
    network = build(SequenceNetwork(width=32, mixer=Lstm(init="chrono", horizon=12)), task.sizes)
    learner = Supervised(config, network, small_problem(task, rows=2000, validation=200), 0, torch.device("cpu"))
    begun = time.process_time()
    while learner.progress(0.0) < 1:
        learner.update()
        if learner.steps % 50 == 0 and learner.validate()["accuracy"] == 1:
            break
    found = learner.validate()
    assert found["accuracy"] == found["sequence_accuracy"] == 1
    assert time.process_time() - begun < 30


def test_without_memory_the_loss_is_the_floor() -> None:
    """The memoryless control learns the distribution of the answers and nothing more."""
    learner = supervised(mixer="none", steps=300, batch_size=40, learning_rate=0.03)
    for _ in range(300):
        learner.update()
    floor = constant_floor(learner)
    losses = [float(learner.update()["train_loss"]) for _ in range(10)]
    assert floor - 0.02 < np.mean(losses) < math.log(4) + 0.02


def constant_floor(learner: Supervised) -> float:
    """Cross-entropy of the best constant answer on the rows it was trained on, in nats."""
    assert isinstance(learner.sampler, ShardSampler)
    labels = torch.cat([batch.labels_BT[batch.labels_BT >= 0] for batch in sequential_batches(learner.sampler.rows, 40)])
    share = torch.bincount(labels, minlength=4).double() / len(labels)
    return float(-(share * share.log()).sum())
