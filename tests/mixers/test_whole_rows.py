"""What every mixer that reads whole rows promises, and `both_ways` with every causal mixer. A new entry is tested here without an edit.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixers.making import CAUSAL, CELLS, EXACT, MIXERS, WHOLE_ROWS, close, make, sequence

EVERY: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in WHOLE_ROWS] + [("both_ways", {"mixer": mixer}) for mixer in CAUSAL]
ANY_LENGTH = [(name, fields) for name, fields in EVERY if not MIXERS[name].fixed_length]
LENGTHS = [25, 4, 1, 16, 25]

every_mixer = pytest.mark.parametrize(("name", "fields"), EVERY)
of_any_length = pytest.mark.parametrize(("name", "fields"), ANY_LENGTH)


@every_mixer
@pytest.mark.parametrize("cells", [1, 4, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_are_finite_and_always_the_same(name: str, fields: dict[str, Any], cells: int, dtype: torch.dtype) -> None:
    mixer, x_BTD = make(name, dtype, cells=cells, **fields), sequence(3, cells, dtype)
    y_BTD, after = mixer(x_BTD)
    assert y_BTD.shape == x_BTD.shape and y_BTD.dtype == dtype and bool(y_BTD.isfinite().all()) and after == ()
    assert mixer(x_BTD)[0].equal(y_BTD)


@every_mixer
def test_rows_do_not_see_each_other(name: str, fields: dict[str, Any]) -> None:
    mixer, x_BTD, order = make(name, **fields), sequence(4, CELLS), torch.tensor([2, 0, 3, 1])
    y_BTD, _ = mixer(x_BTD)
    close(mixer(x_BTD[order])[0], y_BTD[order])
    for row in range(4):
        close(mixer(x_BTD[row : row + 1])[0][0], y_BTD[row])


@of_any_length
def test_padding_does_not_leak(name: str, fields: dict[str, Any]) -> None:
    mixer, x_BTD = make(name, **fields), sequence(5, 25)
    for row, length in enumerate(LENGTHS):
        x_BTD[row, length:] = 50.0
    y_BTD, _ = mixer(x_BTD, None, None, torch.tensor(LENGTHS))
    assert bool(y_BTD.isfinite().all())
    for row, length in enumerate(LENGTHS):
        close(y_BTD[row : row + 1, :length], mixer(x_BTD[row : row + 1, :length])[0])


@of_any_length
def test_padding_gets_no_gradient(name: str, fields: dict[str, Any]) -> None:
    mixer, x_BTD = make(name, **fields), sequence(5, 25).requires_grad_()
    y_BTD, _ = mixer(x_BTD, None, None, torch.tensor(LENGTHS))
    loss = torch.stack([y_BTD[row, :length].square().sum() for row, length in enumerate(LENGTHS)]).sum()
    if list(mixer.parameters()):
        (d_x_BTD,) = torch.autograd.grad(loss, [x_BTD])
        assert not any(bool(d_x_BTD[row, length:].any()) for row, length in enumerate(LENGTHS))


@every_mixer
def test_lengths_of_whole_rows_change_nothing(name: str, fields: dict[str, Any]) -> None:
    mixer, x_BTD = make(name, **fields), sequence(2, CELLS)
    assert mixer(x_BTD, None, None, torch.full((2,), CELLS))[0].equal(mixer(x_BTD)[0])


@every_mixer
def test_gradients_are_right(name: str, fields: dict[str, Any]) -> None:
    kind = MIXERS[fields.get("mixer", name)]
    heads: dict[str, Any] = {"heads": 2} if "heads" in kind.model_fields else {}
    own: dict[str, Any] = {"mixer": {"name": fields["mixer"], **heads}} if fields else heads
    mixer, x_BTD = make(name, width=8, cells=4, **own), sequence(2, 4, width=8).requires_grad_()
    length_B = None if MIXERS[name].fixed_length else torch.tensor([4, 1])

    def run(x_BTD: Tensor) -> Tensor:
        return mixer(x_BTD, None, None, length_B)[0]

    if list(mixer.parameters()):
        assert torch.autograd.gradcheck(run, (x_BTD,), fast_mode=True)


@every_mixer
def test_every_parameter_learns(name: str, fields: dict[str, Any]) -> None:
    mixer = make(name, **fields)
    y_BTD, _ = mixer(sequence(2, CELLS))
    if list(mixer.parameters()):
        y_BTD.square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in mixer.parameters())


@every_mixer
def test_there_are_no_states_and_steps(name: str, fields: dict[str, Any]) -> None:
    mixer, x_BTD = make(name, **fields), sequence(2, CELLS)
    assert mixer.initial_state(2) == () and mixer.state_bytes(0) == mixer.state_bytes(100) == mixer.positions_held(()) == 0
    assert mixer(x_BTD, ())[0].equal(mixer(x_BTD)[0])
    with pytest.raises(AssertionError, match="has no step"):
        mixer.step(x_BTD[:, 0], ())
    for given in ((torch.zeros(2, 1), None), (None, torch.zeros(2, CELLS, dtype=torch.bool))):
        with pytest.raises(AssertionError, match="neither a past nor episodes"):
            mixer(x_BTD, *given)


@every_mixer
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same(name: str, fields: dict[str, Any]) -> None:
    lengths = [None] if MIXERS[name].fixed_length else [None, torch.tensor([9, 4, 1])]
    for length_B in lengths:
        results = []
        for device in ("cpu", "cuda"):
            mixer = make(name, **fields).to(device)
            y_BTD, _ = mixer(sequence(3, CELLS).to(device), None, None, None if length_B is None else length_B.to(device))
            if list(mixer.parameters()):
                y_BTD[:, 0].square().sum().backward()
            results.append([y_BTD[0], *(parameter.grad for parameter in mixer.parameters())])
        for found, expected in zip(*results, strict=True):
            close(found.cpu(), expected, 1e-7)


def reads(mixer: Any, cells: int) -> Tensor:
    """Whether output t depends on input s in any of several rows, as a matrix of bool."""
    found = []
    for x_TD in sequence(4, cells):
        jacobian_TDTD: Any = torch.autograd.functional.jacobian(lambda x_TD: mixer(x_TD.unsqueeze(0))[0][0], x_TD)
        found.append((jacobian_TDTD.abs() > EXACT).any(3).any(1))
    return torch.stack(found).any(0)


@pytest.mark.parametrize("mixer", [name for name in CAUSAL if name not in ("none", "short_convolution")])
def test_both_ways_reads_from_both_ends(mixer: str) -> None:
    found_TT = reads(make("both_ways", mixer=mixer), CELLS)
    assert bool(found_TT[0].all()) and bool(found_TT[:, 0].all()) and bool(found_TT[-1, 0]) and bool(found_TT[0, -1])


def test_both_ways_of_a_window_reads_the_window_on_both_sides() -> None:
    t_T = torch.arange(CELLS)
    assert reads(make("both_ways", mixer={"name": "short_convolution", "kernel_size": 3}), CELLS).equal((t_T - t_T.unsqueeze(1)).abs() < 3)


@pytest.mark.parametrize("name", ["full_attention", "token_mixing"])
def test_the_others_read_everything(name: str) -> None:
    assert bool(reads(make(name), CELLS).all())


def test_a_stencil_reads_a_cell_and_its_neighbours() -> None:
    row_T, column_T = torch.arange(CELLS) // 3, torch.arange(CELLS) % 3
    distance_TT = (row_T - row_T.unsqueeze(1)).abs() + (column_T - column_T.unsqueeze(1)).abs()
    assert reads(make("stencil"), CELLS).equal(distance_TT <= 1)


def test_the_two_directions_have_weights_of_their_own() -> None:
    mixer, x_BTD = make("both_ways", mixer="gru"), sequence(2, CELLS)
    assert not any(one.equal(other) for one, other in zip(mixer.forwards.parameters(), mixer.backwards.parameters(), strict=True))
    y_BTD, _ = mixer(x_BTD)
    mixer.forwards, mixer.backwards = mixer.backwards, mixer.forwards
    close(mixer(x_BTD.flip(1))[0].flip(1), y_BTD)
