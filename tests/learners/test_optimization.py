"""Schedules against their closed forms; optimizers, clipping and averaging against their definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.config.learners import Supervised
from pipeline.learners.optimization import (
    Optimizers,
    Rule,
    SignSGD,
    WeightAverage,
    clip_gradients,
    learning_rate,
    make_optimizer,
    make_rule,
)


def config(**fields: Any) -> Supervised:
    return Supervised(**{"steps": 100, "learning_rate": 0.5, **fields})


def test_constant() -> None:
    assert {learning_rate(config(), step) for step in range(100)} == {0.5}


@given(warmup=st.integers(1, 50), schedule=st.sampled_from(["constant", "cosine", "linear", "inverse"]))
def test_warm_up_is_linear_and_ends_at_the_peak(warmup: int, schedule: Any) -> None:
    rates = [learning_rate(config(warmup_steps=warmup, lr_schedule=schedule), step) for step in range(warmup)]
    assert rates == pytest.approx([0.5 * (step + 1) / warmup for step in range(warmup)])
    assert learning_rate(config(warmup_steps=warmup, lr_schedule=schedule), warmup) == 0.5


@given(step=st.integers(0, 100), warmup=st.integers(0, 60), final=st.floats(0, 1))
def test_falling_schedules(step: int, warmup: int, final: float) -> None:
    if step < warmup:
        return
    part = (step - warmup) / (100 - warmup)
    closed = {
        "cosine": final + (1 - final) * 0.5 * (1 + math.cos(math.pi * part)),
        "linear": final + (1 - final) * (1 - part),
        "inverse": max(final, 1 / (1 + (step - warmup) / 30)),
    }
    for schedule, expected in closed.items():
        found = learning_rate(config(lr_schedule=schedule, warmup_steps=warmup, min_lr_ratio=final, half_life=30), step)
        assert found == pytest.approx(0.5 * expected, abs=1e-12), schedule


def test_beyond_the_budget_the_last_rate_holds() -> None:
    assert learning_rate(config(lr_schedule="cosine", min_lr_ratio=0.1), 150) == pytest.approx(0.05)
    assert learning_rate(config(lr_schedule="linear", warmup_steps=100), 100) == 0.5


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_one_step_of_each_optimizer(optimizer: Any, weight_decay: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    layer.weight.grad = torch.tensor([[3.0]])
    make_optimizer(config(optimizer=optimizer, weight_decay=weight_decay, betas=(0.9, 0.96)), layer).step()
    gradient = 3.0 + (weight_decay * 2.0 if optimizer != "adamw" else 0.0)
    step = 0.5 / math.sqrt(1 - 0.96) if optimizer == "rmsprop" else 0.5
    decayed = 2.0 * (1 - 0.5 * weight_decay) if optimizer == "adamw" else 2.0
    assert layer.weight.item() == pytest.approx(decayed - math.copysign(step, gradient), rel=1e-5)


def test_clipping_scales_the_global_norm() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    for parameter, value in zip(net.parameters(), (3.0, 4.0), strict=True):
        parameter.grad = torch.full((1, 1), value)
    parameters = list[torch.Tensor](net.parameters())
    assert clip_gradients(parameters, None) == 5
    assert [parameter.grad.item() for parameter in net.parameters() if parameter.grad is not None] == [3, 4]
    assert clip_gradients(parameters, 1.0) == 5
    assert [parameter.grad.item() for parameter in net.parameters() if parameter.grad is not None] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sign_sgd_of_a_dense_parameter(weight_decay: float) -> None:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, -1.0, 4.0]])
    layer.weight.grad = torch.tensor([[0.001, -50.0, 0.0]])
    make_optimizer(config(optimizer="sign_sgd", weight_decay=weight_decay), layer).step()
    kept = 1 - 0.5 * weight_decay
    assert layer.weight.tolist() == [pytest.approx([2 * kept - 0.5, -kept + 0.5, 4 * kept])]


def test_sign_sgd_of_an_embedding_table_by_hand() -> None:
    """Rows 0 and 3 are looked up, row 3 twice: its gradients add up, and it is updated and decayed once. The other rows stay as they are."""
    table = nn.Embedding(5, 2, sparse=True)
    start = table.weight.detach().clone()
    (table(torch.tensor([3, 0, 3])) * torch.tensor([[1.0, -2.0], [0.5, 0.0], [-3.0, -1.0]])).sum().backward()
    before = table.weight.grad
    assert before is not None and before.is_sparse
    rule = Rule(SignSGD(table.parameters(), lr=0.0, weight_decay=0.1), lambda steps, flops: 0.5 / (1 + steps), 1.0)
    assert Optimizers(main=rule).step(1)["gradient_norm"] == 0, "sparse gradients are not clipped"
    expected = start.clone()
    expected[3] = start[3] * (1 - 0.25 * 0.1) - 0.25 * torch.tensor([-1.0, -1.0])  # signs of 1 - 3 and -2 - 1
    expected[0] = start[0] * (1 - 0.25 * 0.1) - 0.25 * torch.tensor([1.0, 0.0])
    torch.testing.assert_close(table.weight.detach(), expected)
    assert table.weight[[1, 2, 4]].equal(start[[1, 2, 4]])


def test_rules_have_rates_and_norms_of_their_own() -> None:
    one, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    peer = config(optimizer="sign_sgd", learning_rate=0.25, lr_schedule="linear", max_grad_norm=None)
    optimizers = Optimizers(main=make_rule(config(), one), peer=make_rule(peer, other))
    assert optimizers.learning_rates(0) == {"learning_rate": 0.5, "peer_learning_rate": 0.25}
    for layer in (one, other):
        layer.weight.data.fill_(1.0)
        layer.weight.grad = torch.full((1, 1), 3.0)
    assert optimizers.step(0, "peer") == {"peer_gradient_norm": 3}
    assert (one.weight.item(), other.weight.item()) == (1.0, 0.75), "only the named rule"
    assert optimizers.step(0) == {"gradient_norm": 3, "peer_gradient_norm": 3}
    assert one.weight.item() == pytest.approx(0.5) and other.weight.item() == 0.5
    again = Optimizers(main=make_rule(config(), one), peer=make_rule(peer, other))
    again.load_state_dict(optimizers.state_dict())
    assert again.state_dict()["main"]["state"][0]["step"] == 1
    optimizers.zero_grad()
    assert one.weight.grad is None and other.weight.grad is None
    with pytest.raises(AssertionError, match="two rules update the same parameter"):
        Optimizers(main=make_rule(config(), one), peer=make_rule(peer, one))


def test_average_follows_its_recurrence_and_copies_buffers() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    average = WeightAverage(net, 0.9)
    expected = {name: value.clone() for name, value in net.named_parameters()}
    for _ in range(5):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        net(torch.randn(4, 2))
        average.update()
        expected = {name: 0.9 * value + 0.1 * dict(net.named_parameters())[name] for name, value in expected.items()}
    for name, value in average.network.named_parameters():
        assert torch.allclose(value, expected[name], atol=1e-6)
        assert not value.requires_grad
    assert not average.network.training and net.training
    for mine, current in zip(average.network.buffers(), net.buffers(), strict=True):
        assert mine.equal(current)


def test_average_of_constants_is_constant() -> None:
    net = nn.Linear(3, 3)
    average = WeightAverage(net, 0.999)
    for _ in range(10):
        average.update()
    assert torch.allclose(average.network.get_parameter("weight"), net.weight, rtol=0, atol=1e-7)
