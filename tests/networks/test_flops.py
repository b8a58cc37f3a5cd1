"""The FLOPs of steps and sequences: against torch's counter over unrolled steps, and against formulas written by hand."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.config import networks
from pipeline.config.mixers import Mamba
from pipeline.networks.build import build
from pipeline.networks.flops import Flops, StepCosts, count_flops, input_at, random_inputs, row_flops, step_flops
from pipeline.ops import backends
from pipeline.ops.state import leaves
from pipeline.storage.errors import UserError
from tests.mixers.making import CAUSAL, steps_of

WIDTH, VOCABULARY, CLASSES, LENGTH = 16, 11, 5, 12
SequenceNetwork: Any = networks.SequenceNetwork
ActorCritic: Any = networks.ActorCritic
BLOCK = {"feedforward": 1.0, "norm": "rms", "residual": True}
SIZES = {"vocabulary": VOCABULARY, "classes": CLASSES}
ENVIRONMENT = {"observation": [6], "actions": [3]}


def small(mixer: Any, **fields: Any) -> Any:
    return build(SequenceNetwork(mixer=mixer, width=WIDTH, **fields), SIZES)


NETWORKS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "sequence": (SequenceNetwork, SIZES, BLOCK),
    "frozen embedding": (SequenceNetwork, SIZES, {"embedding": "sinusoid"}),
    "tied, a convolution, gated residuals": (SequenceNetwork, SIZES, {"tie_embeddings": True, "convolution": 3, "residual": "gru"}),
    "real numbers": (SequenceNetwork, {**SIZES, "features": 7}, {}),
    "hybrid": (SequenceNetwork, SIZES, {**BLOCK, "depth": 2, "attention": {"heads": 2}}),
    "actor_critic": (ActorCritic, ENVIRONMENT, BLOCK),
    "mlp, a critic of its own": (ActorCritic, ENVIRONMENT, {"encoder": "mlp", "encoder_depth": 2, "shared": False}),
    "pixels": (ActorCritic, {"observation": [36, 36, 1], "actions": [3, 2], "pixels": True}, {"encoder": "nature_cnn"}),
}


def unrolled(network: Any, rows: int) -> int:
    """Torch's count of a loop of steps and the backward pass through it."""
    inputs = random_inputs(network, rows, LENGTH)

    def work() -> None:
        state, outputs = network.initial_state(rows), []
        for position in range(LENGTH):
            output, state = network.step(**input_at(inputs, position), state=state)
            outputs += [leaf.sum() for leaf in leaves(output)]
        torch.stack(outputs).sum().backward()

    return count_flops(work)


def assert_counts_unrolled(network: Any) -> None:
    """A row's FLOPs are those of the loop; a row is what a second one adds, since GTrXL embeds its distances once for all rows."""
    one, two = (unrolled(network, rows) for rows in (1, 2))
    expected = two - one
    found = StepCosts(network).sequences(np.array([LENGTH])).training
    assert found == pytest.approx(expected, rel=0.02)
    assert found >= expected, "the first step's state needs no gradient"
    assert two == 2 * one or "GTrXL" in str(network)


@pytest.mark.parametrize("mixer", CAUSAL)
@pytest.mark.parametrize("kind", ["sequence", "actor_critic"])
def test_every_mixer_costs_what_torch_counts(mixer: str, kind: str) -> None:
    network_kind, sizes, fields = NETWORKS[kind]
    network = build(network_kind(mixer=mixer, width=WIDTH, **fields), sizes)
    assert_counts_unrolled(network)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_costs_what_torch_counts(kind: str) -> None:
    network_kind, sizes, fields = NETWORKS[kind]
    assert_counts_unrolled(build(network_kind(mixer="lstm", width=WIDTH, **fields), sizes))


def test_gtrxl_as_published_embeds_its_memory_at_every_step() -> None:
    assert_counts_unrolled(small({"name": "gtrxl", "mem_len": 5, "cache": False}))


