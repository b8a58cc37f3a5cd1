"""The LRU against its definition in complex numbers, and where its eigenvalues start.

Notation: B = batch size, T = sequence length, D = width, N = complex states.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.config.mixers import Lru
from pipeline.mixers.lru import LRU
from tests.mixers.making import WIDTH, close, make, sequence


def lru(width: int = WIDTH, **fields: Any) -> LRU:
    """The mixer with seeded weights, in float64."""
    mixer = make("lru", width=width, **fields)
    assert isinstance(mixer, LRU)
    return mixer


@torch.no_grad()
@pytest.mark.parametrize("states", [None, 5])
def test_equals_its_definition(states: int | None) -> None:
    mixer, x_BTD = lru(d_state=states), sequence(2, 40)
    n = states or WIDTH
    a_N = torch.exp(torch.complex(-torch.exp(mixer.nu_N), torch.exp(mixer.theta_N)))
    into_ND = torch.exp(mixer.gamma_N).unsqueeze(1) * torch.complex(mixer.into_SD[:n], mixer.into_SD[n:])
    out_DN = torch.complex(mixer.out_DS[:, :n], -mixer.out_DS[:, n:])
    h_BN, outputs = torch.zeros(2, n, dtype=torch.complex128), []
    for x_BD in x_BTD.unbind(1):
        h_BN = a_N * h_BN + x_BD.to(torch.complex128) @ into_ND.t()
        outputs.append((h_BN @ out_DN.t()).real + mixer.skip_D * x_BD)
    y_BTD, after = mixer(x_BTD)
    close(y_BTD, torch.stack(outputs, 1))
    close(after, torch.cat([h_BN.real, h_BN.imag], 1))


def test_eigenvalues_start_evenly_in_the_ring() -> None:
    re, im = lru(d_state=4000, r_min=0.4, r_max=0.8, max_phase=math.pi).decay().detach()
    modulus, angle = torch.hypot(re, im), torch.atan2(im, re)
    assert 0.4 <= modulus.min() < 0.41 and 0.79 < modulus.max() <= 0.8
    close(modulus.square().mean(), torch.tensor((0.16 + 0.64) / 2).double(), 0.01)
    assert angle.min() >= 0 and 3.1 < angle.max() <= math.pi
    assert angle.mean() == pytest.approx(math.pi / 2, abs=0.05)


def test_the_state_starts_at_unit_scale() -> None:
    """White noise in, each complex state has unit variance once the transient is over: that is what gamma is for."""
    mixer = lru(width=64, r_min=0.9, r_max=0.99)
    with torch.no_grad():
        _, after = mixer(sequence(200, 600, width=64))
    assert float(after.square().sum(1).mean() / 64) == pytest.approx(1.0, abs=0.1)


def test_it_stays_stable_whatever_is_learned() -> None:
    mixer = lru()
    with torch.no_grad():
        mixer.nu_N.normal_(std=20)
    assert bool((torch.hypot(*mixer.decay()) <= 1).all())


@pytest.mark.parametrize("radius", [(0.9, 0.9), (0.999, 1.0), (1e-6, 0.1)])
def test_every_allowed_ring_gives_finite_numbers(radius: tuple[float, float]) -> None:
    mixer = lru(d_state=2000, r_min=radius[0], r_max=radius[1])
    assert all(bool(parameter.isfinite().all()) for parameter in mixer.parameters())
    assert bool(mixer(sequence(2, 50))[0].isfinite().all())


@pytest.mark.parametrize("radius", [(0.9, 1.1), (0.9, 0.8), (-0.5, 0.5), (1.0, 1.0)])
def test_a_ring_outside_the_unit_circle_is_an_error(radius: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"expected r_min <= r_max|less than|greater than"):
        Lru(r_min=radius[0], r_max=radius[1])
