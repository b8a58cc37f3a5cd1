"""ReLiT against its equations, entry by entry from the parameters; its normaliser, its gates, and what its options change.

Notation: T = sequence length, H = heads, E = channels per head, K = features of a key.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixers.making import WIDTH, close, make, sequence

UPDATES = ("outer", "dense", "scalar", "constant", "sum", "delta")
MAPS = ("projected_relu", "projected_elu", "relu", "elu", "dpfp")


def moved(**fields: Any) -> Any:
    """A mixer with every parameter away from its start, so that each one matters."""
    mixer = make("relit", **fields)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return mixer


def mapped(kind: str, eta: int, x_E: Tensor, scale_N: Tensor) -> Tensor:
    """Features one after the other."""
    relu, positive = (lambda u: max(u, 0.0)), (lambda u: u + 1 if u > 0 else math.exp(u))
    x, scale = x_E.tolist(), scale_N.tolist()
    if kind == "dpfp":
        r = [relu(u) for u in x] + [relu(-u) for u in x]
        found = [r[i] * r[i - shift] for shift in range(1, eta + 1) for i in range(len(r))]
    elif kind.startswith("projected"):
        activation = relu if kind.endswith("relu") else positive
        found = [activation(s) * activation(u) for s in scale for u in x]
    else:
        found = [(relu if kind == "relu" else positive)(u) for u in x]
    return torch.tensor(found, dtype=torch.float64)


def gates_of(mixer: Any, head: int, gates: list[Tensor], keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a key is written with, what of it is forgotten, and b."""
    ones = torch.ones(keys, dtype=torch.float64)
    b = torch.ones(mixer.channels, dtype=torch.float64)
    if mixer.update == "sum":
        return ones, 0 * ones, b
    if mixer.update == "constant":
        write, damping = torch.sigmoid(mixer.constants_2HK[:, head])
        return write, write * damping, b
    gates = [torch.sigmoid(gate) for gate in gates]
    if mixer.update == "scalar":
        return gates[0] * ones, gates[0] * ones, b
    c = gates[1] if mixer.update == "dense" else torch.cat([scale * gates[1] for scale in gates[2]])
    return c, c, gates[0]


def naive(mixer: Any, x_TD: Tensor, epsilon: float = 0.1) -> Tensor:
    """Every head and position by itself."""
    outputs = []
    for head in range(mixer.heads):
        weight, bias = (part.chunk(mixer.heads)[head].split(mixer.sizes) for part in (mixer.project.weight, mixer.project.bias))
        keys = mixer.keys
        c_state, z = torch.zeros(mixer.channels, keys, dtype=torch.float64), torch.zeros(keys, dtype=torch.float64)
        rows = []
        for x_D in x_TD:
            k, scale, v, q, *gates = (w @ x_D + b for w, b in zip(weight, bias, strict=True))
            query_scale = scale
            if mixer.query_HFE is not None:
                q, query_scale = (mixer.query_HFE[head] @ q + mixer.query_bias_HF[head]).split([mixer.channels, len(scale)])
            k, q = mapped(mixer.map, mixer.eta, k, scale), mapped(mixer.map, mixer.eta, q, query_scale)
            if mixer.update == "delta":
                k, q = (part / torch.sqrt(part @ part + 1e-6) for part in (k, q))
                c_state = c_state + torch.sigmoid(gates[0]) * torch.outer(v - c_state @ k, k)
                rows.append(c_state @ q)
                continue
            write, forget, b = gates_of(mixer, head, gates, keys)
            c_state = (1 - torch.outer(b, forget)) * c_state + torch.outer(b * v, write * k)
            z = (1 - forget) * z + write * k
            assert bool((z >= 0).all()) and bool((q >= 0).all())
            rows.append(c_state @ q / (z @ q + epsilon))
        outputs.append(torch.stack(rows))
    return mixer.out(torch.cat(outputs, 1))


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("feature_map", MAPS)
@torch.no_grad()
def test_equals_its_equations(update: str, feature_map: str) -> None:
    mixer, x_BTD = moved(update=update, feature_map=feature_map, eta=3, head_dim=5), sequence(1, 12)
    close(mixer(x_BTD)[0][0], naive(mixer, x_BTD[0]))


@torch.no_grad()
def test_epsilon_is_added_to_the_normaliser() -> None:
    """Small inputs write little, so that what is added counts."""
    mixer, x_BTD = make("relit", epsilon=1e-10, eta=2), 0.01 * sequence(1, 12)
    close(mixer(x_BTD)[0][0], naive(mixer, x_BTD[0], 1e-10))
    assert (mixer(x_BTD)[0] - make("relit", eta=2)(x_BTD)[0]).abs().max() > 1e-3


@torch.no_grad()
def test_the_state_stays_within_what_was_written() -> None:
    """A gate mixes what stood there with v k, so no entry leaves their hull; neither does a read leave that of the values."""
    mixer, x_BTD = moved(), sequence(2, 200)
    q, k, v, gates = mixer._projected(x_BTD)
    assert all(bool(((gate > 0) & (gate < 1)).all()) for gate in map(torch.sigmoid, gates))
    written_BTHKE = k.unsqueeze(-1) * v.unsqueeze(-2)
    _, after_BHKV = mixer(x_BTD)
    assert bool((after_BHKV[..., :-1].abs() <= written_BTHKE.abs().amax(1) + 1e-12).all())
    assert bool((after_BHKV[..., -1] >= 0).all()) and bool((after_BHKV[..., -1] <= k.amax(1) + 1e-12).all())
    assert bool((q >= 0).all())


@torch.no_grad()
def test_slow_gates_spread_their_time_constants() -> None:
    mixer = make("relit", width=512, horizon=50)
    _, _, _, _, (b, c, scale) = mixer._split(mixer.project.bias)
    constants = 1 / torch.sigmoid(c)
    assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and abs(constants.mean() - 26) < 2
    assert bool((b == 3).all()) and bool((scale == 3).all())
    assert not make("relit", init="zero").project.bias.any()


def test_the_state_is_that_of_the_published_sizes() -> None:
    mixer = make("relit", torch.float32, width=128, head_dim=64)
    assert mixer.state_bytes(10) == 4 * 33_280


def test_an_input_that_writes_nothing_is_read_as_nothing() -> None:
    mixer, x_BTD = make("relit", torch.float32), torch.zeros(1, 3, WIDTH, requires_grad=True)
    y_BTD, _ = mixer(x_BTD)
    y_BTD.square().sum().backward()
    assert not y_BTD.any() and x_BTD.grad is not None and bool(x_BTD.grad.isfinite().all())
