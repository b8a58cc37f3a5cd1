"""The T-Maze: a cue at the start of a corridor tells which way to turn at its end.

    corridor 5, cue up                        u d   position   distractors
    step 0    C . . . J    observation        0 1   00000000   000000       random bits from the second observation on
    step 1    . A . . J    right, -0.1        0 0   00000001   011010
    ...                                                                      Gray code: neighbours differ in one bit
    step 4    . . . . A    right, -0.1        0 0   00000110   110100
    step 5                 up, +4             the episode ends

Source: Bakker 2001. Notation: B = sub-environments.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from pipeline.config.base import largest
from pipeline.config.tasks import TMaze as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import GOLDEN, Split, in_split, mix, sample_integers
from pipeline.tasks.environment import BatchedEnvironment, Columns, EnvironmentTask

UP, DOWN, LEFT, RIGHT = range(4)
CUES = {"position": ((0, 1), (1, 0)), "bakker": ((0, 1, 1), (1, 1, 0))}
"""First observation per cue: up, down."""
ALONG = np.array([0, 0, -1, 1])
"""Change of position per action."""
REWARDS = np.array([-0.1, -1.0, 4.0])
"""Rewards of a step, of the wrong turn, and of the correct turn."""
GREY, GREEN, AGENT = 90, (48, 141, 70), (250, 204, 153)
HERE = ((1, 0, 1), (0, 1, 0))
"""Bakker's encodings of corridor and junction."""


class TMaze(EnvironmentTask):
    """An episode is a corridor, a cue, and the seed of its distractors."""

    meanings: ClassVar[dict[str, str]] = {
        "cue": "where the reward is: 0 up, 1 down, int32",
        "seed": "64 bits from which the distractors follow",
        "best": "return of the best policy",
    }

    config: Config

    def sample_episodes(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Sample seeds that belong to the split; corridors and cues are independent of them."""
        rng = generator(key)
        corridor_B = sample_integers("t_maze", "corridor", self.config.corridor, rows, rng, None).astype(np.int32)
        cue_B = rng.integers(2, size=rows, dtype=np.int32)
        seed_B = rng.integers(2**64, size=rows, dtype=np.uint64)
        wrong = np.flatnonzero(~in_split(seed_B, split))
        while len(wrong):
            seed_B[wrong] = rng.integers(2**64, size=len(wrong), dtype=np.uint64)
            wrong = wrong[~in_split(seed_B[wrong], split)]
        return {"corridor": corridor_B, "cue": cue_B, "seed": seed_B, "best": 4 - 0.1 * (corridor_B - 1.0)}

    def environment(self, batch: int, seed: int) -> TMazes:
        """Create the vector environment."""
        return TMazes(self, batch, seed)


class TMazes(BatchedEnvironment):
    """Vectorised T-Maze. word_B: state of each sub-environment's SplitMix64 generator, whose low bits are the distractors."""

    state_arrays: ClassVar[tuple[str, ...]] = ("last_B", "cue_B", "word_B", "position_B", "success_B")

    def __init__(self, task: TMaze, batch: int, seed: int) -> None:
        self.config = config = task.config
        self.width, self.position_seen = config.observation.shape[0], config.form == "position"
        space: Any = Box(0.0, 1.0, (self.width,), np.float32)
        super().__init__(task, batch, seed, space, Discrete(4), config.max_episode_steps)
        self.last_B, self.cue_B, self.position_B = (np.zeros(batch, np.int64) for _ in range(3))
        self.word_B, self.success_B = np.zeros(batch, np.uint64), np.zeros(batch, bool)
        self.firsts, self.laters = self._views()

    def _views(self) -> tuple[np.ndarray, np.ndarray]:
        """Return observations without distractors: the first one per cue, and later ones per position, or for corridor and junction."""
        cues, places = CUES[self.config.form], HERE
        before, bits = (2, self.config.bits) if self.position_seen else (0, 3)
        if self.position_seen:
            positions = np.arange(largest(self.config.corridor))
            places = (positions ^ (positions >> 1))[:, None] >> np.arange(bits)[::-1] & 1
        firsts, laters = np.zeros((2, self.width), np.float32), np.zeros((len(places), self.width), np.float32)
        firsts[:, : len(cues[0])], laters[:, before : before + bits] = cues, places
        return firsts, laters

    def _begin(self, indices: np.ndarray, episodes: Columns) -> None:
        self.last_B[indices] = episodes["corridor"] - 1
        self.cue_B[indices], self.word_B[indices], self.position_B[indices] = episodes["cue"], episodes["seed"], 0

    def _first(self, indices: np.ndarray) -> np.ndarray:
        return self.firsts.take(self.cue_B[indices], 0)

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.word_B += GOLDEN
        junction_B = self.position_B == self.last_B
        terminated_B = junction_B & (action_B < LEFT)
        self.success_B = terminated_B & (action_B == self.cue_B)
        step_B = ALONG.take(action_B)
        if not self.config.allow_leave_junction:
            step_B *= ~junction_B
        self.position_B = np.minimum(np.maximum(self.position_B + step_B, 0), self.last_B)
        return REWARDS.take(np.add(terminated_B, self.success_B, dtype=np.int64)), terminated_B

    def _observe(self) -> np.ndarray:
        seen = self.laters.take(self.position_B if self.position_seen else self.position_B == self.last_B, 0)
        if self.config.distractors:
            bytes_B8 = mix(self.word_B)[:, None].view(np.uint8)
            seen[:, -self.config.distractors :] = np.unpackbits(bytes_B8, axis=1, count=self.config.distractors, bitorder="little")
        return seen

    def _report(self) -> Columns:
        return {"success": self.success_B.astype(np.int64)}

    def render(self) -> np.ndarray:
        """Return frames (B, height, width, 3), uint8: the corridor and its two arms, the rewarded one green, and the agent."""
        width = int(self.last_B.max()) + 1
        cell = max(2, min(8, 400 // width))
        frame = np.zeros((self.num_envs, 3, width, 3), np.uint8)
        indices, last_B = np.arange(self.num_envs), self.last_B
        frame[:, 1] = np.where(np.arange(width) <= last_B[:, None], GREY, 0)[..., None]
        frame[indices, 0, last_B] = frame[indices, 2, last_B] = GREY
        frame[indices, 2 * self.cue_B, last_B] = GREEN
        frame[indices, 1, self.position_B] = AGENT
        return frame.repeat(cell, 1).repeat(cell, 2)
