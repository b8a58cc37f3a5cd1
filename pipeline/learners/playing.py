"""Playing held-out episodes with a trained policy, whose actions are sampled from a random stream of each episode's own.

So an episode depends on the network and the episode only, not on which others are played beside it.

Notation: B = episodes played side by side, C = choices of all parts of an action.
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

BATCH = 256
"""Episodes played side by side."""
NOISE_STEPS = 64
"""Steps whose random numbers are drawn at a time."""


class Played(NamedTuple):
    """Of each episode: solved (1) or not (0), its return, its length in steps."""

    success: np.ndarray
    episode_return: np.ndarray
    length: np.ndarray


Watch = Callable[[VectorEnv, np.ndarray], None]
"""Called before every step with the environment, and which episodes are still being played."""


def play(network: Any, task: Any, episodes: Episodes, device: torch.device, watch: Watch | None = None) -> Played:
    """Play every episode once, in environments that `task` makes. Neither weights nor torch's generators change.

    Raises UserError for an episode of more steps than the network's context.
    """
    parts, progress = [], ProgressLine(episodes.name, episodes.rows.num_rows, "episodes played")
    for start in range(0, episodes.rows.num_rows, BATCH):
        some = Episodes(episodes.name, episodes.rows.slice(start, BATCH))
        environment = task.environment(some.rows.num_rows, 0)
        parts.append(_play(network, environment, some, start, device, watch, progress))
        environment.close()
    return Played(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@torch.inference_mode()
def _play(
    network: Any, environment: Any, episodes: Episodes, first: int, device: torch.device, watch: Watch | None, progress: ProgressLine
) -> Played:
    """Play episodes whose numbers in their dataset start at `first`."""
    batch = episodes.rows.num_rows
    played = Played(np.zeros(batch, np.int64), np.zeros(batch), np.zeros(batch, np.int64))
    playing_B = np.ones(batch, bool)
    noise = _Noise(episodes.name, first, batch, sum(network.actions))
    observed, _ = environment.play(episodes.rows)
    state = network.initial_state(batch)
    for steps in count():
        check_episode_length(episodes.name, network.context, steps + 1)
        progress(first + batch - int(playing_B.sum()), f"step {steps:,}")
        if watch:
            watch(environment, playing_B)
        output, state = network.step(torch.from_numpy(observed).to(device), state)
        action_BA = sample(output.logits, noise.next().to(device), network.actions)
        observed, _, ended_B, truncated_B, infos = environment.step(for_environment(action_BA))
        now_B = (ended_B | truncated_B) & playing_B
        for key, values in zip(("success", "return", "length"), played, strict=True):
            values[now_B] = infos[key][now_B] if now_B.any() else 0
        playing_B &= ~now_B
        if not playing_B.any():
            break
    return played


def for_environment(action_BA: Tensor) -> np.ndarray:
    """Actions in the form of the environment's action space: (B,) where they have one part."""
    return (action_BA.squeeze(-1) if action_BA.shape[-1] == 1 else action_BA).cpu().numpy()


def check_episode_length(name: str, context: int, steps: int) -> None:
    """Raise UserError for an episode of more steps than the network's context: a config or an environment may be wrong about its length."""
    if steps > context:
        raise UserError(
            f"{name}: an episode of more than {context} steps, network.context; expected a smaller task.max_episode_steps, or more context"
        )


class _Noise:
    """Gumbel noise for sampling actions; each episode has a random stream of its own."""

    def __init__(self, name: str, first: int, batch: int, values: int) -> None:
        self.streams = [generator(derive_key("play", name, row)) for row in range(first, first + batch)]
        self.values, self.drawn, self.used = values, torch.empty(batch, 0, values), 0

    def next(self) -> Tensor:
        """Noise (B, C) of the next step."""
        if self.used == self.drawn.shape[1]:
            self.drawn = torch.stack([gumbel(stream, (NOISE_STEPS, self.values)) for stream in self.streams])
            self.used = 0
        self.used += 1
        return self.drawn[:, self.used - 1]
