"""What acting asks of the control study's mixers, for every option they have.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.mixers.base import Mixer
from pipeline.ops import state
from tests.mixers.making import close, make, nbytes, same_future, sequence, steps_of

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "arelit": ("arelit", {}),
    "arelit of seven": ("arelit", {"r": 7, "head_dim": 3, "eta": 3}),
    "arelit of one": ("arelit", {"r": 1, "init": "zero"}),
    "arelit upstream": ("arelit", {"oscillators": "upstream", "r": 5, "init": "zero"}),
    "relit": ("relit", {}),
    "relit zero": ("relit", {"init": "zero", "eta": 3, "head_dim": 3}),
    "gtrxl": ("gtrxl", {"mem_len": 9}),
    "gtrxl recomputed": ("gtrxl", {"mem_len": 9, "cache": False, "head_dim": 3}),
    "gtrxl of one": ("gtrxl", {"mem_len": 1}),
    **{f"relit {kind}": ("relit", {"update": kind}) for kind in ("dense", "scalar", "constant", "sum", "delta")},
    **{f"relit {kind}": ("relit", {"feature_map": kind}) for kind in ("projected_elu", "relu", "elu", "dpfp")},
}
CONSTANT = {"lstm": {}, "gru": {}, "relit": {}, "arelit": {}}
every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))
Made = tuple[Mixer, Tensor, Tensor]


def made(variant: str, dtype: torch.dtype = torch.float64, steps: int = 37) -> Made:
    """A mixer, a sequence of four rows, and episodes that start with probability 0.15."""
    name, fields = VARIANTS[variant]
    mixer: Mixer = make(name, dtype, **fields)
    reset_BT = torch.rand(4, steps, generator=torch.Generator().manual_seed(2)) < 0.15
    return mixer, sequence(4, steps, dtype), reset_BT


def acted(mixer: Mixer, x_BTD: Tensor, reset_BT: Tensor) -> tuple[Tensor, Any]:
    """One step at a time, a row's state put back to its start where an episode starts."""
    carried, outputs = mixer.initial_state(len(x_BTD)), []
    for x_BD, reset_B in zip(x_BTD.unbind(1), reset_BT.unbind(1), strict=True):
        y_BD, carried = mixer.step(x_BD, state.where(reset_B, mixer.initial_state(len(x_BD)), carried))
        outputs.append(y_BD)
    return torch.stack(outputs, 1), carried


