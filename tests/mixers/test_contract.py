"""What every causal mixer of the catalogue promises. A new entry is tested here without an edit; for others see `test_whole_rows`.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.mixers.base import Mixer
from pipeline.ops import backends, state
from pipeline.storage.errors import UserError
from tests.mixers.making import CAUSAL, EXACT, MIXERS, WIDTH, close, make, nbytes, resets, rows_alone, same_future, sequence, steps_of

CONSTANT = [name for name in CAUSAL if MIXERS[name].constant_state]
LENGTHS = [1, 2, 7, 64, 257]

every_mixer = pytest.mark.parametrize("name", CAUSAL)


@every_mixer
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, EXACT)])
def test_a_sequence_equals_its_steps(name: str, length: int, dtype: torch.dtype, tolerance: float) -> None:
    mixer, x_BTD = make(name, dtype), sequence(3, length, dtype)
    y_BTD, after = mixer(x_BTD)
    assert y_BTD.shape == x_BTD.shape and y_BTD.dtype == dtype and bool(y_BTD.isfinite().all())
    with torch.no_grad():
        stepped_BTD, stepped = steps_of(mixer, x_BTD)
    close(stepped_BTD, y_BTD, tolerance)
    same_future(mixer, stepped, after, 3, tolerance)


@every_mixer
@settings(max_examples=15, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(1, 69), max_size=3, unique=True), reset=st.booleans())
def test_a_sequence_equals_its_parts(name: str, cuts: list[int], reset: bool) -> None:
    mixer, x_BTD = make(name), sequence(2, 70)
    reset_BT = resets(2, 70) if reset else None
    whole_BTD, whole = mixer(x_BTD, None, reset_BT)
    edges, carried, outputs = [0, *sorted(cuts), 70], mixer.initial_state(2), []
    for start, stop in pairwise(edges):
        part_BTD, carried = mixer(x_BTD[:, start:stop], carried, None if reset_BT is None else reset_BT[:, start:stop])
        outputs.append(part_BTD)
    close(torch.cat(outputs, 1), whole_BTD)
    same_future(mixer, carried, whole, 2)


@every_mixer
def test_resets_isolate_episodes(name: str) -> None:
    mixer, x_BTD, reset_BT = make(name), sequence(4, 23), resets(4, 23)
    _, before = mixer(sequence(4, 5, seed=3))
    y_BTD, after = mixer(x_BTD, before, reset_BT)
    for row in range(4):
        starts = [0, *[t for t in range(1, 23) if reset_BT[row, t]], 23]
        fresh = bool(reset_BT[row, 0])
        alone = None if fresh else state.select(before, torch.tensor([row]))
        for start, stop in pairwise(starts):
            part_BTD, alone = mixer(x_BTD[row : row + 1, start:stop], alone if start == 0 else None)
            close(y_BTD[row : row + 1, start:stop], part_BTD)
        same_future(mixer, state.select(after, torch.tensor([row])), alone, 1)


@every_mixer
def test_gradients_do_not_cross_a_reset(name: str) -> None:
    mixer, x_BTD = make(name), sequence(2, 9).requires_grad_()
    _, before = mixer(sequence(2, 5, seed=3))
    before = state.transform(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), before)
    reset_BT = torch.zeros(2, 9, dtype=torch.bool)
    reset_BT[:, 4] = True
    y_BTD, after = mixer(x_BTD, before, reset_BT)
    later = (y_BTD[:, 4:] ** 2).sum() + _future(mixer, after)
    inputs = [x_BTD, *[leaf for leaf in state.leaves(before) if leaf.requires_grad]]
    if not later.requires_grad:
        return
    d_x_BTD, *d_before = _gradients(later, inputs)
    assert not d_x_BTD[:, :4].any() and not any(bool(gradient.any()) for gradient in d_before)
    part_BTD = sequence(2, 9)[:, 4:].requires_grad_()
    y_BTD, after = mixer(part_BTD)
    close(d_x_BTD[:, 4:], _gradients((y_BTD**2).sum() + _future(mixer, after), [part_BTD])[0])


@every_mixer
@pytest.mark.parametrize("changed", [1, 30, 69])
def test_outputs_depend_on_the_past_only(name: str, changed: int) -> None:
    mixer, x_BTD = make(name, torch.float32), sequence(2, 70, torch.float32)
    other_BTD = x_BTD.clone()
    other_BTD[:, changed:] += 1
    y_BTD, _ = mixer(x_BTD)
    again_BTD, _ = mixer(other_BTD)
    close(again_BTD[:, :changed], y_BTD[:, :changed], 1e-6)
    assert bool((again_BTD[:, changed:] != y_BTD[:, changed:]).any()) == bool(list(mixer.parameters()))


@every_mixer
@pytest.mark.parametrize("carried", [False, True])
def test_padding_does_not_leak(name: str, carried: bool) -> None:
    mixer, x_BTD, lengths = make(name), sequence(5, 11), [11, 4, 1, 7, 11]
    for row, length in enumerate(lengths):
        x_BTD[row, length:] = 50.0
    before = mixer(sequence(5, 3, seed=3))[1] if carried else None
    y_BTD, after = mixer(x_BTD, before, None, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        start = None if before is None else state.select(before, torch.tensor([row]))
        alone_BTD, alone = mixer(x_BTD[row : row + 1, :length], start)
        close(y_BTD[row : row + 1, :length], alone_BTD)
        same_future(mixer, state.select(after, torch.tensor([row])), alone, 1)


@every_mixer
def test_a_row_of_length_zero_keeps_its_state(name: str) -> None:
    mixer = make(name)
    _, before = mixer(sequence(2, 5))
    _, after = mixer(sequence(2, 4, seed=3), before, None, torch.tensor([0, 4]))
    row = torch.tensor([0])
    same_future(mixer, state.select(after, row), state.select(before, row), 1)


@every_mixer
def test_padding_and_resets_together(name: str) -> None:
    mixer, x_BTD, reset_BT, lengths = make(name), sequence(4, 12), resets(4, 12), [12, 5, 9, 1]
    _, after = mixer(x_BTD, None, reset_BT, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        _, alone = mixer(x_BTD[row : row + 1, :length], None, reset_BT[row : row + 1, :length])
        same_future(mixer, state.select(after, torch.tensor([row])), alone, 1)


@every_mixer
def test_padding_gets_no_gradient_from_the_state(name: str) -> None:
    mixer, x_BTD, length_B = make(name), sequence(3, 8).requires_grad_(), torch.tensor([8, 3, 5])
    loss = _future(mixer, mixer(x_BTD, None, None, length_B)[1])
    if not loss.requires_grad:
        return
    (d_x_BTD,) = _gradients(loss, [x_BTD])
    for row, length in enumerate(length_B.tolist()):
        assert not d_x_BTD[row, length:].any() and bool(d_x_BTD[row, length - 1].any()) == MIXERS[name].carries_gradient


@every_mixer
def test_inactive_rows_keep_their_state(name: str) -> None:
    mixer, pattern = make(name), torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    x_BTD, carried = sequence(3, 5), mixer.initial_state(3)
    outputs = []
    with torch.no_grad():
        for t, x_BD in enumerate(x_BTD.unbind(1)):
            y_BD, carried = mixer.step(x_BD, carried, pattern[:, t])
            outputs.append(y_BD)
    for row in range(3):
        taken_TD = x_BTD[row, pattern[row]]
        y_BTD, alone = mixer(taken_TD.unsqueeze(0))
        close(torch.stack(outputs, 1)[row, pattern[row]], y_BTD[0])
        same_future(mixer, state.select(carried, torch.tensor([row])), alone, 1)


@every_mixer
def test_rows_of_different_lengths_go_on_together(name: str) -> None:
    mixer, x_BTD, lengths = make(name), sequence(3, 66), [66, 2, 63]
    _, after = mixer(x_BTD, None, None, torch.tensor(lengths))
    more_BTD = sequence(3, 5, seed=4)
    with torch.no_grad():
        stepped_BTD, _ = steps_of(mixer, more_BTD, after)
    for row, (_, alone) in enumerate(rows_alone(mixer, x_BTD, lengths)):
        close(stepped_BTD[row : row + 1], mixer(more_BTD[row : row + 1], alone)[0])


@every_mixer
def test_rows_do_not_see_each_other(name: str) -> None:
    mixer, x_BTD, order = make(name), sequence(4, 9), torch.tensor([2, 0, 3, 1])
    y_BTD, after = mixer(x_BTD)
    again_BTD, permuted = mixer(x_BTD[order])
    close(again_BTD, y_BTD[order])
    same_future(mixer, permuted, state.select(after, order), 4)


@every_mixer
@pytest.mark.parametrize("how", ["sequence", "steps"])
def test_state_bytes_are_what_is_carried(name: str, how: str) -> None:
    mixer, carried = make(name, torch.float32), make(name, torch.float32).initial_state(2)
    assert mixer.state_bytes(0) * 2 == nbytes(carried)
    context = 0
    with torch.no_grad():
        for more in (1, 6, 57, 1, 192):
            x_BTD = sequence(2, more, torch.float32)
            _, carried = mixer(x_BTD, carried) if how == "sequence" else steps_of(mixer, x_BTD, carried)
            context += more
            assert mixer.state_bytes(context) * 2 == nbytes(carried), context
    assert (mixer.state_bytes(4096) == mixer.state_bytes(1)) == MIXERS[name].constant_state


@every_mixer
def test_a_state_can_be_used_again(name: str) -> None:
    mixer, x_BTD = make(name), sequence(2, 6)
    with torch.no_grad():
        _, before = mixer(x_BTD)
        kept = state.transform(torch.clone, before)
        first_BTD, first = steps_of(mixer, sequence(2, 3, seed=5), before)
        expected, _ = steps_of(mixer, sequence(2, 3, seed=7), kept)
        second_BTD, _ = steps_of(mixer, sequence(2, 3, seed=7), before)
        close(second_BTD, expected)
        close(steps_of(mixer, sequence(2, 3, seed=5), before)[0], first_BTD)
        whole_BTD, _ = mixer(torch.cat([x_BTD, sequence(2, 3, seed=5), sequence(2, 2, seed=8)], 1))
        close(steps_of(mixer, sequence(2, 2, seed=8), first)[0], whole_BTD[:, -2:])


@every_mixer
def test_states_are_selected_forked_and_joined(name: str) -> None:
    mixer = make(name)
    short_BTD, long_BTD = sequence(2, 3), sequence(2, 67, seed=2)
    with torch.no_grad():
        (_, short), (_, long) = mixer(short_BTD), mixer(long_BTD)
        same_future(mixer, state.fork(short, 3), mixer(short_BTD.repeat_interleave(3, 0))[1], 6)
        joined = state.concatenate([short, long, short])
        for part, rows in ((short, [0, 1]), (long, [2, 3]), (short, [4, 5])):
            same_future(mixer, state.select(joined, torch.tensor(rows)), part, 2)
        mixed = state.where(torch.tensor([True, False]), long, short)
        same_future(mixer, state.select(mixed, torch.tensor([0])), state.select(long, torch.tensor([0])), 1)
        same_future(mixer, state.select(mixed, torch.tensor([1])), state.select(short, torch.tensor([1])), 1)


@every_mixer
def test_gradients_are_right(name: str) -> None:
    fields: dict[str, Any] = {"heads": 2} if "heads" in MIXERS[name].model_fields else {}
    mixer = make(name, width=8, **fields)
    x_BTD = sequence(2, 4, width=8).requires_grad_()
    reset_BT = torch.tensor([[False, False, True, False], [False] * 4])
    _, before = mixer(sequence(2, 2, width=8, seed=3))
    floats = [leaf.detach().requires_grad_() for leaf in state.leaves(before) if leaf.is_floating_point()]

    def run(x_BTD: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        given = iter(leaves)
        start = state.transform(lambda leaf: next(given) if leaf.is_floating_point() else leaf, before)
        y_BTD, after = mixer(x_BTD, start, reset_BT, torch.tensor([4, 3]))
        return y_BTD, *[leaf for leaf in state.leaves(after) if leaf.requires_grad]

    if list(mixer.parameters()):
        assert torch.autograd.gradcheck(run, (x_BTD, *floats), fast_mode=True)


@every_mixer
def test_every_parameter_learns(name: str) -> None:
    mixer = make(name)
    y_BTD, _ = mixer(sequence(2, 6))
    if not y_BTD.requires_grad:
        assert not list(mixer.parameters())
        return
    (y_BTD**2).sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in mixer.parameters())


@every_mixer
@pytest.mark.parametrize("backend", [name for name in backends.KNOWN if name != "auto"])
def test_every_backend_gives_the_same(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x_BTD, reset_BT, length_B = sequence(3, 40, torch.float32), resets(3, 40), torch.tensor([40, 17, 33])
    expected = _run_with("auto", monkeypatch, name, x_BTD, reset_BT, length_B)
    try:
        found = _run_with(backend, monkeypatch, name, x_BTD, reset_BT, length_B)
    except UserError as error:
        pytest.skip(str(error))
    tolerance = 3e-6 if name == "delta_net" else 1e-6  # without a decay each of its backends is 1e-6 from the truth, to either side
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("with_resets", [False, True])
def test_backward_time_grows_linearly(name: str, with_resets: bool) -> None:
    mixer = make(name, torch.float32, width=8)
    if not list(mixer.parameters()):
        return
    assert min(_seconds(mixer, 2048, with_resets) / _seconds(mixer, 256, with_resets) for _ in range(3)) < 16  # 8 is linear, 64 quadratic


@every_mixer
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same(name: str) -> None:
    x_BTD, reset_BT, length_B = sequence(3, 40), resets(3, 40), torch.tensor([40, 17, 33])
    for reset, length in ((None, None), (reset_BT, None), (None, length_B), (reset_BT, length_B)):
        results = []
        for device in ("cpu", "cuda"):
            mixer = make(name).to(device)
            there = [None if tensor is None else tensor.to(device) for tensor in (reset, length)]
            y_BTD, after = mixer(x_BTD.to(device), None, *there)
            if list(mixer.parameters()):
                (y_BTD[:, :17] ** 2).sum().backward()
            results.append([y_BTD[0], *state.leaves(state.select(after, torch.tensor([0], device=device)))])
            results[-1] += [parameter.grad for parameter in mixer.parameters()]
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=1e-7, atol=1e-7)


def _run_with(backend: str, monkeypatch: pytest.MonkeyPatch, name: str, x_BTD: Tensor, reset_BT: Tensor, length_B: Tensor) -> list[Tensor]:
    monkeypatch.setenv(backends.VARIABLE, backend)
    mixer, x_BTD = make(name, torch.float32), x_BTD.clone().requires_grad_()
    y_BTD, after = mixer(x_BTD, None, reset_BT, length_B)
    found = [y_BTD.detach()[row, :length] for row, length in enumerate(length_B.tolist())]
    loss = sum((y_BTD[row, :length] ** 2).sum() for row, length in enumerate(length_B.tolist())) + _future(mixer, after)
    wanted = [x_BTD, *mixer.parameters()]
    gradients = _gradients(loss, wanted) if isinstance(loss, Tensor) and loss.requires_grad else []
    return [*found, *[leaf.detach() for leaf in state.leaves(after)], *gradients]


def _future(mixer: Mixer, carried: state.State) -> Tensor:
    """A loss of what follows a state."""
    like = next((leaf for leaf in state.leaves(carried) if leaf.is_floating_point()), None)
    if like is None:
        return torch.zeros(())
    return mixer(sequence(like.shape[0], 3, like.dtype, seed=9), carried)[0].square().sum()


def _gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in zip(inputs, found, strict=True)]


def _seconds(mixer: Mixer, length: int, with_resets: bool) -> float:
    """CPU seconds of one backward pass."""
    x_BTD = nn.Parameter(sequence(2, length, torch.float32, width=8))
    reset_BT = resets(2, length) if with_resets else None
    loss = mixer(x_BTD, None, reset_BT)[0].square().sum()
    start = time.process_time()
    loss.backward()
    return time.process_time() - start


def test_the_width_of_these_tests_suits_every_mixer() -> None:
    assert all(WIDTH % (2 * field.default) == 0 for kind in MIXERS.values() if (field := kind.model_fields.get("heads")))
