"""Device, seeds and generators."""

from __future__ import annotations

import pytest
import torch

from pipeline.storage.errors import UserError
from pipeline.training.device import generator_state, prepare, restore_generators, seed_everything


def test_threads_and_determinism() -> None:
    assert prepare(2, "cpu") == torch.device("cpu")
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("there", [False, True])
def test_choice_of_device(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert prepare(1, "auto").type == ("cuda" if there else "cpu")
    assert prepare(1, "cpu").type == "cpu"
    if there:
        assert prepare(1, "cuda").type == "cuda"
    else:
        with pytest.raises(UserError, match="cuda asked for, but torch finds no GPU; expected auto or cpu"):
            prepare(1, "cuda")


def test_seeds_name_streams_of_their_own() -> None:
    drawn = []
    for seed in (0, 1, 0):
        seed_everything(seed)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[2] != drawn[1]
    torch.manual_seed(0)
    assert torch.rand(3).tolist() != drawn[0], "weights are drawn from the bare seed"


def test_generators_go_on() -> None:
    seed_everything(0)
    state = generator_state()
    first = torch.rand(3)
    restore_generators(state)
    assert torch.rand(3).equal(first)
    restore_generators({**state, "cuda": torch.zeros(16, dtype=torch.uint8)} if not torch.cuda.is_available() else state)
    assert torch.rand(3).equal(first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_generators_of_a_gpu_go_on() -> None:
    torch.rand(1, device="cuda")
    state = generator_state()
    first = torch.rand(3, device="cuda")
    restore_generators(state)
    assert torch.rand(3, device="cuda").equal(first)
