"""The chunked outer-product recurrence against a plain loop: values, gradients, strong decays, resets and padding.

Notation: B = batch size, T = sequence length, H = heads, K = channels of a key, V = channels of a value.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.ops.linear_scan import linear_scan, linear_step
from tests.mixers.making import close, make, resets, sequence

B, H, K, V = 3, 2, 4, 3
KINDS = {"none": 0, "head": 1, "channel": K}


def inputs(kind: str, steps: int, strength: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v, the state before and, unless nothing decays, log a; half of it `strength` times as strong."""
    torch.manual_seed(3)
    shapes = [(B, steps, H, K), (B, steps, H, K), (B, steps, H, V), (B, H, K, V)]
    found = [torch.randn(shape, dtype=dtype) for shape in shapes]
    if KINDS[kind]:
        decay = -torch.rand(B, steps, H, KINDS[kind], dtype=dtype)
        found.append(torch.where(torch.rand_like(decay) < 0.5, decay, decay * strength))
    return found


def naive(reset_BT: Tensor | None, length_B: Tensor | None, q: Tensor, k: Tensor, v: Tensor, state: Tensor, *log_decay: Tensor) -> tuple:
    """One row and position after the other."""
    outputs, states = [], []
    for row in range(B):
        s_HKV, y = state[row], []
        for t in range(q.shape[1]):
            if length_B is not None and t >= int(length_B[row]):
                y.append(torch.zeros_like(v[row, t]))
                continue
            if reset_BT is not None and bool(reset_BT[row, t]):
                s_HKV = torch.zeros_like(s_HKV)
            if log_decay:
                s_HKV = s_HKV * log_decay[0][row, t].exp().unsqueeze(-1)
            s_HKV = s_HKV + torch.einsum("hk,hv->hkv", k[row, t], v[row, t])
            y.append(torch.einsum("hkv,hk->hv", s_HKV, q[row, t]))
        outputs.append(torch.stack(y))
        states.append(s_HKV)
    return torch.stack(outputs), torch.stack(states)


def chunked(reset_BT: Tensor | None, length_B: Tensor | None, size: int, given: list[Tensor]) -> tuple[Tensor, Tensor]:
    """`linear_scan`, its outputs beyond the end set to zero."""
    q, k, v, state, *decay = given
    y, after = linear_scan(q, k, v, decay[0] if decay else None, state, reset_BT, length_B, size)
    if length_B is not None:
        y = y * (torch.arange(q.shape[1]) < length_B.unsqueeze(1))[:, :, None, None]
    return y, after


def same_values_and_gradients(reset_BT: Tensor | None, length_B: Tensor | None, size: int, given: list[Tensor]) -> None:
    for tensor in given:
        tensor.requires_grad_()
    results = [naive(reset_BT, length_B, *given), chunked(reset_BT, length_B, size, given)]
    weights = [torch.randn_like(part) for part in results[0]]
    losses = [sum((part * weight).sum() for part, weight in zip(result, weights, strict=True)) for result in results]
    gradients = [torch.autograd.grad(loss, given) for loss in losses if isinstance(loss, Tensor)]
    for found, expected in zip([*results[1], *gradients[1]], [*results[0], *gradients[0]], strict=True):
        close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "size"), [(1, 64), (5, 8), (16, 8), (23, 8), (70, 64), (9, 1)])
def test_equals_the_plain_recurrence(kind: str, steps: int, size: int) -> None:
    same_values_and_gradients(None, None, size, inputs(kind, steps))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_it_with_resets_and_padding(kind: str) -> None:
    same_values_and_gradients(resets(B, 23), torch.tensor([23, 0, 13]), 8, inputs(kind, 23))


@pytest.mark.parametrize("kind", ["head", "channel"])
@pytest.mark.parametrize("strength", [50.0, 1e4])
def test_strong_decays_are_exact(kind: str, strength: float) -> None:
    """Half of the decays forget nearly everything: their sums over a chunk are far beyond the range of exp."""
    same_values_and_gradients(None, None, 64, inputs(kind, 70, strength))
    given = inputs(kind, 70, strength, torch.float32)
    expected = naive(None, None, *(tensor.double() for tensor in given))
    for found, exact in zip(chunked(None, None, 64, given), expected, strict=True):
        assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_is_the_recurrence(kind: str) -> None:
    q, k, v, state, *decay = inputs(kind, 1)
    y, after = linear_step(q[:, 0], k[:, 0], v[:, 0], decay[0][:, 0] if decay else None, state)
    expected_y, expected_after = naive(None, None, q, k, v, state, *decay)
    close(y, expected_y[:, 0])
    close(after, expected_after)


@torch.no_grad()
def test_gated_linear_attention_stays_finite_when_its_gates_close() -> None:
    mixer, x_BTD = make("gated_linear_attention", torch.float32), sequence(2, 200, torch.float32)
    mixer.decay[1].bias.fill_(-1e5)
    y_BTD, after = mixer(x_BTD)
    assert bool(y_BTD.isfinite().all()) and bool(after.isfinite().all())
    alone_BTD, _ = mixer(x_BTD[:, 150:151])
    close(y_BTD[:, 150:151], alone_BTD, 1e-5)


@pytest.mark.parametrize("kind", ["none", "head"])
def test_one_head_of_queries_and_keys_may_serve_all(kind: str) -> None:
    q, k, v, state, *decay = inputs(kind, 70)
    log_decay = decay[0] if decay else None
    q, k = q[:, :, :1], k[:, :, :1]
    found = linear_scan(q, k, v, log_decay, state)
    expected = linear_scan(q.expand(-1, -1, H, -1), k.expand(-1, -1, H, -1), v, log_decay, state)
    step = linear_step(q[:, 0], k[:, 0], v[:, 0], None if log_decay is None else log_decay[:, 0], state)
    for one, other in zip((*found, step[0]), (*expected, expected[0][:, 0]), strict=True):
        close(one, other)
