"""RWKV-7's rule against a plain loop, the delta rule it generalises, and the mixer against the paper's equations.

Notation: B = batch size, T = sequence length, D = width, H = heads, K = channels of a key, V = channels of a value.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.ops.delta_rule import delta_rule, unit
from pipeline.ops.dplr import LOWEST, dplr, dplr_step
from pipeline.ops.state import leaves
from tests.mixers.making import WIDTH, close, make, resets, sequence
from tests.mixers.test_lstm import sigmoid

B, H, K, V = 3, 2, 4, 3
Result = tuple[Tensor, Tensor]


def inputs(steps: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v, a of length one, b as long as that at most, log w, and the state before."""
    torch.manual_seed(3)
    q, k, v, a = (torch.randn(B, steps, H, size, dtype=dtype) for size in (K, K, V, K))
    log_decay = math.log(LOWEST) * torch.rand(B, steps, H, K, dtype=dtype)
    return [q, k, v, unit(a), torch.rand(B, steps, H, K, dtype=dtype) * unit(a), log_decay, torch.randn(B, H, K, V, dtype=dtype)]


def naive(reset_BT: Tensor | None, length_B: Tensor | None, given: list[Tensor]) -> Result:
    """One row, position and head after the other, with the transition matrix written out."""
    q, k, v, a, b, log_decay, state = given
    outputs, states = [], []
    for row in range(B):
        heads, y = list(state[row]), []
        for t in range(q.shape[1]):
            if length_B is not None and t >= int(length_B[row]):
                y.append(torch.zeros_like(v[row, t]))
                continue
            for head in range(H):
                before_KV = torch.zeros_like(heads[head]) if reset_BT is not None and bool(reset_BT[row, t]) else heads[head]
                transition_KK = torch.diag(log_decay[row, t, head].exp()) - torch.outer(b[row, t, head], a[row, t, head])
                heads[head] = transition_KK @ before_KV + torch.outer(k[row, t, head], v[row, t, head])
            y.append(torch.stack([heads[head].t() @ q[row, t, head] for head in range(H)]))
        outputs.append(torch.stack(y))
        states.append(torch.stack(heads))
    return torch.stack(outputs), torch.stack(states)


def chunked(reset_BT: Tensor | None, length_B: Tensor | None, size: int, given: list[Tensor]) -> Result:
    """`dplr`, its outputs beyond the end set to zero."""
    q, k, v, a, b, log_decay, state = given
    y, after = dplr(q, k, v, a, b, log_decay, state, reset_BT, length_B, size)
    if length_B is not None:
        y = y * (torch.arange(y.shape[1]) < length_B.unsqueeze(1))[:, :, None, None]
    return y, after


def same_values_and_gradients(reset_BT: Tensor | None, length_B: Tensor | None, size: int, given: list[Tensor]) -> None:
    for tensor in given:
        tensor.requires_grad_()
    results = [naive(reset_BT, length_B, given), chunked(reset_BT, length_B, size, given)]
    weights = [torch.randn_like(part) for part in results[0]]
    losses = [(result[0] * weights[0]).sum() + (result[1] * weights[1]).sum() for result in results]
    gradients = [torch.autograd.grad(loss, given) for loss in losses]
    for found, expected in zip([*results[1], *gradients[1]], [*results[0], *gradients[0]], strict=True):
        close(found, expected)


@pytest.mark.parametrize(("steps", "size"), [(1, 32), (5, 8), (16, 8), (23, 8), (70, 32), (9, 1)])
def test_equals_the_plain_recurrence(steps: int, size: int) -> None:
    same_values_and_gradients(None, None, size, inputs(steps))


def test_equals_it_with_resets_and_padding() -> None:
    same_values_and_gradients(resets(B, 23), torch.tensor([23, 0, 13]), 8, inputs(23))


