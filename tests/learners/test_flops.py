"""The FLOPs that learners count: every row at its true length; acting and learning together; schedules that follow them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.config.learners import Ppo, Supervised
from pipeline.config.tasks import Sudoku
from pipeline.learners import optimization
from pipeline.learners.flop_budget import rows_in_budget
from pipeline.networks.flops import StepCosts, count_flops, step_flops
from tests.learners.grids import Opposite
from tests.learners.small import small_learner, small_task

WIDTH, CLASSES = 16, 5
LSTM_STEP = 2 * 4 * 2 * WIDTH * WIDTH
BLOCK = {"depth": 1, "feedforward": 0.0}


def supervised(**fields: Any) -> Any:
    return small_learner(network=BLOCK, steps=None, **{"flops": "1T", **fields})


def acting(mixer: str, learner: str = "ppo", **fields: Any) -> Any:
    return small_learner(mixer, "t_maze", learner, network=BLOCK, num_updates=None, **{"flops": "1T", **fields})


@pytest.mark.parametrize("fields", [{}, {"micro_batch_size": 1}, {"data": "stream"}], ids=["batch", "micro-batches", "stream"])
def test_rows_count_at_their_true_length(fields: dict[str, Any]) -> None:
    learner, lengths = supervised(**fields), []
    collect = learner.collect
    learner.collect = lambda: lengths.append(batch := collect()) or batch
    for _ in range(7):
        learner.update()
    seen = [int(length) for batch in lengths for length in batch.length_B]
    head = 2 * WIDTH * learner.network.head.out_features
    assert len(seen) == learner.examples_seen == 28 and len(set(seen)) > 2
    assert learner.flops_seen == 3 * sum(seen) * (LSTM_STEP + head)
    assert learner.metrics()["flops"] == learner.flops_seen and learner.reproducible
    assert learner.progress(0.0) == learner.flops_seen / 10**12


@pytest.mark.parametrize("learner", ["ppo", "a2c"])
@pytest.mark.parametrize("mixer", ["gru_v1", "rnn"])
def test_acting_and_learning_cost_what_torch_counts(mixer: str, learner: str) -> None:
    """These mixers learn by a loop of plain products, so that torch counts a whole update."""
    one = acting(mixer, learner, num_envs=8, rollout_steps=16, bptt_steps=8)
    one.update()
    before = one.flops_seen
    counted = count_flops(one.update)
    assert one.flops_seen - before == pytest.approx(counted, rel=0.02)


def test_steps_count_at_the_context_they_are_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acting, bootstrapping at time limits and at the end of a rollout, three passes of learning; episodes of several lengths."""
    learner, every, acted = acting("attention", update_epochs=3), [], []
    flops = [step_flops(learner.network, context) for context in range(1, 25)]
    monkeypatch.setattr(learner, "costs", StepCosts(copy.deepcopy(learner.network)))
    step, act = learner.network.step, learner.actor._act

    def watched_step(observed: Tensor, state: Any) -> Any:
        every.extend((state[0].length_B + 1).tolist())
        return step(observed, state)

    def watched_act(*given: Any) -> Any:
        first, taken = len(every), act(*given)
        acted.extend(every[first:])
        return taken

    monkeypatch.setattr(learner.network, "step", watched_step)
    monkeypatch.setattr(learner.actor, "_act", watched_act)
    for _ in range(3):
        learner.update()
    forward, training = sum(flops[context - 1].forward for context in every), sum(flops[context - 1].training for context in acted)
    assert len({*every}) > 3 and len(acted) == 3 * 32 and len(every) > 3 * (32 + 4)
    assert learner.flops_seen == forward + 3 * training


def test_passes_that_are_left_out_cost_nothing() -> None:
    fields = {"update_epochs": 4, "learning_rate": 0.1}
    whole, early = acting("lstm", **fields), acting("lstm", target_kl=1e-9, **fields)
    whole.update()
    early.update()
    assert (whole.passes, early.passes) == (4, 1)
    assert whole.flops_seen - early.flops_seen == 3 * 32 * step_flops(whole.network, 1).training


def test_others_do_not_count() -> None:
    learner = small_learner()
    learner.update()
    assert learner.flops_seen == 0 and "flops" not in learner.metrics()


def rates(schedule: str, **fields: Any) -> list[float]:
    """Learning rates after each hundredth of a budget, an update each."""
    config: Any = Supervised(**{"flops": 1000, "lr_schedule": schedule, "learning_rate": 0.5, **fields})
    return [optimization.learning_rate(config, step, 10 * step) for step in range(101)]


def test_schedules_follow_the_share_of_the_budget() -> None:
    assert rates("constant") == [0.5] * 101
    assert rates("linear") == pytest.approx([0.5 * (1 - step / 100) for step in range(101)])
    assert rates("cosine", min_lr_ratio=0.2) == pytest.approx(
        [0.5 * (0.2 + 0.4 * (1 + math.cos(math.pi * step / 100))) for step in range(101)]
    )
    assert rates("inverse", half_life=30) == pytest.approx([0.5 / (1 + step / 30) for step in range(101)])
    config: Any = Supervised(flops=1000, lr_schedule="linear")
    assert optimization.learning_rate(config, 9, 4000) == 0, "an update may cross the end of the budget"
    coefficient: Any = Ppo(flops=1000, ent_coef=0.1, ent_coef_schedule="linear")
    assert optimization.ent_coef(coefficient, 3, 250) == pytest.approx(0.075)


