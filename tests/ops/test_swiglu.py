"""The gate against torch's own operations, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pipeline.ops.swiglu import swiglu


@pytest.mark.parametrize("shape", [(6,), (4, 10), (2, 33, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_are_those_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values, d_y = 3 * torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], shape[-1] // 2, dtype=dtype)
    one, other = (values.clone().requires_grad_() for _ in range(2))
    gate, up = one.chunk(2, -1)
    expected, found = functional.silu(gate) * up, swiglu(other)
    assert found.equal(expected)
    expected.backward(d_y)
    found.backward(d_y)
    assert one.grad is not None and other.grad is not None and other.grad.equal(one.grad)
