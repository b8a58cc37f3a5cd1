"""The minimal GRU against its formula, how it starts, and what its candidate may be.

Letters: B batch, T time, D width.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.mixers import scanned
from tests.mixers.making import WIDTH, close, make, resets, sequence


def g(v: Tensor) -> Tensor:
    """The paper's positive function."""
    return torch.where(v >= 0, v + 0.5, torch.sigmoid(v))


@torch.no_grad()
@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_equals_the_formula(candidate: str) -> None:
    mixer, x_BTD = make("min_gru", candidate=candidate), sequence(2, 9)
    (w_z, w_c), (b_z, b_c) = mixer.input.weight.chunk(2), mixer.input.bias.chunk(2)
    h, outputs = torch.zeros(2, WIDTH).double(), []
    for t in range(9):
        z, c = torch.sigmoid(x_BTD[:, t] @ w_z.t() + b_z), x_BTD[:, t] @ w_c.t() + b_c
        h = (1 - z) * h + z * (g(c) if candidate == "positive" else c)
        outputs.append(h)
    y_BTD, after = mixer(x_BTD)
    close(y_BTD, torch.stack(outputs, 1))
    close(after, h)
    assert bool((y_BTD > 0).all()) == (candidate == "positive")


@pytest.mark.parametrize("positions", [1, 20, 47])
def test_rows_in_parts_equal_rows_at_once(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x_BTD, reset_BT, start_BD = make("min_gru"), sequence(5, 10).requires_grad_(), resets(5, 10), torch.randn(5, WIDTH).double()
    found = []
    for size in (10_000, positions):
        monkeypatch.setattr(scanned, "POSITIONS", size)
        y_BTD, after = mixer(x_BTD, start_BD, reset_BT)
        found.append([y_BTD, after, *torch.autograd.grad(y_BTD.square().sum(), [x_BTD, *mixer.parameters()])])
    for one, other in zip(*found, strict=True):
        close(one, other)


@torch.no_grad()
def test_a_large_forget_bias_keeps_the_state() -> None:
    mixer, start_BD = make("min_gru", init="forget_bias", forget_bias=12.0), torch.randn(4, WIDTH, dtype=torch.float64)
    _, after = mixer(sequence(4, 50), start_BD)
    assert (after * start_BD).sum() / (start_BD * start_BD).sum() > 0.99


def test_chrono_spreads_time_constants_up_to_the_horizon() -> None:
    gate, candidate = make("min_gru", width=1024, init="chrono", horizon=50).input.bias.detach().chunk(2)
    constants = 1 / torch.sigmoid(gate)
    assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and 24.5 < constants.mean() < 27.5
    assert not candidate.any()
