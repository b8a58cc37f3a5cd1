"""The multiplicative cells against the ones they generalise, a recurrence written out in numpy, and one backend against the other.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.ops import multiplicative_c, native
from pipeline.ops.loop import States
from pipeline.ops.multiplicative import Weights, multiplicative
from pipeline.ops.state import leaves
from pipeline.storage.errors import UserError
from tests.mixers.making import WIDTH, close, make, sequence, steps_of
from tests.mixers.test_lstm import sigmoid

B, T, D = 3, 11, 5
GATES = {"lstm": 4, "gru": 3}
every_cell = pytest.mark.parametrize("cell", list(GATES))
every_backend = pytest.mark.parametrize("backend", ["torch", "c"])
every_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
same: Any = partial(torch.testing.assert_close, check_stride=False)


@pytest.fixture(autouse=True)
def _compiler(request: pytest.FixtureRequest) -> None:
    """Tests of the compiled backend need a compiler."""
    reason = native.unavailable_reason(multiplicative_c.SOURCE, torch.zeros(1))
    if reason and getattr(getattr(request.node, "callspec", None), "params", {}).get("backend", "c") == "c":
        pytest.skip(reason)


def arguments(cell: str, rows: int = B, steps: int = T, width: int = D, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, [W_m; W], U_m, U, b, then h and for the LSTM c."""
    gates = GATES[cell] * width
    shapes = [(rows, steps, width), (width + gates, width), (width, width), (gates, width), (gates,), (rows, width), (rows, width)]
    found = [torch.randn(shape, dtype=torch.float64) / (shape[-1] ** 0.5 if len(shape) < 3 else 1) for shape in shapes]
    return [tensor.to(dtype).requires_grad_() for tensor in found[: 7 if cell == "lstm" else 6]]


def call(cell: str, backend: str, reset: Tensor | None, x: Tensor, *rest: Tensor) -> States:
    """The operation on a flat list of tensors."""
    return multiplicative(cell, x, Weights(*rest[:4]), rest[4:], reset, backend)


