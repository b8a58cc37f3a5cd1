"""Attention against a softmax written out, its rotary positions, and who owns the slots of its cache.

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.mixers.attention import ROOM, Attention, capacity
from pipeline.ops.rotary import angles, rotate
from tests.mixers.making import WIDTH, close, make, nbytes, sequence, steps_of


def attention(**fields: Any) -> Attention:
    """The mixer with seeded weights, in float64."""
    mixer = make("attention", **fields)
    assert isinstance(mixer, Attention)
    return mixer


def naive(mixer: Attention, x_TD: Tensor) -> Tensor:
    """Every query, head and key by itself; pairs of channels turned as complex numbers."""
    channels, half = mixer.channels, mixer.channels // 2
    q, k, v = (mixer.project.weight @ x_TD.t()).view(3, mixer.heads, channels, -1)
    outputs = []
    for head in range(mixer.heads):
        turned = []
        for tensor in (q[head], k[head]):
            speed = mixer.base ** (-torch.arange(half, dtype=torch.float64) / half)
            turns = torch.polar(torch.ones(half, x_TD.shape[0]).double(), speed.unsqueeze(1) * torch.arange(x_TD.shape[0]))
            complex_parts = torch.complex(tensor[:half], tensor[half:]) * turns
            turned.append(torch.cat([complex_parts.real, complex_parts.imag]))
        rows = []
        for t in range(x_TD.shape[0]):
            weights = torch.exp(turned[0][:, t] @ turned[1][:, : t + 1] / math.sqrt(channels))
            rows.append(v[head][:, : t + 1] @ (weights / weights.sum()))
        outputs.append(torch.stack(rows))
    return torch.cat(outputs, 1) @ mixer.out.weight.t()


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_a_softmax_written_out(heads: int) -> None:
    mixer, x_BTD = attention(heads=heads), sequence(2, 13)
    with torch.no_grad():
        y_BTD, _ = mixer(x_BTD)
        for row in range(2):
            close(y_BTD[row], naive(mixer, x_BTD[row]))


def test_scores_depend_on_distance_only() -> None:
    q, k = torch.randn(2, 8, dtype=torch.float64)

    def score(position: int, other: int) -> Tensor:
        turned = [rotate(x, angles(torch.tensor(p), 8, 10_000.0, torch.float64)) for x, p in ((q, position), (k, other))]
        return turned[0] @ turned[1]

    close(score(9, 4), score(1009, 1004))
    assert abs(float(score(9, 4) - score(9, 5))) > 1e-6


def test_turning_keeps_lengths_and_position_zero() -> None:
    x = torch.randn(5, 8, dtype=torch.float64)
    turned = rotate(x, angles(torch.arange(5), 8, 100.0, torch.float64))
    close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[0], x[0])


@pytest.mark.parametrize(("length", "slots"), [(0, 0), (1, ROOM), (ROOM, ROOM), (ROOM + 1, 2 * ROOM)])
def test_capacity(length: int, slots: int) -> None:
    assert capacity(length) == slots


@torch.no_grad()
def test_steps_write_in_place_until_the_room_is_used_up() -> None:
    mixer = attention()
    _, cache = mixer(sequence(2, 10))
    slots = cache.keys_BHCE.data_ptr()
    for _ in range(ROOM - 10):
        _, cache = mixer.step(sequence(2, 1)[:, 0], cache)
        assert cache.keys_BHCE.data_ptr() == slots
    _, cache = mixer.step(sequence(2, 1)[:, 0], cache)
    assert cache.keys_BHCE.data_ptr() != slots and cache.keys_BHCE.shape[2] == 2 * ROOM


@torch.no_grad()
def test_a_second_continuation_of_a_state_copies() -> None:
    mixer = attention()
    _, cache = mixer(sequence(1, 10))
    x_BD, other_BD = sequence(2, 1)[:1, 0], sequence(2, 1)[1:, 0]
    _, first = mixer.step(x_BD, cache)
    _, second = mixer.step(other_BD, cache)
    assert first.keys_BHCE.data_ptr() == cache.keys_BHCE.data_ptr() != second.keys_BHCE.data_ptr()
    assert not torch.equal(first.keys_BHCE[:, :, 10], second.keys_BHCE[:, :, 10])


def test_a_cache_that_a_gradient_needs_is_left_alone() -> None:
    mixer, x_BTD = attention(), sequence(2, ROOM - 1).requires_grad_()
    y_BTD, cache = mixer(x_BTD, mixer.initial_state(2), torch.zeros(2, ROOM - 1, dtype=torch.bool))
    with torch.no_grad():
        steps_of(mixer, sequence(2, 1), cache)
    (y_BTD.sum() + cache.keys_BHCE.square().sum()).backward()


def test_a_cache_of_inference_mode_can_be_continued_outside() -> None:
    mixer = attention()
    with torch.inference_mode():
        _, cache = mixer(sequence(1, 5))
    with torch.no_grad():
        y_BTD, _ = steps_of(mixer, sequence(1, 3, seed=2), cache)
    close(y_BTD, mixer(torch.cat([sequence(1, 5), sequence(1, 3, seed=2)], 1))[0][:, 5:])


def test_a_reset_frees_what_will_not_be_read_again() -> None:
    mixer, reset_BT = attention(), torch.zeros(2, 200, dtype=torch.bool)
    reset_BT[:, 190] = True
    _, cache = mixer(sequence(2, 200), None, reset_BT)
    assert cache.keys_BHCE.shape[2] == ROOM and cache.length_B.tolist() == [10, 10]
    assert nbytes(cache) == 2 * mixer.state_bytes(10)


def test_positions_start_again_at_a_reset() -> None:
    mixer, x_BTD = attention(), sequence(1, 6)
    again_BTD = torch.cat([x_BTD, x_BTD], 1)
    reset_BT = torch.zeros(1, 12, dtype=torch.bool)
    reset_BT[:, 6] = True
    y_BTD, _ = mixer(again_BTD, None, reset_BT)
    close(y_BTD[:, 6:], y_BTD[:, :6])
    assert y_BTD.shape[2] == WIDTH
