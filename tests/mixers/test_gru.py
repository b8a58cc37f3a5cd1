"""The GRU against torch's own layer, a recurrence written out in numpy, and the sense of its update gate.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.mixers.gru import GRU
from tests.mixers.making import WIDTH, close, make, sequence, steps_of
from tests.mixers.test_lstm import sigmoid


def gru(dtype: torch.dtype = torch.float64, **fields: Any) -> GRU:
    """The mixer with seeded weights."""
    mixer = make("gru", dtype, **fields)
    assert isinstance(mixer, GRU)
    return mixer


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_equals_torch_in_values_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    mixer, twin = gru(dtype), nn.GRU(WIDTH, WIDTH, batch_first=True).to(dtype)
    twin.load_state_dict(mixer.layer.state_dict())
    found, expected = sequence(3, 9, dtype).requires_grad_(), sequence(3, 9, dtype).requires_grad_()
    for run in (mixer, lambda x: steps_of(mixer, x)):
        (y, after), (other, h) = run(found), twin(expected)
        close(y, other, tolerance)
        close(after, h[0], tolerance)
        gradients = torch.autograd.grad(other.square().sum(), [expected, *twin.parameters()])
        for one, same in zip(torch.autograd.grad(y.square().sum(), [found, *mixer.parameters()]), gradients, strict=True):
            close(one, same, 10 * tolerance)


def test_equals_the_recurrence() -> None:
    mixer, x_BTD = gru(), sequence(2, 6)
    weights = {name: tensor.numpy() for name, tensor in mixer.layer.state_dict().items()}
    h = np.zeros((2, WIDTH))
    for t in range(6):
        x_r, x_z, x_n = np.split(x_BTD[:, t].numpy() @ weights["weight_ih_l0"].T + weights["bias_ih_l0"], 3, axis=1)
        h_r, h_z, h_n = np.split(h @ weights["weight_hh_l0"].T + weights["bias_hh_l0"], 3, axis=1)
        z = sigmoid(x_z + h_z)
        h = (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h
    close(mixer(x_BTD)[0][:, -1].detach(), torch.from_numpy(h))


def test_a_large_update_gate_keeps_the_state() -> None:
    mixer = gru(init="forget_bias", forget_bias=12.0)
    start = torch.randn(4, WIDTH, dtype=torch.float64)
    _, after = mixer(sequence(4, 50), start)
    kept = (after * start).sum() / (start * start).sum()
    assert kept > 0.99


def test_the_loop_for_resets_equals_torchs_kernel() -> None:
    mixer, x_BTD = gru(), sequence(3, 12)
    y_BTD = mixer.loop(x_BTD, torch.zeros(3, WIDTH).double(), torch.zeros(3, 12, dtype=torch.bool))
    close(y_BTD, mixer(x_BTD)[0])


def test_chrono_spreads_time_constants_up_to_the_horizon() -> None:
    layer = make("gru", width=1024, init="chrono", horizon=50, recurrent_init="uniform").layer
    reset, update, candidate = layer.bias_ih_l0.detach().chunk(3)
    constants = 1 / (1 - torch.sigmoid(update))
    assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and 24.5 < constants.mean() < 27.5
    assert not reset.any() and not candidate.any() and not layer.bias_hh_l0.any()
