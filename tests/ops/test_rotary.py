"""Queries and keys rotated together against the rotation of each, to the last bit."""

from __future__ import annotations

import pytest
import torch

from pipeline.ops.rotary import angles, rotate, rotate_heads


@pytest.mark.parametrize("shape", [(7, 3, 2, 6), (4, 9, 3, 1, 2), (2, 33, 3, 4, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_are_those_of_separate_rotations(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, dtype=dtype)
    one, other = (x.clone().requires_grad_() for _ in range(2))
    q, k, v = one.unbind(-3)
    angle = angles(torch.arange(shape[-4]), shape[-1], 100.0, dtype).unsqueeze(1)
    expected = rotate(q, angle), rotate(k, angle), v
    with torch.inference_mode():
        rotate_heads(x, 100.0)  # what it remembers must serve a training
    found = rotate_heads(other + 0, 100.0)
    assert all(mine.equal(theirs) for mine, theirs in zip(found, expected, strict=True))
    weights = [torch.randn_like(part) for part in found]
    for parts in (expected, found):
        torch.stack([(part * weight).sum() for part, weight in zip(parts, weights, strict=True)]).sum().backward()
    assert one.grad is not None and other.grad is not None and other.grad.equal(one.grad)
