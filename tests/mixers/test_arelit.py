"""AReLiT against the sums it is defined by and the published recurrence, its oscillators against what they stand for, and their error.

Notation: T = sequence length, D = width, H = heads, E = channels per head, K = features of a key, R = oscillators.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.mixers.arelit import AReLiT
from pipeline.ops.feature_maps import outer
from tests.mixers.making import close, make, sequence


def moved(**fields: Any) -> AReLiT:
    """A mixer with every parameter away from its start, so that each one matters."""
    mixer = make("arelit", **fields)
    assert isinstance(mixer, AReLiT)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return mixer


def read_from(mixer: AReLiT, x_D: Tensor, head: int) -> tuple[Tensor, ...]:
    """k, q, v, b, c of one head at one position."""
    weight, bias = (part.chunk(mixer.heads)[head] for part in (mixer.project.weight, mixer.project.bias))
    k, q, v, b, c = (weight @ x_D + bias).chunk(5)
    weight, bias = (part.chunk(mixer.heads)[head] for part in (mixer.scales.weight, mixer.scales.bias))
    key_scale, query_scale, gate_scale = (weight @ x_D + bias).chunk(3)
    k, q = (torch.cat([s.relu() * part.relu() for s in scale]) for scale, part in ((key_scale, k), (query_scale, q)))
    c = torch.cat([torch.sigmoid(s) * torch.sigmoid(c) for s in gate_scale])
    return k, q, v, torch.sigmoid(b), c


def naive(mixer: AReLiT, x_TD: Tensor, kind: str, epsilon: float = 0.1) -> Tensor:
    """Every head and position by itself. Kinds: turned, the definition with rotations; exact, the matrix that they approximate."""
    r, outputs = mixer.r, []
    for head in range(mixer.heads):
        values = torch.zeros(r, mixer.channels, dtype=torch.complex128)
        keys = torch.zeros(r, mixer.eta * mixer.channels, dtype=torch.complex128)
        z, rows = torch.zeros(mixer.eta * mixer.channels, dtype=torch.float64), []
        exact = torch.zeros(mixer.channels, mixer.eta * mixer.channels, dtype=torch.float64)
        turn = torch.polar(torch.ones(r, dtype=torch.float64), 2 * math.pi * torch.arange(r, dtype=torch.float64) / r)
        for x_D in x_TD:
            k, q, v, b, c = read_from(mixer, x_D, head)
            z = (1 - c) * z + c * k
            exact = torch.outer(1 - b, 1 - c) * exact + torch.outer(b * v, c * k)
            values = (1 - b) * turn[:, None] * values + b * v
            keys = (1 - c) * turn[:, None] * keys + c * k
            read = (values * (keys.conj() @ q.to(values))[:, None]).sum(0).real
            if kind == "exact":
                rows.append(exact @ q / (z @ q + epsilon))
            else:
                rows.append(read / r / (z @ q + epsilon))
        outputs.append(torch.stack(rows))
    return mixer.out(torch.cat(outputs, 1))


@pytest.mark.parametrize("r", [1, 2, 3, 8])
@torch.no_grad()
def test_rotation_is_that_of_complex_sums_all_of_which_are_read(r: int) -> None:
    mixer, x_BTD = moved(r=r, eta=2, head_dim=5), sequence(1, 20)
    close(mixer(x_BTD)[0][0], naive(mixer, x_BTD[0], "turned"))


def published(mixer: AReLiT, x_TD: np.ndarray, first_T: np.ndarray, restart: bool, epsilon: float = 1e-5) -> np.ndarray:
    """The attention layer of the authors' code (subho406/Recurrent-Linear-Transformers), written again in numpy, all heads at once.

    Its counter starts at 1, is incremented before each use, and goes on across episodes; with `restart` it is 1 again in each.
    """
    heads, r = mixer.heads, mixer.r
    maps = {name: [part.detach().numpy() for part in layer.parameters()] for name, layer in mixer.named_children()}

    def mapped(name: str, x: np.ndarray) -> np.ndarray:
        weight, bias = maps[name]
        return weight @ x + bias

    def crossed(one_HN: np.ndarray, other_HE: np.ndarray) -> np.ndarray:
        return np.einsum("hn,he->hne", one_HN, other_HE).reshape(heads, -1)

    omega_R, tick = np.linspace(-np.pi, np.pi, r), 1.0
    values_RHE, keys_RHK = np.zeros((r, heads, mixer.channels)), np.zeros((r, heads, mixer.eta * mixer.channels))
    total_HK, outputs = np.zeros_like(keys_RHK[0]), []
    for x_D, first in zip(x_TD, first_T, strict=True):
        tick = (1.0 if first and restart else tick) + 1
        k, q, v, beta, gamma = np.split(mapped("project", x_D).reshape(heads, -1), 5, axis=1)
        p1, p2, p3 = np.split(mapped("scales", x_D).reshape(heads, -1), 3, axis=1)
        k, q = crossed(np.maximum(p1, 0), np.maximum(k, 0)), crossed(np.maximum(p2, 0), np.maximum(q, 0))
        beta, gamma = 1 / (1 + np.exp(-beta)), crossed(1 / (1 + np.exp(-p3)), 1 / (1 + np.exp(-gamma)))
        wave_R11 = np.cos(tick * omega_R)[:, None, None]
        values_RHE = (1 - beta) * (1 - first) * values_RHE + wave_R11 * beta * v
        keys_RHK = (1 - gamma) * (1 - first) * keys_RHK + wave_R11 * gamma * k
        total_HK = (1 - gamma) * (1 - first) * total_HK + gamma * k
        read_HE = np.einsum("rhe,rhk,hk->he", values_RHE, keys_RHK, q)
        outputs.append(mapped("out", (read_HE / (2 * r * (total_HK * q).sum(1, keepdims=True) + epsilon)).ravel()))
    return np.stack(outputs)


@pytest.mark.parametrize("r", [1, 2, 3, 4, 5, 8])
@torch.no_grad()
def test_upstream_is_the_published_recurrence(r: int) -> None:
    """To rounding; but for the counter across episodes, which the published code never sets back."""
    mixer, x_BTD = moved(r=r, oscillators="upstream", eta=2, head_dim=5), sequence(1, 20)
    reset_BT = torch.zeros(1, 20, dtype=torch.bool)
    close(mixer(x_BTD)[0][0], torch.from_numpy(published(mixer, x_BTD[0].numpy(), reset_BT[0].numpy(), restart=False)))
    reset_BT[0, [7, 12]] = True
    y_TD = mixer(x_BTD, None, reset_BT)[0][0]
    restarted, going_on = (torch.from_numpy(published(mixer, x_BTD[0].numpy(), reset_BT[0].numpy(), how)) for how in (True, False))
    close(y_TD, restarted)
    close(y_TD[:7], going_on[:7])
    if r > 3:  # with fewer, every wave is a sign, and signs cancel
        assert (y_TD - going_on)[7:].abs().max() > 0.1


@pytest.mark.parametrize("epsilon", [0.1, 1e-6])
@torch.no_grad()
def test_epsilon_is_added_to_the_normaliser(epsilon: float) -> None:
    x_BTD, state = 0.1 * sequence(1, 20), moved(r=2, eta=2, head_dim=5).state_dict()
    for oscillators, kind in (("rotation", "turned"), ("upstream", "published")):
        mixer = make("arelit", r=2, eta=2, head_dim=5, oscillators=oscillators, epsilon=epsilon)
        mixer.load_state_dict(state)
        if kind == "turned":
            expected = naive(mixer, x_BTD[0], kind, epsilon)
        else:
            expected = torch.from_numpy(published(mixer, x_BTD[0].numpy(), np.zeros(20, bool), restart=False, epsilon=epsilon))
        close(mixer(x_BTD)[0][0], expected)


@torch.no_grad()
def test_more_rotations_than_positions_leave_nothing_out() -> None:
    mixer, x_BTD = moved(r=21), sequence(1, 20)
    close(mixer(x_BTD)[0][0], naive(mixer, x_BTD[0], "exact"))


@torch.no_grad()
def test_two_published_oscillators_are_one() -> None:
    one, two = (make("arelit", r=r, oscillators="upstream", init="zero", width=64) for r in (1, 2))
    two.load_state_dict(one.state_dict())
    x_BTD = sequence(2, 200, width=64)
    difference = (one(x_BTD)[0] - two(x_BTD)[0]).abs().max()
    assert 0 < difference < 1e-3


def error(oscillators: str, r: int, seed: int) -> float:
    """Relative Frobenius error of the matrix that the sums stand for, scaled best, after 64 positions with random gates.

    A head of 16 channels and 32 features, which keep 0.84 and 0.85 of what they hold at every position, on average.
    """
    generator = torch.Generator().manual_seed(seed)
    v, k, b, c, scale = (torch.randn(64, size, generator=generator) for size in (16, 32, 16, 16, 2))
    k, b, c = k.relu(), torch.sigmoid(b - 2), outer(torch.sigmoid(scale), torch.sigmoid(c - 1))
    waves = make("arelit", r=r, oscillators=oscillators).waves(torch.arange(64), torch.float32)
    exact, values, keys = torch.zeros(16, 32), torch.zeros(r, 16), torch.zeros(r, 32)
    for t in range(64):
        exact = torch.outer(1 - b[t], 1 - c[t]) * exact + torch.outer(b[t] * v[t], c[t] * k[t])
        values = (1 - b[t]) * values + waves[t, :, None] * (b[t] * v[t])
        keys = (1 - c[t]) * keys + waves[t, :, None] * (c[t] * k[t])
    found = values.T @ keys
    scale = (found * exact).sum() / found.square().sum()
    return float((scale * found - exact).norm() / exact.norm())


def typical_error(oscillators: str, r: int) -> float:
    """The median of fifty draws."""
    return statistics.median(error(oscillators, r, seed) for seed in range(50))


def test_the_error_of_rotation_falls_with_its_number() -> None:
    errors = [typical_error("rotation", r) for r in (2, 4, 8, 16, 32, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] <= 0.12 and errors[4] <= 0.02 and errors[5] < 1e-6
    assert typical_error("upstream", 16) > 3 * errors[3]


@pytest.mark.parametrize("r", [1, 2, 7, 32])
def test_phases_keep_their_digits(r: int) -> None:
    """After ten million positions: the angle itself is off by a hundred millionth, in float32 by more than a turn."""
    mixer, far = make("arelit", r=r, oscillators="upstream"), 10_000_000
    ticks = torch.arange(far, far + 50)
    speeds = [math.pi * (2 * k - r + 1) / max(r - 1, 1) if r > 1 else -math.pi for k in range(r)]
    exact = torch.tensor([[math.cos(math.fmod(speed * (int(t) + 2), 2 * math.pi)) for speed in speeds] for t in ticks])
    assert (mixer.waves(ticks, torch.float64) - exact).abs().max() < 1e-6
    turning = make("arelit", r=r)
    assert torch.equal(turning.waves(ticks, torch.float64), turning.waves(ticks % r, torch.float64))


def test_each_row_counts_its_own_positions() -> None:
    mixer = make("arelit", oscillators="upstream", r=5)
    reset_BT = torch.zeros(3, 10, dtype=torch.bool)
    reset_BT[1, 6] = True
    _, after = mixer(sequence(3, 10), None, reset_BT, torch.tensor([10, 10, 4]))
    assert after.tick_B.tolist() == [10, 4, 4] and after.tick_B.dtype == torch.int64
    _, after = mixer.step(sequence(3, 1)[:, 0], after, torch.tensor([True, False, True]))
    assert after.tick_B.tolist() == [11, 4, 5]


@torch.no_grad()
def test_reads_stay_within_the_values() -> None:
    """Weights of what the sums hold are at least zero and add up to at most one."""
    mixer, x_BTD = moved(r=3), 5 * sequence(2, 200)
    q, terms = mixer._projected(x_BTD, torch.arange(200).expand(2, -1))
    assert bool((q >= 0).all()) and bool((terms.keys >= 0).all())
    largest = torch.linalg.lstsq(mixer.out.weight, (mixer(x_BTD)[0] - mixer.out.bias).flatten(0, 1).T).solution.abs().max()
    _, _, v, _, _ = mixer.project(x_BTD).unflatten(-1, (4, 5, -1)).unbind(-2)
    assert largest <= v.abs().max()


@torch.no_grad()
def test_slow_gates_spread_their_time_constants() -> None:
    mixer = make("arelit", width=512, horizon=50)
    constants = 1 / torch.sigmoid(mixer.project.bias.view(4, 5, -1)[:, 3:])
    assert 2 <= constants.min() < 3 and 48 < constants.max() <= 50 and abs(constants.mean() - 26) < 2
    assert not mixer.project.bias.view(4, 5, -1)[:, :3].any()
    assert mixer.scales.bias.view(4, 3, -1).unique(dim=2).squeeze(-1).tolist() == [[0, 0, 3]] * 4
    assert not make("arelit", init="zero").project.bias.any()


@pytest.mark.parametrize(("eta", "r", "floats"), [(4, 2, 3584), (8, 2, 6656), (4, 1, 2304)])
def test_the_state_is_that_of_the_published_sizes(eta: int, r: int, floats: int) -> None:
    """And an integer of eight bytes, where the published code has a float for the whole batch."""
    assert make("arelit", torch.float32, width=128, head_dim=64, eta=eta, r=r).state_bytes(10) == 4 * floats + 8
