"""The norm in place against its definition, and its gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.ops.rms_norm import rms_norm_

axes = pytest.mark.parametrize("axis", [-1, 1, 2])


def plain(v: Tensor, eps: float, axis: int) -> Tensor:
    return v * torch.rsqrt(v.square().mean(axis, keepdim=True) + eps)


@axes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(axis: int, dtype: torch.dtype) -> None:
    v, weight = torch.randn(3, 5, 7, dtype=dtype), torch.randn(3, 5, 7, dtype=dtype)
    inputs = [v.clone().requires_grad_() for _ in range(2)]
    expected, found = plain(inputs[0], 1e-3, axis), rms_norm_(inputs[1] + 0, 1e-3, axis)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y, x in zip((expected, found), inputs, strict=True)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert rms_norm_(v, 1e-3, axis) is v
        torch.testing.assert_close(v, expected)


@given(scale=st.floats(0.1, 1e3), seed=st.integers(0, 99), axis=st.sampled_from([1, -1]))
def test_it_has_no_scale(scale: float, seed: int, axis: int) -> None:
    v = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1
    once = rms_norm_(v.clone(), 1e-12, axis)
    torch.testing.assert_close(rms_norm_(scale * v, 1e-12, axis), once, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(once.square().mean(axis), torch.ones_like(once.mean(axis)), rtol=1e-6, atol=1e-6)