def test_warm_up_in_updates_or_as_a_fraction() -> None:
    assert rates("linear", warmup_steps=4) == pytest.approx([*(0.125 * (step + 1) for step in range(4)), *rates("linear")[4:]])
    assert rates("linear", warmup_steps=0.2) == pytest.approx(
        [0.5 * step / 20 if step < 20 else 0.5 * (1 - (step - 20) / 80) for step in range(101)]
    )
    config: Any = Supervised(steps=30, warmup_steps=0.1, lr_schedule="cosine")
    same: Any = Supervised(steps=30, warmup_steps=3, lr_schedule="cosine")
    assert [optimization.learning_rate(config, step) for step in range(31)] == [
        optimization.learning_rate(same, step) for step in range(31)
    ]


def test_the_optimizer_uses_them() -> None:
    learner = supervised(flops="2M", lr_schedule="linear", learning_rate=0.5)
    for _ in range(4):
        spent, announced = learner.progress(0.0), learner.metrics()["learning_rate"]
        learner.update()
        assert learner.optimizers.rules["main"].optimizer.param_groups[0]["lr"] == announced == pytest.approx(0.5 * (1 - min(spent, 1)))
    policy = acting("lstm", ent_coef_schedule="linear", flops="100M")
    policy.update()
    assert policy.metrics()["ent_coef"] == pytest.approx(0.01 * (1 - policy.flops_seen / 10**8))


@pytest.mark.parametrize("task", ["copy", "parity"])
def test_rows_in_a_budget(task: str) -> None:
    learner = supervised(task=task, flops="20M", data="stream")
    rows, exact = rows_in_budget(learner.config, learner.network.config, small_task(task))
    while learner.progress(0.0) < 1:
        learner.update()
    assert not exact and rows == pytest.approx(learner.examples_seen, rel=0.1)


def test_rows_of_equal_length_in_a_budget() -> None:
    learner = supervised(task="adding", flops="20M", data="stream")
    task = small_task("adding").model_copy(update={"length": 10})
    rows, exact = rows_in_budget(learner.config, learner.network.config, task)
    update = 4 * 3 * 10 * step_flops(learner.network, 1).forward
    assert exact and rows == 4 * -(-20_000_000 // update)


def test_environment_steps_in_a_budget() -> None:
    learner = acting("lstm", flops="50M")
    rows, exact = rows_in_budget(learner.config, learner.network.config, small_task("t_maze"))
    while learner.progress(0.0) < 1:
        learner.update()
    assert not exact and rows == pytest.approx(learner.examples_seen, abs=32)


DEEP: dict[str, dict[str, Any]] = {
    "plain": {},
    "fresh rows": {"warm_up": "random", "supervision": 5},
    "two cycles": {"gradient": 2},
    "all cycles": {"gradient": "all"},
    "the last updates": {"gradient": 0},
    "attempts": {"attempts": 2, "network": {"start": "random"}},
    "continue": {"halting": "continue"},
    "everything": {"warm_up": "random", "attempts": 2, "gradient": 2, "network": {"start": "random", "latents": 3, "gate_convolution": 3}},
    "growth": {"grow_until": 0.9, "network": {"latents": 1}},
}


def deep(mixer: str = "full_attention", network: dict[str, Any] | None = None, **fields: Any) -> Any:
    parts = {"registers": 1, "outer": 3, **(network or {})}
    fields = {"task": Opposite(side=4), "steps": None, "flops": "1T", **fields}
    return small_learner(mixer, learner="deep_supervision", network=parts, **fields)


@pytest.mark.parametrize("mixer", ["full_attention", "token_mixing"])
@pytest.mark.parametrize("case", DEEP)
def test_deep_supervision_costs_what_torch_counts(case: str, mixer: str) -> None:
    """Over several updates, whose steps without gradient differ in number."""
    one = deep(mixer, **DEEP[case])
    one.update()
    before = one.flops_seen
    with sdpa_kernel(SDPBackend.MATH):
        counted = [count_flops(one.update) for _ in range(6)]
    assert one.flops_seen - before == pytest.approx(sum(counted), rel=0.005)
    assert case != "fresh rows" or len(set(counted)) > 2


@pytest.mark.parametrize("case", ["plain", "fresh rows", "all cycles", "continue", "everything"])
def test_rows_of_deep_supervision_in_a_budget(case: str) -> None:
    task = Sudoku(side=4)
    learner = deep(**{**DEEP[case], "task": task, "flops": "400M", "supervision": 3, "exploration": 1.0})
    rows, exact = rows_in_budget(learner.config, learner.network.config, task)
    while learner.progress(0.0) < 1:
        learner.update()
    assert not exact and rows == pytest.approx(learner.examples_seen, rel=0.1 if case != "continue" else 0.5)
