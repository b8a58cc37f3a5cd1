"""The LSTM against torch's own layer, a recurrence written out in numpy, and what its initial biases are for.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.mixers.lstm import LSTM
from pipeline.ops.gate_init import weights_of
from tests.mixers.making import WIDTH, close, make, resets, same_future, sequence, steps_of


def lstm(dtype: torch.dtype = torch.float64, **fields: Any) -> LSTM:
    """The mixer with seeded weights."""
    mixer = make("lstm", dtype, **fields)
    assert isinstance(mixer, LSTM)
    return mixer


def sigmoid(values: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_equals_torch_in_values_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    mixer, twin = lstm(dtype), nn.LSTM(WIDTH, WIDTH, batch_first=True).to(dtype)
    twin.load_state_dict(mixer.layer.state_dict())
    found, expected = sequence(3, 9, dtype).requires_grad_(), sequence(3, 9, dtype).requires_grad_()
    for run in (mixer, lambda x: steps_of(mixer, x)):
        (y, after), (other, (h, c)) = run(found), twin(expected)
        for one, same in ((y, other), (after["hidden"], h[0]), (after["cell"], c[0])):
            close(one, same, tolerance)
        wanted = [expected, *twin.parameters()]
        gradients = torch.autograd.grad(other.square().sum() + c.sum(), wanted)
        for one, same in zip(
            torch.autograd.grad(y.square().sum() + after["cell"].sum(), [found, *mixer.parameters()]), gradients, strict=True
        ):
            close(one, same, 10 * tolerance)


def test_equals_the_recurrence() -> None:
    mixer, x_BTD = lstm(), sequence(2, 6)
    weights = {name: tensor.numpy() for name, tensor in mixer.layer.state_dict().items()}
    h = c = np.zeros((2, WIDTH))
    for t in range(6):
        z = x_BTD[:, t].numpy() @ weights["weight_ih_l0"].T + h @ weights["weight_hh_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    y_BTD, after = mixer(x_BTD)
    for found, expected in ((y_BTD[:, -1], h), (after["hidden"], h), (after["cell"], c)):
        close(found.detach(), torch.from_numpy(expected))


def test_packed_rows_give_the_same_as_held_ones() -> None:
    mixer, x_BTD, length_B = lstm(), sequence(4, 9), torch.tensor([9, 0, 5, 1])
    _, before = mixer(sequence(4, 3, seed=3))
    pair = (before["hidden"], before["cell"])
    (held, ends), (packed, others) = mixer._ragged(x_BTD, pair, length_B), mixer._packed(x_BTD, pair, length_B)
    for row, length in enumerate(length_B.tolist()):
        close(held[row, :length], packed[row, :length])
    for one, other in zip(ends, others, strict=True):
        close(one, other)


def test_padding_holds_the_cell_exactly_in_single_precision() -> None:
    mixer, x_BTD = lstm(torch.float32), sequence(2, 300, torch.float32)
    x_BTD[:, 20:] *= 100
    _, short = mixer(x_BTD[:, :20])
    _, padded = mixer(x_BTD, None, None, torch.tensor([20, 20]))
    torch.testing.assert_close(padded["cell"], short["cell"], rtol=0, atol=1e-6)


def test_the_loop_for_resets_equals_the_fused_kernel() -> None:
    mixer, x_BTD = lstm(), sequence(3, 12)
    pair = (torch.zeros(3, WIDTH).double(), torch.zeros(3, WIDTH).double())
    y_BTD, _ = mixer._loop(x_BTD, pair, torch.zeros(3, 12, dtype=torch.bool), None)
    close(y_BTD, mixer(x_BTD)[0])


def test_resets_that_never_come_cost_nothing() -> None:
    mixer, x_BTD = lstm(), sequence(2, 5)
    never = resets(2, 5) & False
    assert torch.equal(mixer(x_BTD, None, never)[0], mixer(x_BTD)[0])
    same_future(mixer, mixer(x_BTD, None, never)[1], mixer(x_BTD)[1], 2)


def test_forget_bias_is_the_only_bias() -> None:
    layer = make("lstm", init="forget_bias", forget_bias=2.5).layer
    _, forget, *_ = bias = layer.bias_ih_l0.chunk(4)
    assert bool((forget == 2.5).all()) and not layer.bias_hh_l0.any()
    assert not any(bool(part.any()) for part in (bias[0], bias[2], bias[3]))


def test_chrono_spreads_time_constants_up_to_the_horizon() -> None:
    layer = make("lstm", width=1024, init="chrono", horizon=100, recurrent_init="uniform").layer
    write, forget, *rest = layer.bias_ih_l0.detach().chunk(4)
    constants = 1 / (1 - torch.sigmoid(forget))
    assert 2 <= constants.min() < 3 and 98 < constants.max() <= 100 and 48 < constants.mean() < 54
    assert torch.equal(write, -forget) and not layer.bias_hh_l0.any() and not any(bool(part.any()) for part in rest)


def test_the_default_start_is_torchs_own() -> None:
    torch.manual_seed(7)
    twin = nn.LSTM(WIDTH, WIDTH, batch_first=True).double()
    mixer = lstm(recurrent_init="uniform")
    assert all(torch.equal(one, other) for one, other in zip(mixer.layer.parameters(), twin.parameters(), strict=True))


def test_every_gate_starts_with_a_rotation() -> None:
    for gate in weights_of(lstm(recurrent_init="orthogonal").layer)[1].detach().split(WIDTH):
        close(gate @ gate.t(), torch.eye(WIDTH).double(), 1e-6)
