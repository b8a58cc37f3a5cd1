"""Held-out episodes are played by the network's own policy, each from random numbers of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.config.catalogue import implementation
from pipeline.config.tasks import TMaze
from pipeline.learners import playing
from pipeline.learners.playing import play
from pipeline.networks.actor_critic import ActorCriticOutput
from pipeline.storage.errors import UserError
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key
from tests.learners.small import small_learner

CPU = torch.device("cpu")


def episodes(rows: int, **fields: Any) -> tuple[Any, Episodes]:
    config = TMaze.model_validate({"corridor": {"uniform": (2, 5)}, "max_episode_steps": 12, **fields})
    task = implementation(config)(config)
    return task, Episodes("held-out", pa.Table.from_batches([task.episodes(rows, derive_key("playing"), split="test")]))


class Knowing:
    """Walks to the junction and turns where the cue said. `wrong`: the other way."""

    actions, context = (4,), 100

    def __init__(self, corridor: int, wrong: bool = False) -> None:
        self.corridor, self.wrong = corridor, wrong

    def eval(self) -> None:
        """Nothing to do."""

    def initial_state(self, batch: int) -> torch.Tensor:
        return torch.full((batch, 2), -1)

    def step(self, observed_B: torch.Tensor, state: torch.Tensor) -> tuple[ActorCriticOutput, torch.Tensor]:
        cue_B, step_B = state.unbind(1)
        cue_B = torch.where(observed_B[:, :2].any(1), observed_B[:, 0].long(), cue_B)
        turn_B = (1 - cue_B if self.wrong else cue_B).clamp(min=0)
        action_B = torch.where(step_B + 1 >= self.corridor - 1, turn_B, 3)
        logits = 50.0 * torch.nn.functional.one_hot(action_B, 4)
        return ActorCriticOutput(logits, logits[:, 0]), torch.stack([cue_B, step_B + 1], 1)


@pytest.mark.parametrize("wrong", [False, True])
def test_what_an_episode_comes_to(wrong: bool) -> None:
    task, held_out = episodes(30, corridor=4)
    found = play(Knowing(4, wrong), task, held_out, CPU)
    assert found.success.tolist() == [0 if wrong else 1] * 30 and found.length.tolist() == [4] * 30
    assert found.episode_return == pytest.approx(np.full(30, -0.3 + (-1 if wrong else 4)))
    if not wrong:
        assert found.episode_return == pytest.approx(held_out.rows.column("best").to_numpy())


def test_episodes_do_not_depend_on_what_is_played_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    learner: Any = small_learner("lstm", "t_maze", "ppo")
    learner.network.double()
    task, held_out = episodes(23)
    whole = play(learner.network, task, held_out, CPU)
    assert len(set(whole.length.tolist())) >= 2
    monkeypatch.setattr(playing, "BATCH", 5)
    for values, again in zip(whole, play(learner.network, task, held_out, CPU), strict=True):
        assert values.tolist() == again.tolist()
    other = play(learner.network, task, Episodes("others", held_out.rows), CPU)
    assert other.length.tolist() != whole.length.tolist(), "other random numbers belong to another dataset"


def test_what_is_watched_is_what_is_played() -> None:
    task, held_out = episodes(4, corridor=3)
    seen: list[list[bool]] = []
    play(Knowing(3), task, held_out, CPU, watch=lambda environment, playing_B: seen.append(playing_B.tolist()))
    assert seen == [[True] * 4] * 3


def test_an_episode_longer_than_the_context_is_refused() -> None:
    task, held_out = episodes(3, corridor=5)
    network: Any = Knowing(5)
    network.context = 5
    assert play(network, task, held_out, CPU).length.tolist() == [5] * 3
    network.context = 4
    with pytest.raises(
        UserError, match="held-out: an episode of more than 4 steps, network.context; expected a smaller task.max_episode_steps"
    ):
        play(network, task, held_out, CPU)
