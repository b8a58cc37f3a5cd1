"""Seeds of weights, and widths that meet a budget."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import networks
from pipeline.config.mixers import MIXERS
from pipeline.networks.build import build, count_parameters, resolve_width
from pipeline.storage.errors import UserError

SequenceNetwork: Any = networks.SequenceNetwork

every_mixer = pytest.mark.parametrize("mixer", sorted(MIXERS))


@every_mixer
def test_a_seed_makes_the_weights(mixer: str) -> None:
    config = SequenceNetwork(mixer=mixer, width=16, depth=2, feedforward=1.0)
    first, again, other = (build(config, {"vocabulary": 11, "classes": 8, "cells": 9}, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_mixer
def test_global_generators_stay_as_they_were(mixer: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(SequenceNetwork(mixer=mixer, width="auto", parameters=1_000_000), {"vocabulary": 11, "classes": 8, "cells": 9})
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_do_not_depend_on_what_was_drawn_before() -> None:
    config = SequenceNetwork(width=8)
    first = build(config, {"vocabulary": 11, "classes": 8}).state_dict()
    torch.rand(100)
    assert all(torch.equal(value, first[key]) for key, value in build(config, {"vocabulary": 11, "classes": 8}).state_dict().items())


@every_mixer
@settings(max_examples=8, deadline=None, derandomize=True)
@given(parameters=st.integers(200_000, 3_000_000), depth=st.integers(1, 3), feedforward=st.sampled_from([0.0, 8 / 3]))
def test_a_solved_width_meets_the_budget(mixer: str, parameters: int, depth: int, feedforward: float) -> None:
    config = SequenceNetwork(mixer=mixer, width="auto", parameters=parameters, depth=depth, feedforward=feedforward)
    try:
        solved = resolve_width(config, {"vocabulary": 64, "classes": 32, "cells": 9})
    except UserError as error:
        assert MIXERS[mixer].model_fields.get("heads") and "cannot be met within 3 %" in str(error)
        return
    assert isinstance(solved.width, int) and solved.parameters is None
    with torch.device("meta"):
        counts = {width: _count(solved, width) for width in (solved.width - 8, solved.width, solved.width + 8) if width > 0}
    distances = {width: abs(count - parameters) for width, count in counts.items()}
    assert distances[solved.width] == min(distances.values()) <= 0.03 * parameters


def _count(config: networks.SequenceNetwork, width: int) -> int:
    from pipeline.networks.sequence import SequenceNetwork as Network

    return count_parameters(Network(config.model_copy(update={"width": width}), 64, 32, cells=9))


def test_the_solved_config_is_one_that_a_user_could_write() -> None:
    solved = resolve_width(SequenceNetwork(mixer="attention", width="auto", parameters="484k", depth=2), {"vocabulary": 64, "classes": 32})
    assert SequenceNetwork.model_validate(solved.model_dump()) == solved
    assert solved.width % 8 == 0  # pyright: ignore[reportOperatorIssue]


def test_weights_of_real_numbers_count_in_the_budget() -> None:
    config = SequenceNetwork(mixer="none", final_norm="none", width="auto", parameters=1000)
    widths = [resolve_width(config, {"vocabulary": 4, "classes": 5, **more}).width for more in ({}, {"features": 11})]
    assert widths == [111, 50]  # (4 + 5) d + 5, (4 + 5 + 11) d + 5


def test_a_given_width_stays() -> None:
    config = SequenceNetwork(width=24)
    assert resolve_width(config, {"vocabulary": 11, "classes": 8}) is config


def test_nothing_is_allocated_while_solving() -> None:
    solved = resolve_width(SequenceNetwork(mixer="lstm", width="auto", parameters="50G"), {"vocabulary": 11, "classes": 8})
    assert isinstance(solved.width, int) and solved.width > 50_000


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (1000, r"network: parameters: 1,000 cannot be met within 3 %; expected a value near 432 \(width 8\) and 1,368 \(width 16\)"),
        (10, r"network: parameters: 10 cannot be met within 3 %; expected a value near 432 \(width 8\)"),
    ],
)
def test_a_budget_out_of_reach_names_what_is_near(parameters: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_width(SequenceNetwork(mixer="attention", width="auto", parameters=parameters), {"vocabulary": 11, "classes": 8})


def test_shared_and_frozen_weights_are_counted_right() -> None:
    network = build(SequenceNetwork(width=8), {"vocabulary": 11, "classes": 11})
    whole = count_parameters(network)
    network.get_submodule("embedding").requires_grad_(False)
    assert count_parameters(network) == whole - 88
    network.head.weight = network.embedding.weight  # pyright: ignore[reportAttributeAccessIssue]
    assert count_parameters(network) == whole - 2 * 88


def test_solving_does_not_load_torchs_compiler() -> None:
    program = """
import sys
from pipeline.config.networks import SequenceNetwork
from pipeline.networks.build import resolve_width
for mixer in ("lstm", "gru", "lru", "attention", "none"):
    resolve_width(SequenceNetwork(mixer=mixer, width="auto", parameters=105_000, norm="rms"), {"vocabulary": 11, "classes": 8})
print("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_sizes_are_those_that_the_network_knows() -> None:
    sizes = {"vocabulary": 11, "classes": 8}
    for wrong in ({**sizes, "observation": 5}, {"vocabulary": 11}):
        with pytest.raises(UserError, match=r"^network: sequence is not made for a task of sizes vocabulary"):
            build(SequenceNetwork(width=8), wrong)
