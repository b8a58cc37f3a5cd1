"""The cells that read m * x against the plain ones, and against the formula.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.mixers.making import WIDTH, close, make, sequence
from tests.mixers.test_lstm import sigmoid

every_name = pytest.mark.parametrize("name", ["input_multiplicative_lstm", "input_multiplicative_gru"])


def forced_to_one(mixer: Any) -> Any:
    """The mixer with m = 1 whatever it sees."""
    with torch.no_grad():
        mixer.factor.weight.zero_()
        mixer.factor.bias.fill_(1)
        mixer.recurrent.weight[:WIDTH] = 0
    return mixer


def numbers(mixer: Any) -> list[np.ndarray]:
    """W_m, b_m, W, b, and U_m above U."""
    tensors = (*mixer.factor.parameters(), *mixer.into.parameters(), mixer.recurrent.weight)
    return [tensor.detach().numpy() for tensor in tensors]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_with_m_forced_to_one_it_is_the_lstm(dtype: torch.dtype, tolerance: float) -> None:
    mixer, twin = forced_to_one(make("input_multiplicative_lstm", dtype)), nn.LSTM(WIDTH, WIDTH, batch_first=True).to(dtype)
    weights = {"weight_ih_l0": mixer.into.weight, "weight_hh_l0": mixer.recurrent.weight[WIDTH:], "bias_ih_l0": mixer.into.bias}
    twin.load_state_dict({**weights, "bias_hh_l0": torch.zeros(4 * WIDTH)})
    x_BTD = sequence(3, 9, dtype)
    close(mixer(x_BTD)[0], twin(x_BTD)[0], tolerance)


def gru(mixer: Any, x_BTD: np.ndarray, multiplied: bool) -> np.ndarray:
    """The last h of Cho's GRU, reading m * x or x."""
    w_m, b_m, w, b, u = numbers(mixer)
    u_m, u_z, u_r, u_n = np.split(u, 4)
    h = np.zeros(x_BTD[:, 0].shape)
    for x in x_BTD.transpose(1, 0, 2):
        read = (x @ w_m.T + h @ u_m.T + b_m) * x if multiplied else x
        of_z, of_r, of_n = np.split(read @ w.T + b, 3, axis=1)
        z, r = sigmoid(of_z + h @ u_z.T), sigmoid(of_r + h @ u_r.T)
        h = (1 - z) * h + z * np.tanh(of_n + (r * h) @ u_n.T)
    return h


def test_with_m_forced_to_one_it_is_chos_gru() -> None:
    mixer, x_BTD = forced_to_one(make("input_multiplicative_gru")), sequence(3, 9)
    close(mixer(x_BTD)[1].detach(), torch.from_numpy(gru(mixer, x_BTD.numpy(), False)), 1e-12)


def test_the_gru_equals_its_formula() -> None:
    mixer, x_BTD = make("input_multiplicative_gru"), sequence(3, 9)
    close(mixer(x_BTD)[1].detach(), torch.from_numpy(gru(mixer, x_BTD.numpy(), True)), 1e-12)


def test_on_tokens_it_is_an_lstm_whose_recurrent_matrix_gets_one_outer_product_per_token() -> None:
    """With one-hot x: W (m * x) = W[:, token] m[token], so U acts as U + W[:, token] U_m[token]."""
    mixer = make("input_multiplicative_lstm")
    w_m, b_m, w, b, u = numbers(mixer)
    tokens, (u_m, u) = [3, 0, 7, 3], (u[:WIDTH], u[WIDTH:])
    h, c = np.zeros(WIDTH), np.zeros(WIDTH)
    for token in tokens:
        constant = w[:, token] * (w_m[token, token] + b_m[token]) + b
        i, f, g, o = np.split(constant + (u + np.outer(w[:, token], u_m[token])) @ h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    y_BTD, _ = mixer(torch.eye(WIDTH).double()[torch.tensor(tokens)].unsqueeze(0))
    close(y_BTD[0, -1].detach(), torch.from_numpy(h), 1e-12)


@every_name
def test_it_starts_as_in_the_study(name: str) -> None:
    bound = 256**-0.5
    for weights in make(name, width=256).state_dict().values():
        assert weights.abs().max() <= bound and abs(float(weights.std()) - bound / 3**0.5) < 0.07 * bound
