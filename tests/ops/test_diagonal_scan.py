"""The diagonal recurrence against slower and more obvious ways to compute it.

Notation: B = batch size, T = sequence length, D = width, N = complex states, S = 2 N.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.ops import diagonal_scan as module
from pipeline.ops.diagonal_scan import CDiagonalScan, blocks, diagonal, doubling_, loop_
from pipeline.storage.errors import UserError
from tests.mixers.making import close

B, T, D, N = 3, 11, 2, 3

BACKENDS = ["torch", "c"]
call: Any = diagonal
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def arguments(rows: int = B, steps: int = T, dtype: torch.dtype = torch.float64) -> Any:
    """x, into, decay, out, skip, state."""
    a_N = torch.polar(0.5 + torch.rand(N, dtype=torch.float64) / 2, 6 * torch.rand(N, dtype=torch.float64))
    shapes = [(rows, steps, D), (2 * N, D), (D, 2 * N), (D,), (rows, 2 * N)]
    x, into, out, skip, state = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    found = [x, into, torch.stack([a_N.real, a_N.imag]), out, skip, state]
    return [tensor.to(dtype).requires_grad_() for tensor in found]


def naive(
    x: Tensor, into: Tensor, decay: Tensor, out: Tensor, skip: Tensor, state: Tensor, reset: Tensor | None, length: Tensor | None
) -> Any:
    """The two equations at the top of the module, in complex numbers, one row and one position at a time."""
    a, outputs, ends = torch.complex(decay[0], decay[1]), [], []
    for row in range(x.shape[0]):
        h, end = torch.complex(*state[row].chunk(2)), state[row]
        for t in range(x.shape[1]):
            if reset is not None and reset[row, t]:
                h = torch.zeros_like(h)
            h = a * h + torch.complex(*(into @ x[row, t]).chunk(2))
            parts = torch.cat([h.real, h.imag])
            outputs.append(out @ parts + skip * x[row, t])
            end = parts if length is None or t < length[row] else end
        ends.append(end)
    return torch.stack(outputs).view_as(x), torch.stack(ends)


oracle: Any = naive


@every_backend
@pytest.mark.parametrize("positions", [1, 4, 11, 25, 1024])
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("lengths", [None, [11, 0, 4]])
def test_values_and_gradients(
    backend: Any, positions: int, with_resets: bool, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CDiagonalScan, "positions", positions)
    reset = torch.rand(B, T) < 0.3 if with_resets else None
    length = None if lengths is None else torch.tensor(lengths)
    inputs = arguments()
    found, expected = call(*inputs, reset, length, backend), oracle(*inputs, reset, length)
    weights = [torch.randn_like(tensor) for tensor in expected]
    for one, other in zip(found, expected, strict=True):
        close(one, other)
    gradients = [torch.autograd.grad(both, inputs, weights) for both in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        close(one, other)


@every_backend
@pytest.mark.parametrize("with_resets", [False, True])
def test_gradcheck(backend: str, with_resets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CDiagonalScan, "positions", 3)
    reset = torch.rand(2, 5) < 0.3 if with_resets else None
    assert torch.autograd.gradcheck(lambda x, *rest: call(x, *rest, reset, torch.tensor([5, 3]), backend), arguments(2, 5))


@every_backend
def test_the_output_is_a_convolution(backend: str) -> None:
    x, into, decay, out, skip, state = arguments(B, 400, torch.float32)
    y, _ = diagonal(x, into, decay, out, skip, torch.zeros_like(state), backend=backend)
    powers_TN = torch.complex(decay[0], decay[1]) ** torch.arange(400).unsqueeze(1)
    kernel_TDD = torch.einsum("dn,tn,ne->tde", torch.complex(out[:, :N], -out[:, N:]), powers_TN, torch.complex(into[:N], into[N:])).real
    spectra = torch.fft.rfft(kernel_TDD, 800, dim=0), torch.fft.rfft(x, 800, dim=1)
    convolved = torch.fft.irfft(torch.einsum("fde,bfe->bfd", *spectra), 800, dim=1)[:, :400] + skip * x
    torch.testing.assert_close(y, convolved, rtol=1e-4, atol=1e-4 * float(y.detach().abs().max()))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(steps=st.integers(1, 40), seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.1, 0.9]))
def test_doubling_equals_the_loop(steps: int, seed: int, share: float) -> None:
    random = torch.Generator().manual_seed(seed)
    u, start = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((2, steps, 2 * N), (2, 2 * N)))
    decay = torch.randn(2, N, dtype=torch.float64, generator=random) / 2
    reset = (torch.rand(2, steps, generator=random) < share) if share else None
    other = u.clone()
    loop_(u, decay, start, reset)
    doubling_(other, decay, start, reset)
    close(other, u)


def test_doubling_serves_the_whole_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, reset = arguments(), torch.rand(B, T) < 0.3
    expected = torch.autograd.grad(call(*inputs, reset, None, "torch")[0].square().sum(), inputs)
    monkeypatch.setattr(module, "loop_", doubling_)
    for found, other in zip(torch.autograd.grad(call(*inputs, reset, None, "torch")[0].square().sum(), inputs), expected, strict=True):
        close(found, other)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(batch=st.integers(1, 9), steps=st.integers(1, 50), positions=st.none() | st.integers(1, 60))
def test_blocks_cover_every_position_once(batch: int, steps: int, positions: int | None) -> None:
    seen = torch.zeros(batch, steps, dtype=torch.int64)
    for rows, times in blocks(batch, steps, positions):
        assert seen[rows, times].numel() <= (positions or batch * steps) or steps > (positions or 0) > 0
        assert not seen[rows, times].any() and bool(seen[rows, : times.start].all())
        seen[rows, times] += 1
    assert bool((seen == 1).all())


@every_backend
def test_views_and_broadcast_gradients(backend: str) -> None:
    inputs = arguments()
    turned = inputs[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert not turned.is_contiguous()
    for x in (inputs[0], turned):
        y, _ = diagonal(x, *inputs[1:], backend=backend)
        y.sum().backward()
    close(turned.grad, inputs[0].grad)  # pyright: ignore[reportArgumentType]


@every_backend
def test_a_gradient_of_the_gradient_is_refused(backend: str) -> None:
    inputs = arguments()
    (first,) = torch.autograd.grad(call(*inputs, backend=backend)[0].square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@every_backend
def test_inputs_are_not_changed(backend: str) -> None:
    inputs = arguments()
    before = [tensor.detach().clone() for tensor in inputs]
    diagonal(*inputs, backend=backend)[0].sum().backward()
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(inputs, before, strict=True))


def test_half_precision_goes_to_torch() -> None:
    inputs = arguments(dtype=torch.bfloat16)
    assert diagonal(*inputs)[0].dtype == torch.bfloat16
    with pytest.raises(UserError, match="diagonal: backend c is not available: it computes in float32 or float64 and got torch.bfloat16"):
        diagonal(*inputs, backend="c")
