"""The selective scan against the plain recurrence.

Notation: B = batch size, T = sequence length, E = channels, N = states of a channel.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.ops import backends, mamba_ssm, native
from pipeline.ops.selective_scan import SOURCE, Operands, selective_scan, selective_step
from pipeline.storage.errors import UserError
from tests.mixers.making import close, resets

B, E, N = 3, 5, 4
every_backend = pytest.mark.parametrize("backend", ["torch", "c"])


@pytest.fixture(autouse=True)
def _compiler(request: pytest.FixtureRequest) -> None:
    """Tests of the compiled backend need a compiler."""
    reason = native.unavailable_reason(SOURCE, torch.zeros(1))
    if "c" in getattr(getattr(request.node, "callspec", None), "params", {}).values() and reason:
        pytest.skip(reason)


def inputs(steps: int, rows: int = B, width: int = E, states: int = N, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """The operands, step sizes between 0 and 1 and rates below zero, and a state."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, steps, width)] * 2 + [(width, states)] + [(rows, steps, states)] * 2 + [(width,), (rows, width, states)]
    x, step, rate, write, read, skip, state = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    tensors = [x, torch.sigmoid(step), -rate.exp(), write, read, skip, state]
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def run(tensors: list[Tensor], *more: Any) -> tuple[Tensor, Tensor]:
    """The operation on operands and a state in one list."""
    *operands, state = tensors
    return selective_scan(Operands(*operands), state, *more)


