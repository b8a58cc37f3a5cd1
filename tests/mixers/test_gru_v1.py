"""The first form of the GRU against its formula, and against the later form where the two are one.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import torch

from tests.mixers.making import WIDTH, close, make, sequence

OPEN = 1e4
"""A bias at which a sigmoid is exactly one."""


@torch.no_grad()
def test_equals_the_formula() -> None:
    mixer, x_BTD = make("gru_v1"), sequence(2, 6)
    (w_r, w_z, w_n), (b_r, b_z, b_n) = mixer.input.weight.chunk(3), mixer.input.bias.chunk(3)
    (u_r, u_z), u_n = mixer.gates.weight.chunk(2), mixer.candidate.weight
    h, outputs = torch.zeros(2, WIDTH).double(), []
    for t in range(6):
        x = x_BTD[:, t]
        r, z = torch.sigmoid(x @ w_r.t() + h @ u_r.t() + b_r), torch.sigmoid(x @ w_z.t() + h @ u_z.t() + b_z)
        h = (1 - z) * h + z * torch.tanh(x @ w_n.t() + (r * h) @ u_n.t() + b_n)
        outputs.append(h)
    y_BTD, after = mixer(x_BTD)
    close(y_BTD, torch.stack(outputs, 1))
    close(after, h)


@torch.no_grad()
def test_equals_the_later_form_where_nothing_is_reset() -> None:
    """With r = 1 the product and the reset commute; z writes here and keeps there, so its weights change sign."""
    mixer, later = make("gru_v1"), make("gru")
    mixer.input.bias[:WIDTH] = OPEN
    sign = torch.ones(3 * WIDTH).double()
    sign[WIDTH : 2 * WIDTH] = -1
    later.layer.weight_ih_l0.copy_(mixer.input.weight * sign.unsqueeze(1))
    later.layer.weight_hh_l0.copy_(torch.cat([mixer.gates.weight, mixer.candidate.weight]) * sign.unsqueeze(1))
    later.layer.bias_ih_l0.copy_(mixer.input.bias * sign)
    later.layer.bias_hh_l0.zero_()
    close(mixer(sequence(3, 20))[0], later(sequence(3, 20))[0])


@torch.no_grad()
def test_a_large_forget_bias_keeps_the_state() -> None:
    mixer, start = make("gru_v1", init="forget_bias", forget_bias=12.0), torch.randn(4, WIDTH, dtype=torch.float64)
    _, after = mixer(sequence(4, 50), start)
    assert (after * start).sum() / (start * start).sum() > 0.99


def test_chrono_spreads_time_constants_up_to_the_horizon() -> None:
    reset, update, candidate = make("gru_v1", width=1024, init="chrono", horizon=50, recurrent_init="uniform").input.bias.detach().chunk(3)
    constants = 1 / torch.sigmoid(update)
    assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and 24.5 < constants.mean() < 27.5
    assert not reset.any() and not candidate.any()


def test_every_recurrent_matrix_starts_as_a_rotation() -> None:
    mixer = make("gru_v1")
    for matrix in (*mixer.gates.weight.detach().chunk(2), mixer.candidate.weight.detach()):
        close(matrix @ matrix.t(), torch.eye(WIDTH).double(), 1e-6)
