"""The scan of outer products with a decay of every entry, against its definition written out.

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.ops.outer_scan import OuterScanInputs, outer_scan, outer_step
from tests.mixers.making import close, resets

B, T, H, K, V = 3, 23, 2, 4, 3


def given(dtype: torch.dtype = torch.float64) -> tuple[OuterScanInputs, Tensor]:
    """Random terms, with shares of what is kept in 0..1, and a state."""
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(B, T, H, size, generator=generator, dtype=dtype) for size in (K, K, V))
    f, g = (torch.rand(B, T, H, size, generator=generator, dtype=dtype) for size in (K, V))
    return OuterScanInputs(q, k, v, f, g), torch.randn(B, H, K, V, generator=generator, dtype=dtype)


def naive(terms: OuterScanInputs, state_BHKV: Tensor, reset_BT: Tensor | None, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Entry by entry."""
    y, end = torch.zeros(B, T, H, V, dtype=torch.float64), state_BHKV.clone()
    for b in range(B):
        for h in range(H):
            for i in range(K):
                for j in range(V):
                    entry = state_BHKV[b, h, i, j]
                    for t in range(lengths[b]):
                        q, k, v, f, g = (term[b, t, h] for term in terms)
                        entry = torch.zeros(()) if reset_BT is not None and reset_BT[b, t] else entry
                        entry = (1 - (1 - f[i]) * (1 - g[j])) * entry + k[i] * v[j]
                        y[b, t, h, j] += entry * q[i]
                    end[b, h, i, j] = entry
    return y, end


@pytest.mark.parametrize("numbers", [1, 5 * B * H * K * V, 1 << 20], ids=["one", "blocks", "whole"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("with_resets", [False, True])
def test_equals_its_definition(numbers: int, ragged: bool, with_resets: bool) -> None:
    terms, start = given()
    lengths = [T, 7, 0] if ragged else [T] * B
    reset_BT = resets(B, T) if with_resets else None
    y, end = outer_scan(terms, start, reset_BT, torch.tensor(lengths) if ragged else None, numbers)
    expected_y, expected_end = naive(terms, start, reset_BT, lengths)
    close(end, expected_end)
    for row, length in enumerate(lengths):
        close(y[row, :length], expected_y[row, :length])


def test_steps_give_the_same() -> None:
    terms, carried = given()
    outputs = []
    y, end = outer_scan(terms, carried)
    for t in range(T):
        part, carried = outer_step(OuterScanInputs(*(term[:, t] for term in terms)), carried)
        outputs.append(part)
    close(torch.stack(outputs, 1), y)
    close(carried, end)


@pytest.mark.parametrize("numbers", [1, 5 * B * H * K * V])
def test_blocks_change_no_gradient(numbers: int) -> None:
    terms, start = given()
    inputs = [tensor.requires_grad_() for tensor in (*terms, start)]
    gradients = []
    for size in (numbers, 1 << 20):
        y, end = outer_scan(terms, start, resets(B, T), torch.tensor([T, 7, 0]), size)
        gradients.append(torch.autograd.grad(y[:, :7].square().sum() + end.square().sum(), inputs))
    for found, expected in zip(*gradients, strict=True):
        close(found, expected)


def test_blocks_keep_few_states_for_the_gradient() -> None:
    """Between the blocks only; all of them would be T times the state."""
    terms, start = given()
    terms = OuterScanInputs(*(term.detach().requires_grad_() for term in terms))
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        outer_scan(terms, start, numbers=5 * start.numel())
    assert kept == sum(term.numel() for term in terms) + 5 * start.numel()
