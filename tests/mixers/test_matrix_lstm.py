"""The matrix LSTM against its definition without a stabiliser, and where that one overflows.

Notation: B = batch size, T = sequence length, D = width, H = heads, K = channels per head.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.mixers.matrix_lstm import MatrixLSTM, log_scales
from tests.mixers.making import close, make, resets, sequence, steps_of


def matrix_lstm(dtype: torch.dtype = torch.float64) -> MatrixLSTM:
    """The mixer with seeded weights, its input gates spread wide."""
    mixer = make("matrix_lstm", dtype)
    assert isinstance(mixer, MatrixLSTM)
    with torch.no_grad():
        mixer.gates.weight.mul_(8)
    return mixer


def unstabilised(mixer: MatrixLSTM, x_TD: Tensor) -> Tensor:
    """One position after the other, as the paper's first equations stand: no m, and n by itself."""
    heads, channels = mixer.heads, mixer.channels
    q, k, v, gate = mixer.project(x_TD).view(len(x_TD), 4, heads, channels).unbind(1)
    i, f = mixer.gates(x_TD).view(len(x_TD), 2, heads).unbind(1)
    c_HKK, n_HK, outputs = torch.zeros(heads, channels, channels).double(), torch.zeros(heads, channels).double(), []
    for t in range(len(x_TD)):
        key_HK = i[t].exp().unsqueeze(-1) * k[t] / math.sqrt(channels)
        c_HKK = torch.sigmoid(f[t])[:, None, None] * c_HKK + torch.einsum("hv,hk->hvk", v[t], key_HK)
        n_HK = torch.sigmoid(f[t])[:, None] * n_HK + key_HK
        h_HK = torch.einsum("hvk,hk->hv", c_HKK, q[t]) / (n_HK * q[t]).sum(-1).abs().clamp(min=1).unsqueeze(-1)
        h_HK = functional.rms_norm(h_HK, (channels,), mixer.norm.weight, 1e-5)
        outputs.append(mixer.out((torch.sigmoid(gate[t]) * h_HK).flatten()))
    return torch.stack(outputs)


def test_equals_its_definition_without_a_stabiliser() -> None:
    mixer, x_BTD = matrix_lstm(), sequence(2, 90).requires_grad_()
    y_BTD, _ = mixer(x_BTD)
    expected_BTD = torch.stack([unstabilised(mixer, x_TD) for x_TD in x_BTD.unbind()])
    close(y_BTD, expected_BTD)
    wanted = [x_BTD, *mixer.parameters()]
    weight_BTD = sequence(2, 90, seed=5)
    found = torch.autograd.grad((y_BTD * weight_BTD).sum(), wanted)
    for one, other in zip(found, torch.autograd.grad((expected_BTD * weight_BTD).sum(), wanted), strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("bias", [-1000.0, 1000.0])
def test_gates_far_beyond_the_range_of_exp(bias: float) -> None:
    mixer, x_BTD = matrix_lstm(torch.float32), sequence(2, 90, torch.float32)
    mixer.gates.bias[: mixer.heads] = bias
    y_BTD, after = mixer(x_BTD)
    assert bool(y_BTD.isfinite().all()) and all(bool(leaf.isfinite().all()) for leaf in after)
    assert bool(y_BTD.any()) == (bias > 0)
    close(steps_of(mixer, x_BTD)[0], y_BTD, 1e-4)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7, 64])
def test_scales_by_doubling_are_the_recurrence(reset: bool, steps: int) -> None:
    torch.manual_seed(2)
    forget, log_input, m_BH = -torch.rand(3, steps, 2), 3 * torch.randn(3, steps, 2), torch.rand(3, 2)
    reset_BT = resets(3, steps) if reset else None
    scale, previous = log_scales(forget, log_input, m_BH, reset_BT)
    for t in range(steps):
        m_BH = m_BH if reset_BT is None else m_BH.masked_fill(reset_BT[:, t, None], 0.0)
        close(previous[:, t], m_BH, 1e-5)
        m_BH = torch.maximum(forget[:, t] + m_BH, log_input[:, t]).clamp(min=0)
        close(scale[:, t], m_BH, 1e-5)