@pytest.mark.parametrize("log_decay", [0.0, math.log(LOWEST)])
def test_the_weakest_and_the_strongest_decays_are_exact(log_decay: float) -> None:
    given = inputs(70, torch.float32)
    given[5] = torch.full_like(given[5], log_decay)
    expected = naive(None, None, [tensor.double() for tensor in given])
    for found, exact in zip(chunked(None, None, 32, given), expected, strict=True):
        assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_the_step_is_the_recurrence() -> None:
    *sequences, state = given = inputs(1)
    q, k, v, a, b, log_decay = (part[:, 0] for part in sequences)
    y, after = dplr_step(q, k, v, a, b, log_decay, state)
    expected_y, expected_after = naive(None, None, given)
    close(y, expected_y[:, 0])
    close(after, expected_after)


def test_the_delta_rule_is_a_special_case() -> None:
    """What is read and what is taken away under the key that is written, with no decay."""
    q, k, v, *_, state = inputs(40)
    k, strength_BTH = unit(k), 2 * torch.rand(B, 40, H, dtype=torch.float64)
    b = strength_BTH.unsqueeze(-1) * k
    expected = delta_rule(q, k, v, strength_BTH, None, state)
    for found, other in zip(dplr(q, b, v, k, b, torch.zeros_like(k), state), expected, strict=True):
        close(found, other)


def test_equals_the_papers_equations() -> None:
    """Every equation at the top of the module in numpy, with parameters that are all random."""
    mixer, heads, channels = make("rwkv7"), 4, WIDTH // 4
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    p = {name: parameter.detach().numpy() for name, parameter in mixer.named_parameters()}
    x_TD = sequence(1, 9)[0].numpy()
    previous_D, state, outputs = np.zeros(WIDTH), np.zeros((heads, channels, channels)), []
    for x_D in x_TD:
        of_r, of_w, of_k, of_v, of_a, of_g = (x_D + mu * (previous_D - x_D) for mu in p["shift_MD"])
        r, k, v = p["receptance.weight"] @ of_r, p["key.weight"] @ of_k, p["value.weight"] @ of_v
        w = np.exp(-np.exp(-0.5) * sigmoid(p["decay.2.bias"] + p["decay.2.weight"] @ np.tanh(p["decay.0.weight"] @ of_w)))
        a = sigmoid(p["rate.1.bias"] + p["rate.1.weight"] @ (p["rate.0.weight"] @ of_a))
        g = p["gate.2.weight"] @ sigmoid(p["gate.0.weight"] @ of_g)
        removed, written, y = k * p["removed_D"], k * (1 + (a - 1) * p["rated_D"]), []
        for head, part in enumerate(np.split(np.arange(WIDTH), heads)):
            e = removed[part] / np.sqrt((removed[part] ** 2).sum() + 1e-6)
            state[head] = (np.diag(w[part]) - np.outer(a[part] * e, e)) @ state[head] + np.outer(written[part], v[part])
            read = state[head].T @ r[part]
            normed = (read - read.mean()) / np.sqrt(read.var() + 64e-5) * p["scale_HK"][head] + p["offset_HK"][head]
            y.append(normed + (r[part] * p["bonus_HK"][head] * written[part]).sum() * v[part])
        outputs.append(p["out.weight"] @ (g * np.concatenate(y)))
        previous_D = x_D
    y_BTD, after = mixer(torch.from_numpy(x_TD).unsqueeze(0))
    close(y_BTD[0].detach(), torch.from_numpy(np.stack(outputs)))
    close(after.matrix_BHKK[0].detach(), torch.from_numpy(state))


def test_the_state_stays_bounded() -> None:
    """Whatever the input: what is taken away is never more than what is there."""
    mixer, x_BTD = make("rwkv7", torch.float32), 30 * sequence(2, 2000, torch.float32)
    with torch.no_grad():
        y_BTD, after = mixer(x_BTD)
    assert bool(y_BTD.isfinite().all()) and all(float(leaf.abs().max()) < 1e5 for leaf in leaves(after))


@torch.no_grad()
def test_time_constants_start_from_short_to_long() -> None:
    mixer = make("rwkv7", width=1024)
    constant_D = 1 / (math.exp(-0.5) * torch.sigmoid(mixer.decay[2].bias))
    assert 8 < float(constant_D.min()) < 10 and 1000 < float(constant_D.max()) < 1200
