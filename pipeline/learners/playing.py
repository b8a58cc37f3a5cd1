"""Playing held-out episodes with a trained policy, whose actions are sampled from a separate random stream per episode.

The outcome depends only on the network and the episode, not on the other episodes of the batch.

Notation: B = episodes played in parallel, A = parts of an action, C = choices of all parts (logits).
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
"""Episodes played in parallel."""
NOISE_STEPS = 64
"""Steps whose noise is sampled at a time."""


class EpisodeResults(NamedTuple):
    """Results per episode: success (1 or 0), return, length in steps."""

    success: np.ndarray
    episode_return: np.ndarray
    length: np.ndarray


StepCallback = Callable[[VectorEnv, np.ndarray], None]
"""Called before every step with the environment and the mask of episodes still running."""


def play(network: Any, task: Any, episodes: Episodes, device: torch.device, watch: StepCallback | None = None) -> EpisodeResults:
    """Play every episode once, in environments created by `task`. Changes neither weights nor torch's generators.

    Raises UserError for an episode longer than the network's context.
    """
    parts, progress = [], ProgressLine(episodes.name, episodes.rows.num_rows, "episodes played")
    for start in range(0, episodes.rows.num_rows, BATCH):
        some = Episodes(episodes.name, episodes.rows.slice(start, BATCH))
        environment = task.environment(some.rows.num_rows, 0)
        parts.append(_play(network, environment, some, start, device, watch, progress))
        environment.close()
    return EpisodeResults(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@torch.inference_mode()
def _play(
    network: Any, environment: Any, episodes: Episodes, first: int, device: torch.device, watch: StepCallback | None, progress: ProgressLine
) -> EpisodeResults:
    """Play consecutive episodes, the first with index `first` in its dataset."""
    batch = episodes.rows.num_rows
    played = EpisodeResults(np.zeros(batch, np.int64), np.zeros(batch), np.zeros(batch, np.int64))
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
        observed, _, ended_B, truncated_B, infos = environment.step(to_env_actions(action_BA))
        now_B = (ended_B | truncated_B) & playing_B
        for key, values in zip(("success", "return", "length"), played, strict=True):
            values[now_B] = infos[key][now_B] if now_B.any() else 0
        playing_B &= ~now_B
        if not playing_B.any():
            break
    return played


def to_env_actions(action_BA: Tensor) -> np.ndarray:
    """Convert actions to the format of the environment's action space: (B,) if they have one part."""
    return (action_BA.squeeze(-1) if action_BA.shape[-1] == 1 else action_BA).cpu().numpy()


def check_episode_length(name: str, context: int, steps: int) -> None:
    """Raise UserError for an episode longer than the network's context; a config or environment may understate its length."""
    if steps > context:
        raise UserError(
            f"{name}: an episode of more than {context} steps, network.context; expected a smaller task.max_episode_steps, or more context"
        )


class _Noise:
    """Gumbel noise for sampling actions, with a separate random stream per episode."""

    def __init__(self, name: str, first: int, batch: int, values: int) -> None:
        self.streams = [generator(derive_key("play", name, row)) for row in range(first, first + batch)]
        self.values, self.noise, self.used = values, torch.empty(batch, 0, values), 0

    def next(self) -> Tensor:
        """Return the noise (B, C) of the next step."""
        if self.used == self.noise.shape[1]:
            self.noise = torch.stack([gumbel(stream, (NOISE_STEPS, self.values)) for stream in self.streams])
            self.used = 0
        self.used += 1
        return self.noise[:, self.used - 1]
