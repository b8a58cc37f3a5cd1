"""A replay buffer, against a plain list of the rows that were appended."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.learners.replay import Replay


def some(count: int, start: int) -> dict[str, torch.Tensor]:
    numbers = torch.arange(start, start + count)
    return {"number": numbers, "pair": torch.stack([numbers, -numbers], 1).float()}


@pytest.mark.parametrize("sizes", [[3], [4, 4, 4], [1, 2, 5, 0, 7], [25, 1], [10, 10]])
def test_the_newest_rows_are_held(sizes: list[int]) -> None:
    replay, count = Replay(10), 0
    for size in sizes:
        replay.append(some(size, count))
        count += size
        assert (replay.count, len(replay), replay.first) == (count, min(count, 10), max(count - 10, 0))
        held = replay.rows(np.arange(replay.first, replay.count))
        assert held["number"].tolist() == list(range(replay.first, count))
        assert held["pair"][:, 1].tolist() == [-number for number in range(replay.first, count)]


def test_samples_are_uniform_over_what_is_held() -> None:
    replay = Replay(10)
    replay.append(some(25, 0))
    drawn = replay.sample(20_000, np.random.default_rng(0))["number"]
    counts = torch.bincount(drawn, minlength=25)
    assert not counts[:15].any() and bool((counts[15:] - 2000).abs().max() < 200)


def test_what_is_not_held_is_refused() -> None:
    replay = Replay(10)
    replay.append(some(12, 0))
    for number in (1, 12):
        with pytest.raises(AssertionError, match="no longer held, or not yet"):
            replay.rows(np.array([number]))
    with pytest.raises(AssertionError, match="rows unlike those before"):
        replay.append({"number": torch.zeros(1)})
