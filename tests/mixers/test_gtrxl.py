"""The attention of GTrXL against a softmax written out: its window, its distances, its memory, and the same by either kind of memory.

Notation: B = batch size, T = sequence length, D = width, H = heads, E = channels per head, P = distances.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.mixers.gtrxl import SIZE, GTrXL, _by_distance, _hidden, _shifted
from pipeline.ops.state import leaves
from tests.mixers.making import WIDTH, close, make, nbytes, sequence, steps_of


def moved(dtype: torch.dtype = torch.float64, **fields: Any) -> GTrXL:
    """A mixer with every parameter away from its start, so that each one matters."""
    mixer = make("gtrxl", dtype, **fields)
    assert isinstance(mixer, GTrXL)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return mixer


def naive(mixer: GTrXL, x_TD: Tensor, starts: tuple[int, ...] = (0,)) -> Tensor:
    """Every query, head and key by itself; `starts` are the first positions of episodes."""
    heads, channels = mixer.heads, mixer.channels
    q = mixer.query(x_TD).view(-1, heads, channels)
    k, v = mixer.keys_values(x_TD).view(-1, 2, heads, channels).unbind(1)
    rows = []
    for t in range(len(x_TD)):
        first = max(t - mixer.memory, *(start for start in starts if start <= t))
        for head in range(heads):
            scores = []
            for s in range(first, t + 1):
                angles = [(t - s) / 10_000 ** (2 * j / WIDTH) for j in range(WIDTH // 2)]
                wave = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
                row = (mixer.positions.weight @ wave).view(heads, channels)[head]
                scores.append((q[t, head] + mixer.content_HE[head]) @ k[s, head] + (q[t, head] + mixer.distance_HE[head]) @ row)
            weights = (torch.stack(scores) / math.sqrt(channels)).exp()
            rows.append(weights / weights.sum() @ v[first : t + 1, head])
    return mixer.out(torch.stack(rows).view(len(x_TD), -1))


@pytest.mark.parametrize("memory", [1, 5, 100])
@pytest.mark.parametrize("cache", [True, False])
@torch.no_grad()
def test_equals_a_softmax_written_out(memory: int, cache: bool) -> None:
    mixer, x_BTD = moved(mem_len=memory, cache=cache, head_dim=3), sequence(1, 30)
    reset_BT = torch.zeros(1, 30, dtype=torch.bool)
    reset_BT[0, [4, 17]] = True
    close(mixer(x_BTD)[0][0], naive(mixer, x_BTD[0]), 1e-6)
    close(mixer(x_BTD, None, reset_BT)[0][0], naive(mixer, x_BTD[0], (0, 4, 17)), 1e-6)


@torch.no_grad()
def test_both_kinds_of_memory_give_the_same() -> None:
    cached, recomputed = moved(mem_len=9), moved(mem_len=9, cache=False)
    recomputed.load_state_dict(cached.state_dict())
    x_BTD, states = sequence(2, 40), [mixer.initial_state(2) for mixer in (cached, recomputed)]
    for part in x_BTD.split([13, 1, 26], 1):
        (y, states[0]), (other, states[1]) = cached(part, states[0]), recomputed(part, states[1])
        close(y, other)
    close(steps_of(cached, x_BTD, states[0])[0], steps_of(recomputed, x_BTD, states[1])[0])


@pytest.mark.parametrize("way", ["training", "acting"])
@torch.no_grad()
def test_what_is_older_than_the_memory_is_never_seen(way: str) -> None:
    mixer, x_BTD, steps = moved(mem_len=20), sequence(1, 2 * SIZE + 30), 2 * SIZE + 30
    other_BTD = x_BTD.clone()
    other_BTD[:, 50] += 1

    def outputs(x_BTD: Tensor) -> Tensor:
        return mixer(x_BTD)[0] if way == "training" else steps_of(mixer, x_BTD)[0]

    changed = (outputs(x_BTD) != outputs(other_BTD)).any(2)[0]
    assert changed.tolist() == [50 <= t <= 70 for t in range(steps)]


def test_distances_move_to_their_places() -> None:
    """The score of query i and the key at place j of its block is that of distance i + M - j."""
    size, memory = 6, 4
    score = torch.randn(2, 3, size, memory + 1)
    shifted = _shifted(score)
    hidden = _hidden(torch.zeros(1, 1, size), memory)[0, 0]
    assert shifted.shape == (2, 3, size, size + memory)
    for i in range(size):
        for j in range(size + memory):
            distance = i + memory - j
            assert bool(hidden[i, j]) == (not 0 <= distance <= memory)
            if 0 <= distance <= memory:
                assert torch.equal(shifted[..., i, j], score[..., i, memory - distance])


@torch.no_grad()
def test_an_empty_memory_leaves_a_position_to_itself() -> None:
    mixer, x_BTD = moved(mem_len=7), sequence(2, 1)
    alone_BD = mixer.out(mixer.keys_values(x_BTD[:, 0]).chunk(2, 1)[1])
    close(mixer(x_BTD)[0][:, 0], alone_BD)
    close(mixer.step(x_BTD[:, 0], mixer.initial_state(2))[0], alone_BD)
    reset_B1 = torch.ones(2, 1, dtype=torch.bool)
    close(mixer(x_BTD, mixer(sequence(2, 9))[1], reset_B1)[0][:, 0], alone_BD)


def test_no_gradient_goes_into_an_earlier_call() -> None:
    for cache in (True, False):
        mixer, x_BTD = moved(mem_len=5, cache=cache), sequence(1, 8).requires_grad_()
        _, after = mixer(x_BTD)
        stepped = mixer.step(x_BTD[:, 0], after)[1]
        assert not any(leaf.requires_grad for leaf in leaves((after, stepped)))


@torch.no_grad()
def test_rows_of_distances_follow_the_weights() -> None:
    mixer = moved(mem_len=5)
    rows = mixer._rows()
    assert mixer._rows() is rows
    mixer.positions.weight.mul_(2)
    close(mixer._rows(), 2 * rows)
    mixer.load_state_dict(make("gtrxl", mem_len=5).state_dict())
    close(mixer._rows(), mixer._made_rows())
    mixer.float()
    assert mixer._rows().dtype == torch.float32
    optimizer = torch.optim.Adam(mixer.parameters(), fused=True)
    for parameter in mixer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    close(mixer._rows(), mixer._made_rows(), 1e-7)
    with torch.enable_grad():
        assert mixer._rows().requires_grad


def test_what_acted_in_inference_mode_goes_on_outside() -> None:
    mixer = moved(mem_len=5)
    with torch.inference_mode():
        _, carried = steps_of(mixer, sequence(1, 7))
    y_BTD, _ = mixer(sequence(1, 3, seed=2), carried)
    y_BTD.sum().backward()
    with torch.no_grad():
        close(steps_of(mixer, sequence(1, 3, seed=2), carried)[0], y_BTD)


def test_queries_of_any_shape_meet_every_distance() -> None:
    rows_HPE, query = torch.randn(2, 5, 3), torch.randn(4, 2, 6, 7, 3)
    expected = torch.stack([query[:, head] @ rows_HPE[head].T for head in range(2)], 1)
    torch.testing.assert_close(_by_distance(query, rows_HPE), expected)


@pytest.mark.parametrize(("memory", "floats"), [(32, 4096), (64, 8192), (128, 16384), (256, 32768)])
def test_the_memory_is_that_of_the_published_sizes(memory: int, floats: int) -> None:
    """Inputs of 128 channels; keys and values of 4 heads with 64 channels are four times as many."""
    recomputed, cached = (make("gtrxl", torch.float32, width=128, head_dim=64, mem_len=memory, cache=cache) for cache in (False, True))
    assert recomputed.state_bytes(9999) == 4 * floats + 8
    assert cached.state_bytes(9999) == 4 * 4 * floats + 8 == nbytes(cached.initial_state(1))
