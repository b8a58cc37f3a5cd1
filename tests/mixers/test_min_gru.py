"""The minimal GRU against its formula, how it starts, and what its candidate may be.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.mixers.min_gru import MinGRU
from pipeline.ops import backends, min_gru_c, minimal_cells, native
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


compiled = pytest.mark.skipif(
    native.unavailable_reason(min_gru_c.SOURCE, torch.zeros(1)) is not None, reason="there is no compiler to build the kernel with"
)


def results(mixer: MinGRU, x_BTD: Tensor, start_BD: Tensor, reset_BT: Tensor | None) -> list[Tensor]:
    """The outputs, the state at the end, and every gradient of a weighted sum of the outputs."""
    weights = sequence(x_BTD.shape[0], x_BTD.shape[1], x_BTD.dtype, x_BTD.shape[2], seed=5)
    inputs = [x_BTD.clone().requires_grad_(), start_BD.clone().requires_grad_()]
    y_BTD, after = mixer(*inputs, reset_BT)
    return [y_BTD, after, *torch.autograd.grad((y_BTD * weights).sum(), [*inputs, *mixer.parameters()])]


@compiled
@pytest.mark.parametrize("candidate", ["linear", "positive"])
@pytest.mark.parametrize("positions", [1, 7, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_compiled_equals_torch(
    candidate: str, positions: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(min_gru_c, "POSITIONS", positions)
    mixer, x_BTD = make("min_gru", dtype, 19, candidate=candidate), sequence(5, 11, dtype, 19)
    for reset_BT in (None, resets(5, 11)):
        found = []
        for backend in ("c", "torch"):
            monkeypatch.setenv(backends.VARIABLE, backend)
            found.append(results(mixer, x_BTD, sequence(5, 1, dtype, 19, seed=3)[:, 0], reset_BT))
        for one, other in zip(*found, strict=True):
            assert (one - other).abs().max() <= tolerance * max(1.0, float(other.detach().abs().max()))


@compiled
@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_gradcheck(candidate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "c")
    monkeypatch.setattr(min_gru_c, "POSITIONS", 4)
    mixer, reset_BT = make("min_gru", width=3, candidate=candidate), torch.tensor([[False, False, True, False, True], [True] + 4 * [False]])
    inputs = [sequence(2, 5, width=3).requires_grad_(), sequence(2, 1, width=3)[:, 0].requires_grad_(), *mixer.parameters()]

    def run(x_BTD: Tensor, start_BD: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return min_gru_c.run(x_BTD, weight, bias, start_BD, reset_BT, candidate == "positive")

    assert torch.autograd.gradcheck(run, inputs)


@compiled
def test_without_gradients_little_is_kept_and_the_values_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "c")
    monkeypatch.setattr(min_gru_c, "POSITIONS", 7)
    mixer, x_BTD = make("min_gru", torch.float32), sequence(5, 10, torch.float32)
    y_BTD, _ = mixer(x_BTD)
    with torch.no_grad():
        assert torch.equal(mixer(x_BTD)[0], y_BTD)
        assert torch.equal(mixer(x_BTD[2:4])[0], y_BTD[2:4])


@compiled
def test_a_graph_can_be_used_twice_but_not_differentiated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "c")
    mixer, x_BTD = make("min_gru"), sequence(2, 5).requires_grad_()
    y_BTD, inputs = mixer(x_BTD)[0], [x_BTD, *mixer.parameters()]
    first, second = (torch.autograd.grad(y_BTD.square().sum(), inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    (d_x,) = torch.autograd.grad(y_BTD.square().sum(), [x_BTD], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d_x.sum().backward()


@pytest.mark.parametrize("positions", [1, 20, 47])
def test_rows_in_parts_equal_rows_at_once(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "torch")
    mixer, x_BTD, reset_BT, start_BD = make("min_gru"), sequence(5, 10).requires_grad_(), resets(5, 10), torch.randn(5, WIDTH).double()
    found = []
    for size in (10_000, positions):
        monkeypatch.setattr(minimal_cells, "POSITIONS", size)
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
