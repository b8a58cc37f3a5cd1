"""Device, seeds and generators."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

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
        with pytest.raises(UserError, match="got cuda, but torch finds no GPU; expected auto or cpu"):
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


FREED = """
import resource, torch
from pipeline.training.device import prepare
prepare(1, "cpu")
for step in range(31):
    torch.ones(16, 1 << 20)
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_serves_the_next_step() -> None:
    faults = int(subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout)
    pages = 64 * (1 << 20) // resource.getpagesize()
    assert faults < pages, "64 MiB, asked for ten times after twenty to settle, came from the kernel more than once"