def naive(cell: str, reset: Tensor | None, *tensors: Tensor) -> list[Tensor]:
    """The equations at the top of the module, one row and one position at a time."""
    x, into, factor, recurrent, bias, *states = (tensor.detach().numpy() for tensor in tensors)
    width, found = x.shape[2], [np.zeros_like(x) for _ in states]
    for row in range(x.shape[0]):
        h, c = states[0][row], states[-1][row]
        for t in range(x.shape[1]):
            if reset is not None and reset[row, t]:
                h, c = h * 0, c * 0
            m, seen = (into[:width] @ x[row, t]) * (factor @ h), into[width:] @ x[row, t] + bias
            if cell == "lstm":
                i, f, g, o = np.split(seen + recurrent @ m, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                z, r = np.split(sigmoid(seen + recurrent @ m)[: 2 * width], 2)
                n = np.tanh(seen[2 * width :] + recurrent[2 * width :] @ (r * m))
                h = (1 - z) * h + z * n
            found[0][row, t], found[-1][row, t] = h, c if cell == "lstm" else h
    return [torch.from_numpy(states) for states in found]


@every_cell
@every_backend
@pytest.mark.parametrize("with_resets", [False, True])
def test_equals_the_recurrence(cell: str, backend: str, with_resets: bool) -> None:
    inputs, reset = arguments(cell), torch.rand(B, T) < 0.3 if with_resets else None
    for found, expected in zip(call(cell, backend, reset, *inputs), naive(cell, reset, *inputs), strict=True):
        close(found.detach(), expected, 1e-12)


@every_cell
@every_dtype
@pytest.mark.parametrize("positions", [1, 12, 2048])
@pytest.mark.parametrize("with_resets", [False, True])
def test_compiled_equals_torch(
    cell: str, dtype: torch.dtype, tolerance: float, positions: int, with_resets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplicative_c, "POSITIONS", positions)
    inputs, reset = arguments(cell, width=19, dtype=dtype), torch.rand(B, T) < 0.3 if with_resets else None
    found, expected = (call(cell, backend, reset, *inputs) for backend in ("c", "torch"))
    weights = [torch.randn_like(tensor) for tensor in expected]
    gradients = [torch.autograd.grad(both, inputs, weights) for both in (found, expected)]
    for one, other in [*zip(found, expected, strict=True), *zip(*gradients, strict=True)]:
        assert (one - other).abs().max() <= tolerance * max(1.0, float(other.detach().abs().max()))


@every_backend
@pytest.mark.parametrize("which", [0, 1])
def test_one_of_the_two_states_may_go_unused(backend: str, which: int) -> None:
    inputs = arguments("lstm")
    found = torch.autograd.grad(call("lstm", backend, None, *inputs)[which].sum(), inputs)
    for one, other in zip(found, torch.autograd.grad(call("lstm", "torch", None, *inputs)[which].sum(), inputs), strict=True):
        close(one, other)


@every_cell
@every_backend
@pytest.mark.parametrize("with_resets", [False, True])
def test_gradcheck(cell: str, backend: str, with_resets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplicative_c, "POSITIONS", 4)
    reset = torch.rand(2, 5) < 0.3 if with_resets else None
    assert torch.autograd.gradcheck(partial(call, cell, backend, reset), arguments(cell, 2, 5, 3))


@every_cell
def test_a_gradient_of_the_gradient_is_refused(cell: str) -> None:
    inputs = arguments(cell)
    (first,) = torch.autograd.grad(call(cell, "c", None, *inputs)[0].square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@every_cell
@every_backend
def test_inputs_are_not_changed(cell: str, backend: str) -> None:
    inputs = arguments(cell)
    before = [tensor.detach().clone() for tensor in inputs]
    call(cell, backend, None, *inputs)[0].sum().backward()
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(inputs, before, strict=True))


@every_cell
def test_without_gradients_little_is_kept_and_the_values_are_the_same(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplicative_c, "POSITIONS", 2 * B)
    inputs, reset = arguments(cell), torch.rand(B, T) < 0.3
    with torch.no_grad():
        found = call(cell, "c", reset, *inputs)
    for one, other in zip(found, call(cell, "c", reset, *inputs), strict=True):
        assert torch.equal(one, other)


@every_cell
def test_a_graph_can_be_used_twice(cell: str) -> None:
    inputs = arguments(cell)
    y = call(cell, "c", None, *inputs)[0]
    first, second = (torch.autograd.grad(y.square().sum(), inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@every_cell
def test_half_precision_goes_to_torch(cell: str) -> None:
    inputs = arguments(cell, dtype=torch.bfloat16)
    assert multiplicative(cell, inputs[0], Weights(*inputs[1:5]), tuple(inputs[5:]))[0].dtype == torch.bfloat16
    with pytest.raises(UserError, match=f"multiplicative_{cell}: backend c is not available: it computes in float32 or float64"):
        call(cell, "c", None, *inputs)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_compiled_activations_are_accurate_to_the_last_digits(function: str) -> None:
    """h = z n from a zero state: with z = 1 it is the tanh, with n = 1 the sigmoid, of an input."""
    values = torch.cat([torch.linspace(-12, 12, 20_001), torch.logspace(-30, 2, 3001), torch.tensor([-100.0, -1e30, 1e30])])
    width, nothing, large = 29, torch.zeros(29, 29), torch.full((29,), 60.0)
    of_z, of_n = (nothing, torch.eye(width)) if function == "tanh" else (torch.eye(width), nothing)
    bias = torch.cat([large if weight is nothing else 0 * large for weight in (of_z, nothing, of_n)])
    weights = Weights(torch.cat([nothing, of_z, nothing, of_n]), nothing, nothing.repeat(3, 1), bias)
    assert len(values) % width == 8
    values = torch.cat([values, torch.zeros(width - 8)])
    (hidden,) = multiplicative("gru", values.view(-1, 1, width), weights, (torch.zeros(len(values) // width, width),), backend="c")
    found = hidden.flatten()
    inside, exact = values.abs() < 85, getattr(torch, function)(values.double())
    assert ((found.double() - exact) / exact.where(exact != 0, torch.ones(()).double()))[inside].abs().max() < 1.5e-7
    same(found[~inside], exact[~inside].float(), rtol=1e-7, atol=1e-37)


@every_cell
def test_what_is_not_a_number_stays_so(cell: str) -> None:
    inputs = arguments(cell, dtype=torch.float32)
    spoiled = inputs[0].detach().clone()
    spoiled[1, 3, 0] = torch.nan
    y = call(cell, "c", None, spoiled, *inputs[1:])[0]
    assert bool(y[1, 3:].isnan().all()) and bool(y[[0, 2]].isfinite().all()) and bool(y[1, :3].isfinite().all())


def like_a_plain_cell(mixer: Any) -> Tensor:
    """Sets W_m x = 1, by way of a channel that is always 1, and U_m = I, so that m = h; such an input."""
    with torch.no_grad():
        mixer.into.weight[:WIDTH] = 0
        mixer.into.weight[:WIDTH, -1] = 1
        mixer.factor.weight.copy_(torch.eye(WIDTH))
    x_BTD = sequence(3, 9, mixer.factor.weight.dtype)
    x_BTD[:, :, -1] = 1
    return x_BTD


@every_dtype
def test_with_m_equal_to_h_it_is_the_lstm(dtype: torch.dtype, tolerance: float) -> None:
    mixer, twin = make("multiplicative_lstm", dtype), nn.LSTM(WIDTH, WIDTH, batch_first=True).to(dtype)
    x_BTD = like_a_plain_cell(mixer)
    weights = {"weight_ih_l0": mixer.into.weight[WIDTH:], "weight_hh_l0": mixer.recurrent.weight, "bias_ih_l0": mixer.recurrent.bias}
    twin.load_state_dict({**weights, "bias_hh_l0": torch.zeros(4 * WIDTH)})
    other, (h, c) = twin(x_BTD)
    for run in (mixer, lambda x: steps_of(mixer, x)):
        y, after = run(x_BTD)
        for one, expected in ((y, other), (after["hidden"], h[0]), (after["cell"], c[0])):
            close(one, expected, tolerance)
    mixer(x_BTD)[0].square().sum().backward()
    other.square().sum().backward()
    close(mixer.recurrent.weight.grad, twin.get_parameter("weight_hh_l0").grad, 20 * tolerance)  # pyright: ignore[reportArgumentType]


def test_with_m_equal_to_h_it_is_chos_gru() -> None:
    mixer = make("multiplicative_gru")
    x_BTD = like_a_plain_cell(mixer)
    weights = (mixer.into.weight[WIDTH:], mixer.recurrent.weight, mixer.recurrent.bias)
    (w_z, w_r, w_n), (u_z, u_r, u_n), (b_z, b_r, b_n) = (np.split(tensor.detach().numpy(), 3) for tensor in weights)
    h = np.zeros((3, WIDTH))
    for x in x_BTD.numpy().transpose(1, 0, 2):
        z, r = sigmoid(x @ w_z.T + h @ u_z.T + b_z), sigmoid(x @ w_r.T + h @ u_r.T + b_r)
        h = (1 - z) * h + z * np.tanh(x @ w_n.T + (r * h) @ u_n.T + b_n)
    close(mixer(x_BTD)[1].detach(), torch.from_numpy(h), 1e-12)


@pytest.mark.parametrize("name", ["multiplicative_lstm", "multiplicative_gru"])
def test_without_a_factor_the_gates_do_not_see_the_state(name: str) -> None:
    mixer, x_BTD = make(name), sequence(2, 1)
    nn.init.zeros_(mixer.into.weight[:WIDTH])
    one, other = mixer.initial_state(2), mixer.initial_state(2)
    leaves(other)[0].fill_(0.5)
    difference = mixer(x_BTD, other)[0] - mixer(x_BTD, one)[0]
    z = torch.sigmoid(x_BTD[:, 0] @ mixer.into.weight[WIDTH : 2 * WIDTH].t() + mixer.recurrent.bias[:WIDTH])
    close(difference[:, 0], torch.zeros_like(z) if name == "multiplicative_lstm" else 0.5 * (1 - z))


def test_every_matrix_on_the_state_starts_with_a_rotation() -> None:
    for name in ("multiplicative_lstm", "multiplicative_gru"):
        mixer = make(name)
        for weight in (mixer.into.weight[:WIDTH], mixer.factor.weight, mixer.recurrent.weight):
            for part in weight.detach().split(WIDTH):
                close(part @ part.t(), torch.eye(WIDTH).double(), 1e-6)


def test_chrono_spreads_time_constants_up_to_the_horizon() -> None:
    write, forget, *rest = make(
        "multiplicative_lstm", width=1024, init="chrono", horizon=50, recurrent_init="uniform"
    ).recurrent.bias.chunk(4)
    z, *others = make("multiplicative_gru", width=1024, init="chrono", horizon=50, recurrent_init="uniform").recurrent.bias.chunk(3)
    for keeping in (forget, -z):
        constants = 1 / (1 - torch.sigmoid(keeping))
        assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and 24.5 < constants.mean() < 27.5
    assert torch.equal(write, -forget) and not any(bool(part.any()) for part in (*rest, *others))


def test_a_shut_update_gate_keeps_the_state() -> None:
    for name in ("multiplicative_gru", "input_multiplicative_gru"):
        mixer = make(name, init="forget_bias", forget_bias=12.0)
        start = torch.randn(4, WIDTH, dtype=torch.float64)
        _, after = mixer(sequence(4, 50), start)
        assert (after * start).sum() / (start * start).sum() > 0.99
