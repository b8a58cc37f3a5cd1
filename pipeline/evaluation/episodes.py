"""A trained network measured by playing held-out episodes: a row per episode, and strips of pictures of the first ones.

Letters: K pictures of a strip, H and W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from gymnasium.vector import VectorEnv

from pipeline.learners.playing import play
from pipeline.storage.arrow import from_numpy
from pipeline.storage.errors import UserError
from pipeline.storage.loader import Episodes

STRIPS = 2
"""Episodes of a dataset of which pictures are kept, its first ones."""
PICTURES = 8
"""Pictures of a strip, spread evenly over its episode, the first and the last step included."""
LARGEST = 128
"""Pixels a side at most; of larger pictures every second, third, ... is kept."""


def score_episodes(network: Any, task: Any, episodes: Episodes, device: torch.device) -> pa.Table:
    """How every episode of a dataset was played, in its order; `task` makes the environment. Columns: see `pipeline.evaluation.scores`."""
    count = episodes.rows.num_rows
    if not count:
        raise UserError(f"{episodes.name}: no episodes; expected at least one to measure")
    played = play(network, task, episodes, device)
    state = {steps: network.state_bytes(steps) for steps in np.unique(played.length).tolist()}
    known = {name: episodes.rows.column(name) for name in (*task.config.columns, "best") if name in episodes.rows.column_names}
    columns = {
        "dataset": pa.array([episodes.name] * count),
        "row": pa.array(np.arange(count, dtype=np.int32)),
        **{name: values for name, values in known.items() if name != "best"},
        "state_bytes": pa.array([state[steps] for steps in played.length.tolist()], pa.int64()),
        "success": from_numpy(played.success.astype(np.int32)),
        "return": from_numpy(played.episode_return),
        "episode_length": from_numpy(played.length.astype(np.int32)),
        **{name: values for name, values in known.items() if name == "best"},
        **_pictures(network, task, episodes, device),
    }
    return pa.table(columns)


def _pictures(network: Any, task: Any, episodes: Episodes, device: torch.device) -> dict[str, pa.Array]:
    """The columns `frames` and `frames_shape`, null but for the first episodes; none where the environment draws no pictures."""
    strips = [Strip() for _ in range(min(STRIPS, episodes.rows.num_rows))]

    def watch(environment: VectorEnv, playing_B: np.ndarray) -> None:
        pictures: Any = environment.render()
        for strip, picture, playing in zip(strips, pictures, playing_B, strict=True):
            if playing:
                strip.add(picture)

    try:
        play(network, task, Episodes(episodes.name, episodes.rows.slice(0, STRIPS)), device, watch)
    except UserError:  # an environment that draws nothing is measured all the same
        return {}
    found = [strip.pictures() for strip in strips]
    missing = [None] * (episodes.rows.num_rows - len(strips))
    return {
        "frames": pa.array([*(pictures.tobytes() for pictures in found), *missing], pa.binary()),
        "frames_shape": pa.array([*(list(pictures.shape) for pictures in found), *missing], pa.list_(pa.int32())),
    }


class Strip:
    """Pictures of an episode whose length is not known beforehand: never more than a few times those that are wanted."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self.every, self.seen = 1, 0
        self.last: np.ndarray | None = None

    def add(self, picture: np.ndarray) -> None:
        """The picture of the next step, (H, W, 3) uint8."""
        coarse = -(-max(picture.shape[:2]) // LARGEST)
        self.last = np.ascontiguousarray(picture[::coarse, ::coarse])
        if self.seen % self.every == 0:
            self.kept.append(self.last)
        self.seen += 1
        if len(self.kept) == 4 * PICTURES:
            self.kept, self.every = self.kept[::2], 2 * self.every

    def pictures(self) -> np.ndarray:
        """(K, H, W, 3): evenly spread, from the first step to the last."""
        places = np.linspace(0, len(self.kept) - 1, min(PICTURES, self.seen)).round().astype(int)
        chosen = [self.kept[place] for place in places]
        assert self.last is not None
        return np.stack([*chosen[:-1], self.last])
