"""The T-Maze: which way to turn at the end of a corridor is said at its start.

    corridor 5, the cue says up               u d   position   distractors
    step 0    C . . . J    observation        0 1   00000000   000000       random bits come with the second observation
    step 1    . A . . J    right, -0.1        0 0   00000001   011010
    ...                                                                      Gray code: neighbours differ in one bit
    step 4    . . . . A    right, -0.1        0 0   00000110   110100
    step 5                 up, +4             the episode ends

After Bakker 2001. B: copies.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from pipeline.config.base import largest
from pipeline.config.tasks import TMaze as Config
from pipeline.storage.keys import Key, generator
from pipeline.tasks.base import GOLDEN, Split, draw, in_split, mix
from pipeline.tasks.environment import BatchedEnvironment, Columns, Copies, EnvironmentTask

UP, DOWN, LEFT, RIGHT = range(4)
CUES = {"position": ((0, 1), (1, 0)), "bakker": ((0, 1, 1), (1, 1, 0))}
"""What the first observation says: up, down."""
HERE = ((1, 0, 1), (0, 1, 0))
"""Bakker's codes of corridor and junction."""


class TMaze(EnvironmentTask):
    """An episode is a corridor, a cue, and the seed of its distractors."""

    meanings: ClassVar[dict[str, str]] = {
        "corridor": "positions from start to junction, int32",
        "cue": "where the reward is: 0 up, 1 down, int32",
        "seed": "64 bits from which the distractors follow",
        "best": "return of the best policy",
    }

    config: Config

    def draw(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Seeds of the split; corridors and cues are independent of them."""
        rng = generator(key)
        corridor_B = draw("t_maze", "corridor", self.config.corridor, rows, rng, None).astype(np.int32)
        cue_B = rng.integers(2, size=rows, dtype=np.int32)
        seed_B = rng.integers(2**64, size=rows, dtype=np.uint64)
        wrong = np.flatnonzero(~in_split(seed_B, split))
        while len(wrong):
            seed_B[wrong] = rng.integers(2**64, size=len(wrong), dtype=np.uint64)
            wrong = wrong[~in_split(seed_B[wrong], split)]
        return {"corridor": corridor_B, "cue": cue_B, "seed": seed_B, "best": 4 - 0.1 * (corridor_B - 1.0)}

    def environment(self, batch: int, seed: int) -> TMazes:
        """Copies of the maze."""
        return TMazes(self, batch, seed)


class TMazes(BatchedEnvironment):
    """Copies of the maze. `word_B` is the state of each copy's stream of random words, SplitMix64; observations take their low bits."""

    carried: ClassVar[tuple[str, ...]] = ("corridor_B", "cue_B", "word_B", "position_B", "success_B")

    def __init__(self, task: TMaze, batch: int, seed: int) -> None:
        config = task.config
        space: Any = Box(0.0, 1.0, config.observation.shape, np.float32)
        super().__init__(task, batch, seed, space, Discrete(4), config.limit)
        self.config = config
        self.corridor_B, self.cue_B, self.position_B = (np.zeros(batch, np.int64) for _ in range(3))
        self.word_B, self.success_B = np.zeros(batch, np.uint64), np.zeros(batch, np.int64)
        self.cues = np.array(CUES[config.form], np.float32)
        self.codes = self._codes()

    def _codes(self) -> np.ndarray:
        """What is seen beside the distractors, at every position of the longest corridor; for bakker in the corridor and at the junction."""
        if self.config.form == "bakker":
            return np.array(HERE, np.float32)
        positions = np.arange(largest(self.config.corridor))
        gray = positions ^ (positions >> 1)
        return (gray[:, None] >> np.arange(self.config.bits)[::-1] & 1).astype(np.float32)

    def _begin(self, copies: np.ndarray, episodes: Columns) -> None:
        self.corridor_B[copies], self.cue_B[copies], self.word_B[copies] = (episodes[name] for name in ("corridor", "cue", "seed"))
        self.position_B[copies] = self.success_B[copies] = 0

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.word_B += GOLDEN
        last_B = self.corridor_B - 1
        junction_B = self.position_B == last_B
        turn_B = action_B < LEFT
        terminated_B = junction_B & turn_B
        right_B = terminated_B & (action_B == self.cue_B)
        self.success_B = right_B.astype(np.int64)
        step_B = (action_B == RIGHT).astype(np.int64) - (action_B == LEFT)
        if not self.config.allow_leave_junction:
            step_B[junction_B] = 0
        self.position_B = np.clip(self.position_B + step_B, 0, last_B)
        return np.where(terminated_B, np.where(right_B, 4.0, -1.0), -0.1), terminated_B

    def _observe(self, copies: Copies) -> np.ndarray:
        first_B = self.length_B[copies] == 0
        position_B = self.position_B[copies]
        seen = np.zeros((len(position_B), *self.config.observation.shape), np.float32)
        bakker, cue = self.config.form == "bakker", self.cues.shape[1]
        place_B = (position_B == self.corridor_B[copies] - 1).astype(np.int64) if bakker else position_B
        before = 0 if bakker else cue
        seen[:, before : before + self.codes.shape[1]] = self.codes[place_B]
        if first_B.any():
            seen[first_B, :cue] = self.cues[self.cue_B[copies][first_B]]
        if self.config.distractors:
            seen[:, -self.config.distractors :] = self._noise(copies, first_B)
        return seen

    def _noise(self, copies: Copies, first_B: np.ndarray) -> np.ndarray:
        """The random word of each copy as bits; zeros at the start of an episode."""
        words = mix(self.word_B[copies]) * ~first_B
        return np.unpackbits(words[:, None].view(np.uint8), axis=1, count=self.config.distractors, bitorder="little")

    def _report(self) -> Columns:
        return {"success": self.success_B}

    def render(self) -> np.ndarray:
        """Frames (B, height, width, 3): the corridor, the cue beside its start as long as it is seen, the agent."""
        width, cell = int(self.corridor_B.max()), 6
        frame = np.zeros((self.num_envs, 3, width, 3), np.uint8)
        copies = np.arange(self.num_envs)
        frame[:, 1] = np.where(np.arange(width) < self.corridor_B[:, None], 90, 0)[..., None]
        frame[copies, 0, self.corridor_B - 1] = frame[copies, 2, self.corridor_B - 1] = 90
        frame[copies, 2 * self.cue_B, self.corridor_B - 1] = (48, 141, 70)
        frame[copies, 1, self.position_B] = (250, 204, 153)
        return frame.repeat(cell, 1).repeat(cell, 2)