def naive(tensors: list[Tensor], reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The equation at the top of the module, one row, position and channel at a time."""
    x, step, rate, write, read, skip, state = tensors
    rows, ends = [], []
    for row in range(len(x)):
        outputs, h = [], list(state[row].unbind())
        for t in range(x.shape[1]):
            fresh = reset is not None and bool(reset[row, t])
            y = []
            for e in range(x.shape[2]):
                size = step[row, t, e]
                before = torch.zeros_like(h[e]) if fresh else h[e]
                h[e] = torch.exp(size * rate[e]) * before + size * x[row, t, e] * write[row, t]
                y.append(read[row, t] @ h[e] + skip[e] * x[row, t, e])
            outputs.append(torch.stack(y))
        rows.append(torch.stack(outputs))
        ends.append(torch.stack(h))
    return torch.stack(rows), torch.stack(ends)


def weighed(found: tuple[Tensor, Tensor]) -> Tensor:
    """A loss of outputs and state with a different weight for each number."""
    return sum((tensor * torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype).view_as(tensor)).sum() for tensor in found)  # pyright: ignore[reportReturnType]


@every_backend
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("steps", [1, 16, 37])
def test_values_and_gradients(backend: str, with_resets: bool, steps: int) -> None:
    tensors, reset = inputs(steps), resets(B, steps) if with_resets else None
    found, expected = run(tensors, reset, None, backend), naive(tensors, reset)
    for one, other in zip(found, expected, strict=True):
        close(one, other)
    gradients = [torch.autograd.grad(weighed(both), tensors) for both in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        close(one, other)


@every_backend
@settings(max_examples=12, deadline=None, derandomize=True)
@given(width=st.sampled_from([1, 63, 64, 65, 130]), states=st.integers(1, 18), steps=st.integers(1, 70), seed=st.integers(0, 99))
def test_every_size_gives_what_steps_give(backend: str, width: int, states: int, steps: int, seed: int) -> None:
    *operands, state = inputs(steps, 2, width, states, seed=seed)
    found, end = selective_scan(Operands(*operands), state, None, None, backend)
    x, step, rate, write, read, skip = operands
    for t in range(steps):
        y, state = selective_step(Operands(x[:, t], step[:, t], rate, write[:, t], read[:, t], skip), state)
        close(found[:, t], y)
    close(end, state)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(width=st.sampled_from([1, 63, 64, 65, 130]), states=st.integers(1, 18), steps=st.integers(1, 70), with_resets=st.booleans())
def test_backends_agree_in_every_size(width: int, states: int, steps: int, with_resets: bool) -> None:
    if native.unavailable_reason(SOURCE, torch.zeros(1)):
        return
    tensors = inputs(steps, 2, width, states)
    reset = resets(2, steps) if with_resets else None
    gradients = [torch.autograd.grad(weighed(run(tensors, reset, None, backend)), tensors) for backend in ("torch", "c")]
    for one, other in zip(*gradients, strict=True):
        close(one, other)


@every_backend
def test_single_precision_is_within_rounding(backend: str) -> None:
    exact, rounded = inputs(300), inputs(300, dtype=torch.float32)
    for one, other in zip(run(rounded, None, None, backend), run(exact, None, None, "torch"), strict=True):
        assert (one - other).abs().max() <= 3e-6 * other.abs().max()
    gradients = [torch.autograd.grad(weighed(run(tensors, None, None, backend)), tensors) for tensors in (rounded, exact)]
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@every_backend
def test_gradcheck(backend: str) -> None:
    reset, length = torch.tensor([[False, False, True, False], [False] * 4]), torch.tensor([4, 3])
    assert torch.autograd.gradcheck(lambda *tensors: run(list(tensors), reset, length, backend), inputs(4, 2, 3, 2))


@every_backend
def test_extreme_step_sizes_forget_all_and_nothing(backend: str) -> None:
    x, step, rate, write, read, skip, state = (tensor.detach() for tensor in inputs(2, dtype=torch.float32))
    for size, expected in ((1e30, torch.zeros_like(state)), (0.0, state)):
        _, end = selective_scan(Operands(x * 0, torch.full_like(step, size), rate, write, read, skip), state, None, None, backend)
        assert torch.equal(end, expected) or bool((end - expected).abs().max() < 1e-30)


def test_the_authors_kernel_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^selective_scan: backend mamba_ssm is not available: needs tensors on a CUDA GPU"):
        run(inputs(3), None, None, "mamba_ssm")

    class OnCuda:
        device, dtype = torch.device("cuda"), torch.float32

    there: Any = OnCuda()
    monkeypatch.setattr(mamba_ssm, "import_failure", lambda: None)
    assert mamba_ssm.unavailable_reason(there, N, None, torch.zeros(2, 3, dtype=torch.bool)) is None
    assert "got a state" in str(mamba_ssm.unavailable_reason(there, N, torch.zeros(1), None))
    assert "got resets" in str(mamba_ssm.unavailable_reason(there, N, None, torch.ones(2, 3, dtype=torch.bool)))
    assert "up to 256 states" in str(mamba_ssm.unavailable_reason(there, 257, None, None))
    there.dtype = torch.float64
    assert "float32" in str(mamba_ssm.unavailable_reason(there, N, None, None))


def test_the_authors_kernel_is_given_time_last_and_its_state_has_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, return_last_state: bool) -> tuple[Tensor, Tensor]:
        """Its signature, computed by ours."""
        y, state = selective_scan(Operands(u.mT, delta.mT, A, B.mT, C.mT, D), None, None, None, "torch")
        return y.mT, state.detach()

    class Interface:
        selective_scan_fn = staticmethod(kernel)

    monkeypatch.setattr(mamba_ssm, "_interface", Interface)
    *operands, _ = inputs(7)
    y, state = mamba_ssm.selective_scan(*operands)
    expected = selective_scan(Operands(*operands), None, None, None, "torch")
    close(y, expected[0])
    close(state, expected[1])
    found = torch.autograd.grad(y.square().sum(), operands, retain_graph=True)
    for one, other in zip(found, torch.autograd.grad(expected[0].square().sum(), operands), strict=True):
        close(one, other)
    with pytest.raises(UserError, match="gives no gradient of the last state"):
        state.sum().backward()


def test_what_was_used_is_recorded() -> None:
    run(inputs(2), None, None, "torch")
    assert "torch" in backends.used()["selective_scan"]
