"""What is measured of a network, and that it is written as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import networks
from pipeline.config.base import filled
from pipeline.config.spec_files import write_spec
from pipeline.evaluation.profile import SCHEMA, contexts, profile, step_cost, training_speed
from pipeline.networks.build import build, count_parameters
from pipeline.networks.flops import row_flops, step_flops
from pipeline.storage.errors import MissingFileError, UserError
from pipeline.storage.tables import read_table
from tests.mixers.making import CAUSAL, WHOLE_ROWS

SequenceNetwork: Any = networks.SequenceNetwork
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_before() -> object:
    yield (threads := torch.get_num_threads())
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def specified(folder: Path, config: networks.SequenceNetwork, **sizes: int) -> Path:
    """The specification of a network."""
    path = folder / "profiles" / "net.yaml"
    write_spec(path, {"id": "net-1", "network": filled(config), "sizes": {"vocabulary": 11, "classes": 8, **sizes}})
    return path


@pytest.mark.parametrize("mixer", CAUSAL)
def test_a_profile(mixer: str, tmp_path: Path) -> None:
    config = SequenceNetwork(mixer=mixer, width=16, context=600)
    path = specified(tmp_path, config)
    profile(path, path.with_suffix(".parquet"), 1, "cpu")
    table = read_table(path.with_suffix(".parquet"))
    network = build(config, {"vocabulary": 11, "classes": 8})
    assert table.schema.equals(SCHEMA)
    found = table.to_pydict()
    assert found["context"] == [128, 512] and set(found["network"]) == {"net-1"} and set(found["device"]) == {"cpu"}
    assert found["parameters"] == [count_parameters(network)] * 2
    assert found["state_bytes"] == [network.state_bytes(context) for context in (128, 512)]  # pyright: ignore[reportCallIssue]
    assert found["step_macs"] == [step_flops(network, context).forward // 2 for context in (128, 512)]
    assert all(0 < seconds < 1 for seconds in found["step_seconds"])
    assert all(speed > 100 for speed in found["training_tokens_per_second"])
    assert found["training_length"] == [128, 512] and found["training_batch"] == [32, 8]
    assert all(1e7 < peak < 1e11 for peak in found["peak_bytes"])


@pytest.mark.parametrize("mixer", WHOLE_ROWS)
def test_a_profile_of_whole_grids(mixer: str, tmp_path: Path) -> None:
    config = SequenceNetwork(mixer=mixer, width=16)
    path = specified(tmp_path, config, cells=81, identifiers=3)
    profile(path, path.with_suffix(".parquet"), 1, "cpu")
    (found,) = read_table(path.with_suffix(".parquet")).to_pylist()
    network = build(config, {"vocabulary": 11, "classes": 8, "cells": 81, "identifiers": 3})
    assert (found["context"], found["training_length"], found["training_batch"], found["state_bytes"]) == (81, 81, 50, 0)
    assert found["parameters"] == count_parameters(network) and found["step_macs"] == row_flops(network, 81).forward // 2
    assert 0 < found["step_seconds"] < 1 and found["training_tokens_per_second"] > 100


@pytest.mark.parametrize(("longest", "expected"), [(16_384, [128, 512, 2048, 8192]), (512, [128, 512]), (600, [128, 512]), (5, [5])])
def test_contexts_are_those_the_network_accepts(longest: int, expected: list[int]) -> None:
    assert contexts(longest) == expected


@pytest.mark.parametrize("context", [1, 2, 33, 34, 128])
def test_steps_end_at_the_context(context: int) -> None:
    network = build(SequenceNetwork(mixer="attention", width=16), {"vocabulary": 11, "classes": 8})
    lengths: list[int] = []
    for block in network.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        original = block.mixer.step
        block.mixer.step = lambda *given, original=original: lengths.append(int(given[1].length_B[0])) or original(*given)
    assert step_cost(network, context, CPU)[0] > 0
    assert lengths[-2:] == [context - 1] * 2, "the last step timed, and the one counted"


def test_training_reaches_every_weight() -> None:
    network = build(SequenceNetwork(mixer="gru", width=16), {"vocabulary": 11, "classes": 8})
    assert training_speed(network, 2, 6, CPU) > 0
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nothing.yaml"):
        profile(tmp_path / "nothing.yaml", tmp_path / "out.parquet", 1, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            profile(specified(tmp_path, SequenceNetwork()), tmp_path / "out.parquet", 1, "cuda")
