"""The gated scan against slower and more obvious ways to compute it.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.ops import gated_scan as module
from pipeline.ops import native
from pipeline.ops.gated_scan import doubling, gated_scan, loop
from pipeline.storage.errors import UserError
from tests.mixers.making import close

B, T, D = 3, 11, 5

call: Any = gated_scan
every_backend = pytest.mark.parametrize("backend", ["torch", "c"])


def arguments(rows: int = B, steps: int = T, dtype: torch.dtype = torch.float64) -> Any:
    """a of either sign and around 1, u, state."""
    shapes = [(rows, steps, D), (rows, steps, D), (rows, D)]
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def naive(a: Tensor, u: Tensor, state: Tensor, reset: Tensor | None) -> Tensor:
    """The equation at the top of the module, one row and one position at a time."""
    outputs = []
    for row in range(u.shape[0]):
        h = state[row]
        for t in range(u.shape[1]):
            h = u[row, t] if reset is not None and reset[row, t] else a[row, t] * h + u[row, t]
            outputs.append(h)
    return torch.stack(outputs).view_as(u)


oracle: Any = naive


@every_backend
@pytest.mark.parametrize("steps", [1, 2, T])
@pytest.mark.parametrize("with_resets", [False, True])
def test_values_and_gradients(backend: str, steps: int, with_resets: bool) -> None:
    reset = torch.rand(B, steps) < 0.3 if with_resets else None
    inputs = arguments(steps=steps)
    found, expected = call(*inputs, reset, backend), oracle(*inputs, reset)
    close(found, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad(both, inputs, weights) for both in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        close(one, other)


@every_backend
@pytest.mark.parametrize("with_resets", [False, True])
def test_gradcheck(backend: str, with_resets: bool) -> None:
    reset = torch.rand(2, 5) < 0.3 if with_resets else None
    assert torch.autograd.gradcheck(lambda *inputs: call(*inputs, reset, backend), arguments(2, 5))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(steps=st.integers(1, 40), seed=st.integers(0, 99))
def test_doubling_equals_the_loop(steps: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    a, u = (torch.randn(2, steps, D, dtype=torch.float64, generator=random) for _ in range(2))
    start = torch.randn(2, D, dtype=torch.float64, generator=random)
    close(doubling(a, u, start), loop(a, u, start))


def test_doubling_serves_the_whole_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, reset = arguments(), torch.rand(B, T) < 0.3
    expected = torch.autograd.grad(call(*inputs, reset, "torch").square().sum(), inputs)
    monkeypatch.setattr(module, "loop", doubling)
    for found, other in zip(torch.autograd.grad(call(*inputs, reset, "torch").square().sum(), inputs), expected, strict=True):
        close(found, other)


def test_the_backends_agree_in_single_precision_over_a_long_sequence() -> None:
    a, u, state = (tensor.detach() for tensor in arguments(2, 1000, torch.float32))
    a = torch.sigmoid(a)
    close(gated_scan(a, u, state, backend="torch"), naive(a.double(), u.double(), state.double(), None).float(), 1e-5)
    if native.unavailable_reason(module.SOURCE, u) is None:
        close(gated_scan(a, u, state, backend="c"), gated_scan(a, u, state, backend="torch"), 1e-6)


@every_backend
def test_views_and_broadcast_gradients(backend: str) -> None:
    a, u, state = arguments()
    turned = [tensor.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for tensor in (a, u)]
    assert not turned[0].is_contiguous()
    gated_scan(a, u, state, backend=backend).sum().backward()
    call(*turned, state, backend=backend).sum().backward()
    close(turned[0].grad, a.grad)  # pyright: ignore[reportArgumentType]
    close(turned[1].grad, u.grad)  # pyright: ignore[reportArgumentType]


@every_backend
def test_a_gradient_of_the_gradient_is_refused(backend: str) -> None:
    inputs = arguments()
    (first,) = torch.autograd.grad(call(*inputs, backend=backend).square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@every_backend
def test_inputs_are_not_changed(backend: str) -> None:
    inputs = arguments()
    before = [tensor.detach().clone() for tensor in inputs]
    call(*inputs, torch.rand(B, T) < 0.3, backend=backend).sum().backward()
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(inputs, before, strict=True))


def test_half_precision_goes_to_torch() -> None:
    inputs = arguments(dtype=torch.bfloat16)
    assert call(*inputs).dtype == torch.bfloat16
    with pytest.raises(UserError, match="gated_scan: backend c is not available: it computes in float32 or float64 and got torch.bfloat16"):
        call(*inputs, backend="c")
