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
from pipeline.learners.optimization import WeightAverage, clip_gradients, learning_rate, make_optimizer


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
    make_optimizer(layer, config(optimizer=optimizer, weight_decay=weight_decay, betas=(0.9, 0.96))).step()
    gradient = 3.0 + (weight_decay * 2.0 if optimizer != "adamw" else 0.0)
    step = 0.5 / math.sqrt(1 - 0.96) if optimizer == "rmsprop" else 0.5
    decayed = 2.0 * (1 - 0.5 * weight_decay) if optimizer == "adamw" else 2.0
    assert layer.weight.item() == pytest.approx(decayed - math.copysign(step, gradient), rel=1e-5)


def test_clipping_scales_the_global_norm() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    for parameter, value in zip(net.parameters(), (3.0, 4.0), strict=True):
        parameter.grad = torch.full((1, 1), value)
    optimizer = make_optimizer(net, config())
    assert clip_gradients(optimizer, None) == 5
    assert [parameter.grad.item() for parameter in net.parameters() if parameter.grad is not None] == [3, 4]
    assert clip_gradients(optimizer, 1.0) == 5
    assert [parameter.grad.item() for parameter in net.parameters() if parameter.grad is not None] == pytest.approx([0.6, 0.8])


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
