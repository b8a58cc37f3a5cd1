"""The minimal LSTM against its formula, and how it starts.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import pytest
import torch

from tests.mixers.making import WIDTH, close, make, sequence
from tests.mixers.test_min_gru import g


@torch.no_grad()
@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_equals_the_formula(candidate: str) -> None:
    mixer, x_BTD = make("min_lstm", candidate=candidate), sequence(2, 9)
    (w_i, w_f, w_c), (b_i, b_f, b_c) = mixer.input.weight.chunk(3), mixer.input.bias.chunk(3)
    h, outputs = torch.zeros(2, WIDTH).double(), []
    for t in range(9):
        x = x_BTD[:, t]
        i, f, c = torch.sigmoid(x @ w_i.t() + b_i), torch.sigmoid(x @ w_f.t() + b_f), x @ w_c.t() + b_c
        h = f / (f + i) * h + i / (f + i) * (g(c) if candidate == "positive" else c)
        outputs.append(h)
    y_BTD, after = mixer(x_BTD)
    close(y_BTD, torch.stack(outputs, 1))
    close(after, h)


def test_gates_that_are_both_shut_give_finite_numbers() -> None:
    mixer, x_BTD = make("min_lstm", torch.float32), sequence(2, 5, torch.float32).requires_grad_()
    with torch.no_grad():
        mixer.input.bias[: 2 * WIDTH] = -500.0
    y_BTD, _ = mixer(x_BTD)
    gradients = torch.autograd.grad(y_BTD.sum(), [x_BTD, *mixer.parameters()])
    assert all(bool(tensor.isfinite().all()) for tensor in (y_BTD, *gradients))


def test_chrono_spreads_time_constants_up_to_the_horizon() -> None:
    """The gates mirror each other, so that the share kept is the forget gate itself."""
    write, keep, candidate = make("min_lstm", width=1024, init="chrono", horizon=50).input.bias.detach().chunk(3)
    f, i = torch.sigmoid(keep), torch.sigmoid(write)
    constants = 1 / (1 - f / (f + i))
    close(f / (f + i), f)
    assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and 24.5 < constants.mean() < 27.5
    assert not candidate.any()


def test_forget_bias_sets_the_forget_gate_alone() -> None:
    write, keep, candidate = make("min_lstm", init="forget_bias", forget_bias=2.0).input.bias.detach().chunk(3)
    assert bool((keep == 2).all()) and not write.any() and not candidate.any()