HEAD = 2 * WIDTH * CLASSES
BY_HAND = {
    "rnn": lambda t: 2 * 2 * WIDTH * WIDTH,
    "lstm": lambda t: 2 * 4 * (WIDTH * WIDTH + WIDTH * WIDTH),
    "gru": lambda t: 2 * 3 * (WIDTH * WIDTH + WIDTH * WIDTH),
    "multiplicative_lstm": lambda t: 2 * (5 + 5) * WIDTH * WIDTH,
    "min_gru": lambda t: 2 * 2 * WIDTH * WIDTH,
    "attention": lambda t: 2 * (3 + 1) * WIDTH * WIDTH + 2 * 2 * WIDTH * t,
    "gtrxl": lambda t: 2 * (3 + 1) * WIDTH * WIDTH + 3 * 2 * WIDTH * (128 + 1),
    "linear_attention": lambda t: 2 * (3 + 1) * WIDTH * WIDTH + 2 * WIDTH * (WIDTH // 4 + 1),
    "none": lambda t: 0,
}
"""FLOPs of a mixer's step to context t: gates from input and state; queries, keys, values, output; scores and sums, or reading the state."""


@pytest.mark.parametrize("mixer", BY_HAND)
@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_by_hand(mixer: str, length: int) -> None:
    forward = sum(BY_HAND[mixer](t) + HEAD for t in range(1, length + 1))
    assert StepCosts(small(mixer)).sequences(np.array([length])) == Flops(forward, 3 * forward)


def test_mamba_by_hand() -> None:
    """Projections in and out, to step size, B and C; reading the state. Updating it, and the convolution, are element-wise."""
    config = Mamba()
    inner, states, rank = config.expand * WIDTH, config.d_state, -(-WIDTH // 16)
    projections = WIDTH * 2 * inner + inner * (rank + 2 * states) + rank * inner + inner * WIDTH
    assert step_flops(small("mamba"), 9).forward == 2 * (projections + inner * states) + HEAD


@pytest.mark.parametrize("mixer", ["attention", "lstm"])
def test_costs_between_counted_contexts_are_exact(mixer: str) -> None:
    network = small(mixer, context=90)
    one_by_one = [step_flops(network, context) for context in range(1, 81)]
    costs = StepCosts(network)
    for contexts in ([3], [3, 40, 40], range(1, 81)):
        expected = np.array([one_by_one[context - 1] for context in contexts]).sum(0)
        assert costs.steps(np.array(contexts)) == tuple(expected)
    assert costs.sequences(np.array([80, 2])) == tuple(np.array(one_by_one).sum(0) + np.array(one_by_one[:2]).sum(0))
    assert costs.sequences(np.array([], np.int64)) == costs.steps(np.array([], np.int64)) == (0, 0)


def test_a_window_ends_between_two_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def windowed(network: Any, context: int) -> Flops:
        asked.append(context)
        return Flops(10 + 3 * min(context, 37), 30 + 9 * min(context, 37))

    monkeypatch.setattr("pipeline.networks.flops.step_flops", windowed)
    costs = StepCosts(small("lstm"))
    assert costs.sequences(np.array([1000])).forward == sum(10 + 3 * min(context, 37) for context in range(1, 1001))
    assert len(asked) < 40


def test_an_observation_after_the_last_step_of_the_longest_episode() -> None:
    network = build(ActorCritic(mixer="attention", width=WIDTH, context=20), ENVIRONMENT)
    assert StepCosts(network).steps(np.array([21])) == step_flops(network, 21)


@pytest.mark.parametrize("mixer", CAUSAL)
def test_counting_leaves_no_trace_and_no_backend_matters(mixer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(mixer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    used, generator = backends.used(), torch.get_rng_state()
    found = set()
    for backend in ("auto", "c", "torch"):
        monkeypatch.setenv(backends.VARIABLE, backend)
        found.add(step_flops(network, 5))
    assert len(found) == 1 and backends.used() == used and torch.get_rng_state().equal(generator)
    assert all(parameter.grad is not None and (parameter.grad == 1).all() for parameter in network.parameters())


def test_a_network_without_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.networks.flops.step_flops", lambda network, context: Flops(0, 0))
    with pytest.raises(UserError, match="torch counts no FLOPs in its steps; expected another budget than flops"):
        StepCosts(small("lstm")).steps(np.array([1]))


GRID = {**SIZES, "cells": 16, "identifiers": 3}
RICH = {**BLOCK, "depth": 2}
WHOLE: list[tuple[Any, dict[str, Any]]] = [
    (mixer, fields) for mixer in ("full_attention", "token_mixing", "stencil") for fields in ({}, RICH)
]


def torchs(work: Any) -> int:
    """What torch counts, with attention by plain products."""
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize(("mixer", "fields"), WHOLE)
def test_a_whole_row_costs_what_torch_counts(mixer: str, fields: dict[str, Any]) -> None:
    network = build(SequenceNetwork(mixer=mixer, width=WIDTH, **fields), GRID)
    one, two = (random_inputs(network, rows, 16) for rows in (1, 2))
    forward = torchs(lambda: network(**two)) - torchs(lambda: network(**one))
    training = torchs(lambda: network(**two)[0].sum().backward()) - torchs(lambda: network(**one)[0].sum().backward())
    found = StepCosts(network).sequences(np.array([16]))
    assert found.forward == pytest.approx(forward, rel=0.005) and found.training == pytest.approx(training, rel=0.005)
    assert all(parameter.grad is not None for parameter in network.parameters()), "gradients stay as they were"


@pytest.mark.parametrize("mixer", CAUSAL)
@pytest.mark.parametrize("fields", [{}, {"embedding": "sinusoid"}, RICH], ids=["plain", "frozen embedding", "rich"])
def test_both_ways_costs_its_steps(mixer: str, fields: dict[str, Any]) -> None:
    network: Any = build(SequenceNetwork(mixer={"name": "both_ways", "mixer": mixer}, width=WIDTH, **fields), SIZES)

    def stepwise(mixer: Any, x_BTD: torch.Tensor, *_: Any) -> Any:
        return steps_of(mixer.forwards, x_BTD)[0] + steps_of(mixer.backwards, x_BTD.flip(1))[0].flip(1), ()

    found = StepCosts(network).sequences(np.array([LENGTH]))
    for block in network.blocks:
        block.mixer.forward = functools.partial(stepwise, block.mixer)
    one, two = (random_inputs(network, rows, LENGTH) for rows in (1, 2))
    with torch.no_grad():
        network(**one)  # what is computed once and kept
        assert found.forward == torchs(lambda: network(**two)) - torchs(lambda: network(**one))
    expected = torchs(lambda: network(**two)[0].sum().backward()) - torchs(lambda: network(**one)[0].sum().backward())
    assert found.training == pytest.approx(expected, rel=0.02) and found.training >= expected, "the first state needs no gradient"


def test_every_length_of_whole_rows_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("pipeline.networks.flops.row_flops", lambda network, length: asked.append(length) or Flops(length, 3 * length))
    costs = StepCosts(small("full_attention"))
    assert costs.sequences(np.array([4, 9, 4])) == (17, 51) and costs.sequences(np.array([9])) == (9, 27)
    assert costs.sequences(np.array([], np.int64)) == (0, 0) and asked == [4, 9]
    with pytest.raises(AssertionError, match="has no steps"):
        costs.steps(np.array([1]))


@pytest.mark.parametrize("mixer", ["full_attention", {"name": "both_ways", "mixer": "min_gru"}])
def test_counting_whole_rows_leaves_no_trace(mixer: Any) -> None:
    network = small(mixer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    inputs = random_inputs(network, 2, 9)
    expected_BTC, used, generator = network(**inputs)[0], backends.used(), torch.get_rng_state()
    row_flops(network, 9)
    assert backends.used() == used and torch.get_rng_state().equal(generator) and network(**inputs)[0].equal(expected_BTC)
    assert all(parameter.grad is not None and (parameter.grad == 1).all() for parameter in network.parameters())
