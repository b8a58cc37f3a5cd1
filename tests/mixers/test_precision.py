"""In float32 a mixer loses no digits to how its formula is written, at any scale of its input.

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head, V = E + 1 channels of a value.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.ops.feature_maps import elu_plus_one, product_gate
from tests.mixers.making import MIXERS, make, sequence

SCALES = [1, 30, 300]
BOUND = 2e-5
"""Summation order moves relit by 0.7e-6 (AVX-512) to 3.3e-6 (AVX2); the formulas that lost digits were wrong by 1e-2 and more."""
LOOSER = {"attention": 2e-4, "gtrxl": 5e-4}
"""A softmax of large scores that nearly tie turns their rounding into its own."""
UNSTEADY = {
    "multiplicative_lstm": "products of input and state grow rounding from step to step, in any form",
    "multiplicative_gru": "likewise",
    "input_multiplicative_lstm": "likewise",
    "input_multiplicative_gru": "likewise",
    "delta_net": "a key of channels that all vanish has no direction, and a norm of what it reads makes it count",
    "gated_delta_net": "likewise",
}
"""What grows the rounding of the input, of which the formula is not the cause."""
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MIXERS if name not in UNSTEADY and MIXERS[name].__module__.startswith("pipeline.")),
    *(("relit", {"feature_map": feature_map}) for feature_map in ("projected_elu", "relu", "elu", "dpfp")),
    *(("relit", {"update": update}) for update in ("dense", "scalar", "constant", "sum")),
    ("arelit", {"oscillators": "upstream", "r": 3}),
    *((name, {"candidate": "positive", "init": "chrono"}) for name in ("min_gru", "min_lstm")),
]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-30))


@torch.no_grad()
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("name", "fields"), CASES, ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values()))
)
def test_float32_is_near_float64_at_every_scale(name: str, fields: dict[str, Any], scale: int) -> None:
    length = 256 if name in LOOSER else 1024
    mixer = make(name, torch.float32, cells=length, **fields)
    x_BTD = sequence(1, length, torch.float32) * scale
    expected, _ = copy.deepcopy(mixer).double()(x_BTD.double())
    assert relative(mixer(x_BTD)[0], expected) < LOOSER.get(name, BOUND)


def linear_attention(mixer: Any, x_BTD: Tensor) -> Tensor:
    """The recurrence of Katharopoulos et al. 2020, position by position in float64."""
    project, out = mixer.project.weight.double(), mixer.out.weight.double()
    q, k, v = (x_BTD.double() @ project.mT).unflatten(-1, (3, mixer.heads, -1)).unbind(-3)
    q, k = (torch.where(part > 0, part + 1, part.clamp(max=0).exp()) for part in (q, k))
    written, total, outputs = torch.zeros_like(k[:, 0, :, :, None] * v[:, 0, :, None]), torch.zeros_like(k[:, 0]), []
    for t in range(x_BTD.shape[1]):
        written, total = written + k[:, t, :, :, None] * v[:, t, :, None], total + k[:, t]
        read = torch.einsum("bhe,bhev->bhv", q[:, t], written) / ((q[:, t] * total).sum(-1, keepdim=True) + 1e-6)
        outputs.append(read.flatten(1) @ out.mT)
    return torch.stack(outputs, 1)


@torch.no_grad()
@pytest.mark.parametrize("scale", SCALES)
def test_linear_attention_over_thousands_of_positions(scale: int) -> None:
    mixer, x_BTD = make("linear_attention", torch.float32), sequence(2, 4096, torch.float32) * scale
    assert relative(mixer(x_BTD)[0], linear_attention(mixer, x_BTD)) < 5e-7


def test_elu_plus_one_keeps_its_digits_and_its_slope() -> None:
    x = torch.cat([torch.linspace(-80, 80, 2001), torch.tensor([0.0, -0.0, 1e-7, -1e-7])]).requires_grad_()
    expected = torch.where(x > 0, x.double() + 1, x.double().clamp(max=0).exp())
    found = elu_plus_one(x)
    torch.testing.assert_close(found.double(), expected, rtol=3e-7, atol=0)
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope.double(), x.detach().double().clamp(max=0).exp(), rtol=3e-7, atol=0)


def test_what_a_product_of_gates_leaves_keeps_its_digits() -> None:
    x, y = torch.cartesian_prod(torch.linspace(-40, 40, 81), torch.linspace(-40, 40, 81)).unbind(1)
    gate, rest = product_gate(x, y)
    first, second = ((-part.double()).exp() for part in (x, y))  # sigmoid(x) = 1 / (1 + first)
    torch.testing.assert_close(gate.double(), 1 / ((1 + first) * (1 + second)), rtol=1e-6, atol=0)
    torch.testing.assert_close(rest.double(), (first + second + first * second) / ((1 + first) * (1 + second)), rtol=1e-6, atol=0)


@torch.no_grad()
def test_min_lstm_writes_next_to_nothing_exactly() -> None:
    """With i = sigmoid(-30) and f nearly one, i / (f + i) is far below the last digit of 1."""
    mixer = make("min_lstm", torch.float32)
    mixer.input.weight.zero_()
    mixer.input.bias.copy_(torch.tensor([-30.0, 5.0, 1.0]).repeat_interleave(16))
    y_BTD, _ = mixer(torch.zeros(1, 1, 16))
    i, f = 1 / (1 + torch.tensor([30.0, -5.0], dtype=torch.float64).exp())
    torch.testing.assert_close(y_BTD.double().flatten(), (i / (f + i)).expand(16), rtol=1e-5, atol=0)
