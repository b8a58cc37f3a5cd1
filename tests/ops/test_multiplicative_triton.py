"""The multiplicative cells' Triton kernels against the loop by torch: in Triton's interpreter, and on a GPU where there is one.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.ops import backends, multiplicative_triton, state
from pipeline.storage.errors import UserError
from tests.mixers.making import make, resets, sequence

CELLS = ("multiplicative_lstm", "multiplicative_gru", "input_multiplicative_lstm", "input_multiplicative_gru")
KERNELS = "pipeline.ops.multiplicative_triton_kernels"
every_cell = pytest.mark.parametrize("name", CELLS)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that run on the CPU, one operation after the other."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, KERNELS, raising=False)
    yield
    sys.modules.pop(KERNELS, None)


def both(name: str, monkeypatch: pytest.MonkeyPatch, x_BTD: Tensor, reset_BT: Tensor | None, leaf: int | None = None) -> list[list[Tensor]]:
    """Outputs, state and gradients by `triton` and by `torch`; the loss is of everything, or of one leaf of the state only."""
    results: list[list[Tensor]] = []
    for backend in ("triton", "torch"):
        monkeypatch.setenv(backends.VARIABLE, backend)
        mixer = make(name, torch.float32, x_BTD.shape[2]).to(x_BTD.device)
        torch.manual_seed(5)
        before = state.transform(lambda part: torch.randn(part.shape).to(part.device).requires_grad_(), mixer.initial_state(len(x_BTD)))
        x = x_BTD.clone().requires_grad_()
        y_BTD, after = mixer(x, before, reset_BT)
        parts = [y_BTD, *state.leaves(after)] if leaf is None else [state.leaves(after)[leaf]]
        wanted = [x, *state.leaves(before), *mixer.parameters()]
        loss = torch.stack([part.sin().sum() for part in parts]).sum()
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        filled = [torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(wanted, gradients, strict=True)]
        results.append([y_BTD.detach(), *[part.detach() for part in state.leaves(after)], *filled])
    return results


def equal(results: list[list[Tensor]], tolerance: float = 1e-5) -> None:
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


@every_cell
@pytest.mark.parametrize(
    ("rows", "steps", "width", "with_resets"), [(3, 7, 16, True), (18, 3, 6, False), (2, 3, 80, True)], ids=["resets", "rows", "tiles"]
)
@pytest.mark.usefixtures("interpreter")
def test_the_kernels_equal_the_loop(
    name: str, rows: int, steps: int, width: int, with_resets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer rows and columns than a tile, more rows than a program takes, and more columns than a tile."""
    equal(both(name, monkeypatch, sequence(rows, steps, torch.float32, width), resets(rows, steps) if with_resets else None))


@pytest.mark.parametrize(("name", "leaf"), [("multiplicative_lstm", 1), ("input_multiplicative_lstm", 1), ("multiplicative_gru", 0)])
@pytest.mark.usefixtures("interpreter")
def test_a_loss_of_one_state_only(name: str, leaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    equal(both(name, monkeypatch, sequence(2, 3, torch.float32), None, leaf))


@every_cell
@pytest.mark.usefixtures("interpreter")
def test_inputs_are_not_changed_and_values_without_gradients_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "triton")
    mixer, x_BTD = make(name, torch.float32), sequence(2, 3, torch.float32)
    kept = {key: tensor.clone() for key, tensor in {**mixer.state_dict(), "x": x_BTD}.items()}
    y_BTD, _ = mixer(x_BTD)
    y_BTD.sum().backward()
    with torch.no_grad():
        assert torch.equal(mixer(x_BTD)[0], y_BTD)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in {**mixer.state_dict(), "x": x_BTD}.items())


@every_cell
def test_elsewhere_it_is_an_error_to_ask_for_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv(backends.VARIABLE, "triton")
    for dtype, reason in ((torch.float32, "needs tensors on a CUDA GPU"), (torch.float64, "it computes in float32")):
        with pytest.raises(UserError, match=rf"^{name}: backend triton is not available: {reason}"):
            make(name, dtype)(sequence(1, 2, dtype))


def test_without_triton_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton cannot be imported" in str(multiplicative_triton.import_failure.__wrapped__())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_cell
@pytest.mark.parametrize(("rows", "steps", "width"), [(3, 7, 16), (37, 50, 100), (64, 200, 128)])
@pytest.mark.parametrize("with_resets", [False, True])
def test_a_gpu_gives_the_same(name: str, rows: int, steps: int, width: int, with_resets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    reset_BT: Any = resets(rows, steps).cuda() if with_resets else None
    equal(both(name, monkeypatch, sequence(rows, steps, torch.float32, width).cuda(), reset_BT), 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_cell
def test_a_gpu_uses_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(backends, "_used", {})
    make(name, torch.float32).cuda()(sequence(2, 3, torch.float32).cuda())
    assert backends.used() == {name: ["triton"]}
