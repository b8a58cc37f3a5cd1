"""A network plays held-out episodes: its own policy, drawn from a stream of random numbers that belongs to each episode.

So how an episode goes depends on the network and the episode only, not on which others are played beside it.

Letters: B episodes played side by side, C values of all parts of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from pipeline.networks.sampling import gumbel, sample
from pipeline.storage.console import ProgressLine
from pipeline.storage.errors import UserError
from pipeline.storage.loader import Episodes
from pipeline.storage.rng import derive_key, generator

COPIES = 256
"""Episodes played side by side."""
BLOCK = 64
"""Steps for which random numbers are drawn at a time."""


class Played(NamedTuple):
    """How each episode ended: solved (1) or not (0), the sum of its rewards, its steps."""

    success: np.ndarray
    episode_return: np.ndarray
    length: np.ndarray


Watch = Callable[[VectorEnv, np.ndarray], None]
"""Is shown the environment before every step, and which episodes are still being played."""


def play(network: Any, task: Any, episodes: Episodes, device: torch.device, watch: Watch | None = None) -> Played:
    """Play every episode once; `task` makes the environment. Neither weights nor torch's generators change.

    Raises UserError for an episode of more steps than the network's context.
    """
    parts, progress = [], ProgressLine(episodes.name, episodes.rows.num_rows, "episodes played")
    for start in range(0, episodes.rows.num_rows, COPIES):
        some = Episodes(episodes.name, episodes.rows.slice(start, COPIES))
        environment = task.environment(some.rows.num_rows, 0)
        parts.append(_play(network, environment, some, start, device, watch, progress))
        environment.close()
    return Played(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@torch.inference_mode()
def _play(
    network: Any, environment: Any, episodes: Episodes, first: int, device: torch.device, watch: Watch | None, progress: ProgressLine
) -> Played:
    """Play the episodes, whose numbers in their dataset are `first` and following."""
    batch = episodes.rows.num_rows
    found = Played(np.zeros(batch, np.int64), np.zeros(batch), np.zeros(batch, np.int64))
    playing_B = np.ones(batch, bool)
    noise = _Noise(episodes.name, first, batch, sum(network.actions))
    observed, _ = environment.play(episodes.rows)
    state = network.initial_state(batch)
    for steps in count():
        refuse_beyond(episodes.name, network.context, steps + 1)
        progress(first + batch - int(playing_B.sum()), f"step {steps:,}")
        if watch:
            watch(environment, playing_B)
        acted, state = network.step(torch.from_numpy(observed).to(device), state)
        action_BA = sample(acted.logits, noise.next().to(device), network.actions)
        action = (action_BA.squeeze(-1) if action_BA.shape[-1] == 1 else action_BA).cpu().numpy()
        observed, _, ended_B, cut_off_B, infos = environment.step(action)
        now_B = (ended_B | cut_off_B) & playing_B
        for key, values in zip(("success", "return", "length"), found, strict=True):
            values[now_B] = infos[key][now_B] if now_B.any() else 0
        playing_B &= ~now_B
        if not playing_B.any():
            break
    return found


def refuse_beyond(name: str, context: int, steps: int) -> None:
    """Raise UserError where an episode has come to its step number `steps` and the network is made for fewer.

    Configs and environments say how long episodes are; this holds where they are wrong.
    """
    if steps > context:
        raise UserError(f"{name}: an episode of more than {context} steps, network.context; expected a smaller task.limit, or more context")


class _Noise:
    """Numbers by which actions are drawn, for every step; each episode's come from a stream of its own."""

    def __init__(self, name: str, first: int, batch: int, values: int) -> None:
        self.streams = [generator(derive_key("play", name, row)) for row in range(first, first + batch)]
        self.values, self.block, self.place = values, torch.empty(batch, 0, values), 0

    def next(self) -> Tensor:
        """Numbers (B, C) for the next step."""
        if self.place == self.block.shape[1]:
            self.block = torch.stack([gumbel(stream, (BLOCK, self.values)) for stream in self.streams])
            self.place = 0
        self.place += 1
        return self.block[:, self.place - 1]