@every_variant
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_a_rollout_is_replayed_exactly(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    mixer, x_BTD, reset_BT = made(variant, dtype)
    y_BTD, after = mixer(x_BTD, None, reset_BT)
    acted_BTD, carried = acted(mixer, x_BTD, reset_BT)
    close(acted_BTD, y_BTD, tolerance)
    same_future(mixer, carried, after, 4, tolerance)


@every_variant
@torch.no_grad()
def test_any_cut_of_a_rollout_gives_the_same(variant: str) -> None:
    mixer, x_BTD, reset_BT = made(variant, steps=70)
    y_BTD, after = mixer(x_BTD, None, reset_BT)
    carried, outputs = mixer.initial_state(4), []
    for start, stop in pairwise((0, 1, 3, 20, 21, 64, 70)):
        part_BTD, carried = mixer(x_BTD[:, start:stop], carried, reset_BT[:, start:stop])
        outputs.append(part_BTD)
    close(torch.cat(outputs, 1), y_BTD)
    same_future(mixer, carried, after, 4)


@every_variant
def test_an_episode_begins_as_if_nothing_had_been(variant: str) -> None:
    mixer, x_BTD, _ = made(variant)
    reset_BT = torch.zeros(4, 37, dtype=torch.bool)
    reset_BT[:, 12] = True
    x_BTD.requires_grad_()
    y_BTD, _ = mixer(x_BTD, None, reset_BT)
    close(y_BTD[:, 12:], mixer(x_BTD[:, 12:])[0])
    (d_x_BTD,) = torch.autograd.grad(y_BTD[:, 12:].square().sum(), x_BTD)
    assert not d_x_BTD[:, :12].any()
    other_BTD = torch.cat([x_BTD[:, :12] + 3, x_BTD[:, 12:]], 1)
    assert torch.equal(mixer(other_BTD, None, reset_BT)[0][:, 12:], y_BTD[:, 12:])


@every_variant
@torch.no_grad()
def test_the_future_and_other_rows_change_nothing(variant: str) -> None:
    mixer, x_BTD, reset_BT = made(variant)
    y_BTD, _ = mixer(x_BTD, None, reset_BT)
    later_BTD = torch.cat([x_BTD[:, :20], x_BTD[:, 20:] - 5], 1)
    close(mixer(later_BTD, None, reset_BT)[0][:, :20], y_BTD[:, :20], 1e-12)
    order = torch.tensor([2, 0, 3, 1])
    close(mixer(x_BTD[order], None, reset_BT[order])[0], y_BTD[order], 1e-12)


@every_variant
@torch.no_grad()
def test_the_end_of_a_padded_row_is_its_own(variant: str) -> None:
    mixer, x_BTD, reset_BT = made(variant)
    lengths = [37, 20, 1, 0]
    _, before = mixer(sequence(4, 6, seed=3))
    _, after = mixer(x_BTD, before, reset_BT, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = state.select(before, torch.tensor([row]))
        for part in () if length == 0 else (slice(row, row + 1),):
            _, alone = mixer(x_BTD[part, :length], alone, reset_BT[part, :length])
        same_future(mixer, state.select(after, torch.tensor([row])), alone, 1)


@every_variant
def test_every_parameter_of_every_variant_learns(variant: str) -> None:
    mixer, x_BTD, _ = made(variant)
    mixer(x_BTD)[0].square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in mixer.parameters())


@every_variant
@torch.no_grad()
def test_what_is_carried_is_counted(variant: str) -> None:
    mixer, x_BTD, reset_BT = made(variant)
    for carried in (mixer.initial_state(4), mixer(x_BTD, None, reset_BT)[1], steps_of(mixer, x_BTD)[1]):
        assert nbytes(carried) == 4 * mixer.state_bytes(37)


def work(mixer: Mixer, before: Any) -> int:
    """Floating-point operations of the matrix products of one step."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mixer.step(sequence(2, 1)[:, 0], before)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", sorted(CONSTANT))
@torch.no_grad()
def test_a_step_costs_the_same_however_long_the_episode(name: str) -> None:
    mixer = make(name)
    late = mixer(sequence(2, 10_000))[1]
    assert work(mixer, mixer.initial_state(2)) == work(mixer, late) > 0
    assert nbytes(late) == nbytes(mixer.initial_state(2))


@torch.no_grad()
def test_a_step_of_gtrxl_costs_what_its_memory_holds() -> None:
    counts = {}
    for memory in (10, 20, 30):
        mixer = make("gtrxl", mem_len=memory)
        early, late = mixer.initial_state(2), mixer(sequence(2, 300))[1]
        work(mixer, early)
        counts[memory] = work(mixer, early)
        assert counts[memory] == work(mixer, late)
    assert counts[30] - counts[20] == counts[20] - counts[10] > 0


@pytest.mark.parametrize("name", ["arelit", "relit", "gtrxl"])
@torch.no_grad()
def test_a_hundred_thousand_steps_stay_finite(name: str) -> None:
    mixer = make(name, torch.float32, width=8, heads=2)
    carried = mixer.initial_state(1)
    for part in range(100):
        y_BTD, carried = mixer(sequence(1, 1000, torch.float32, width=8, seed=part), carried)
        assert bool(y_BTD.isfinite().all())
    assert all(bool(leaf.isfinite().all()) for leaf in state.leaves(carried))
