"""Every mixer on rows that are grids of several sizes: lengths and identifiers reach the network, and rows cost what they are."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.base import Distribution
from pipeline.config.checks import _check_mixers, _check_sizes
from pipeline.config.document import ConfigError, read_text
from pipeline.config.mixers import MIXERS
from pipeline.config.networks import SequenceNetwork
from pipeline.evaluation.evaluate import check_fits
from pipeline.learners.answers import lengths
from pipeline.networks.flops import row_flops
from pipeline.storage.errors import UserError
from tests.learners.grids import Opposite
from tests.learners.small import small_learner, small_task
from tests.mixers.making import WHOLE_ROWS

ANY_LENGTH = [name for name in WHOLE_ROWS if not MIXERS[name].fixed_length]
Sequence: Any = SequenceNetwork


def opposite(mixer: str = "stencil") -> Opposite:
    """Grids of two sizes, or of one where the mixer is for one."""
    return Opposite(side=3) if MIXERS[mixer].fixed_length else Opposite(side=Distribution(uniform=(2, 3)))


@pytest.mark.parametrize("mixer", [*WHOLE_ROWS, "gru", "attention"])
def test_two_updates_and_a_validation(mixer: str) -> None:
    learner: Any = small_learner(mixer, opposite(mixer))
    assert learner.network.identifiers.weight.shape == (2, 16) and not learner.network.identifiers.weight.any()
    for _ in range(2):
        assert all(math.isfinite(float(value)) for value in learner.update().values())
    assert learner.network.identifiers.weight.any()
    assert all(math.isfinite(value) for value in learner.validate().values())


@pytest.mark.parametrize("mixer", ANY_LENGTH)
def test_padding_changes_no_answer(mixer: str) -> None:
    learner: Any = small_learner(mixer, opposite(), batch_size=40)
    batch = learner.collect()
    assert len(set(batch.length_B.tolist())) == 2 and "length_B" in lengths(learner.network, batch, torch.device("cpu"))
    with torch.no_grad():
        whole = learner._answer(learner.network, batch)
        alone = []
        for row, length in enumerate(batch.length_B.tolist()):
            part = batch.of(slice(row, row + 1))
            part = part._replace(tokens_BT=part.tokens_BT[:, :length], labels_BT=part.labels_BT[:, :length])
            assert not lengths(learner.network, part, torch.device("cpu"))
            alone.append(learner._answer(learner.network, part).output_NC)
    torch.testing.assert_close(whole.output_NC, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_only_mixers_that_see_later_positions_can_answer() -> None:
    """The last cell's answer is the first cell's token, and the other way round: a causal mixer knows half of them."""
    accuracy = {}
    for mixer in ("full_attention", "attention"):
        learner: Any = small_learner(
            mixer,
            Opposite(side=2),
            network={"width": 32, "depth": 2, "feedforward": 2.0},
            steps=400,
            batch_size=32,
            data="stream",
            learning_rate=0.003,
        )
        for _ in range(300):
            learner.update()
        accuracy[mixer] = learner.validate()["accuracy"]
    assert accuracy["full_attention"] > 0.9 and accuracy["attention"] < 0.8


@pytest.mark.parametrize("mixer", WHOLE_ROWS)
def test_rows_cost_their_true_length(mixer: str) -> None:
    learner: Any = small_learner(mixer, opposite(mixer), steps=None, flops="1T")
    batch = learner.collect()
    learner.collect = lambda: batch
    learner.update()
    assert learner.flops_seen == sum(row_flops(learner.network, int(length)).training for length in batch.length_B)


def test_identifiers_are_added_to_every_token() -> None:
    network: Any = small_learner("gru", opposite()).network
    tokens_BT, identifier_B = torch.randint(3, (4, 9)), torch.tensor([0, 1, 0, 1], dtype=torch.int32)
    with torch.no_grad():
        before, _ = network(tokens_BT, identifier_B=identifier_B)
        network.identifiers.weight[1] = torch.randn(16)
        after, _ = network(tokens_BT, identifier_B=identifier_B)
        assert before[::2].equal(after[::2]) and not bool(torch.isclose(before[1::2], after[1::2]).all(-1).any())
        state = network.initial_state(4)
        for t in range(9):
            logits_BC, state = network.step(tokens_BT[:, t], state, identifier_B=identifier_B)
            torch.testing.assert_close(logits_BC, after[:, t], rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError, match="have identifiers"):
        network(tokens_BT)


WRITTEN = read_text("network: {name: sequence, mixer: stencil}\ntask: opposite\nevaluate: {rows: 3}\n", "c.yaml")


def member(task: Any, mixer: str, *measured: Any) -> Any:
    """What the checks read of a run."""
    return SimpleNamespace(point=SimpleNamespace(task=task, network=Sequence(mixer=mixer)), measured=list(measured))


def test_grids_of_other_sizes_are_measured_unless_the_length_is_fixed() -> None:
    three, four = Opposite(side=3), Opposite(side=4)
    for mixer in ("stencil", "full_attention", "both_ways", "gru"):
        _check_sizes(member(three, mixer, four), WRITTEN)
    _check_sizes(member(three, "token_mixing", three), WRITTEN)
    with pytest.raises(
        ConfigError, match="evaluate: .* has cells 16, the task 9; expected the same: the network is made for rows of one length"
    ):
        _check_sizes(member(three, "token_mixing", four), WRITTEN)


@pytest.mark.parametrize("mixer", [*WHOLE_ROWS, "gru"])
def test_grids_may_be_read_in_any_way(mixer: str) -> None:
    _check_mixers(member(Opposite(), mixer), WRITTEN)
    if mixer != "gru":
        with pytest.raises(ConfigError, match=f"{mixer} reads whole grids in all directions, .* expected a causal mixer"):
            _check_mixers(member(small_task("copy"), mixer), WRITTEN)


def test_a_trained_network_reads_grids_of_other_sizes_unless_the_length_is_fixed() -> None:
    for mixer in ("stencil", "token_mixing"):
        network = {"name": "sequence", "version": 1, "context": 100, "mixer": {"name": mixer, "version": 1}}
        config = {"run": "r", "network": network, "sizes": Opposite(side=3).sizes}
        check_fits(config, Opposite(side=3), "data", 9)
        if mixer == "stencil":
            check_fits(config, Opposite(side=4), "data", 16)
        else:
            with pytest.raises(UserError, match="data: cells of 16, but the network of r was made for 9"):
                check_fits(config, Opposite(side=4), "data", 16)


def test_costs_of_several_lengths_add_up() -> None:
    learner: Any = small_learner("full_attention", opposite(), steps=None, flops="1T")
    nine, four = (row_flops(learner.network, length) for length in (9, 4))
    assert learner.costs.sequences(np.array([9, 4, 9])).training == 2 * nine.training + four.training
