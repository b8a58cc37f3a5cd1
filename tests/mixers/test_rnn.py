"""The RNN against torch's own layer and the loop that resets need.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.mixers.making import WIDTH, close, make, sequence, steps_of


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_equals_torch_in_values_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    mixer, twin = make("rnn", dtype), nn.RNN(WIDTH, WIDTH, batch_first=True).to(dtype)
    twin.load_state_dict(mixer.layer.state_dict())
    found, expected = sequence(3, 9, dtype).requires_grad_(), sequence(3, 9, dtype).requires_grad_()
    for run in (mixer, lambda x: steps_of(mixer, x)):
        (y, after), (other, h) = run(found), twin(expected)
        close(y, other, tolerance)
        close(after, h[0], tolerance)
        gradients = torch.autograd.grad(other.square().sum(), [expected, *twin.parameters()])
        for one, same in zip(torch.autograd.grad(y.square().sum(), [found, *mixer.parameters()]), gradients, strict=True):
            close(one, same, 10 * tolerance)


def test_the_loop_for_resets_equals_torchs_kernel() -> None:
    mixer, x_BTD = make("rnn"), sequence(3, 12)
    y_BTD = mixer.loop(x_BTD, torch.zeros(3, WIDTH).double(), torch.zeros(3, 12, dtype=torch.bool))
    close(y_BTD, mixer(x_BTD)[0])


def test_the_recurrent_matrix_starts_as_a_rotation_or_as_torch_does() -> None:
    rotation_DD = make("rnn").layer.weight_hh_l0.detach()
    close(rotation_DD @ rotation_DD.t(), torch.eye(WIDTH).double(), 1e-6)
    assert make("rnn", recurrent_init="uniform").layer.weight_hh_l0.abs().max() <= WIDTH**-0.5
