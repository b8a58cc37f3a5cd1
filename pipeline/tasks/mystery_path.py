"""Mystery Path: find the way along a path that is not seen, and remember it.

    . . . . . . .     O origin, G goal, # hidden tiles of the path. Off the path the agent falls, a cross says so, and at the next step,
    . . # # # # G     whatever it does, it stands on the origin again. Every tile of the path pays once, and the goal ends the episode.
    . . # . . . .
    O # # . . . .     grid: stay, turn left, turn right, forward.  continuous: left or right, and up or down, 3 pixels at a time.
    . . . . . . .

The rules are those of `memory-gym` 1.0.2 (Pleines et al. 2023), and the tests hold the two together step by step; only that the time limit
truncates here and terminates there. Letters: B copies, N tiles (7 y + x).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from pipeline.config.tasks import MysteryPath as Config
from pipeline.storage.keys import Key, generator
from pipeline.tasks.base import BUCKETS, Split, hash_weights, in_split
from pipeline.tasks.environment import ALL, BatchedEnvironment, Columns, Copies, EnvironmentTask
from pipeline.tasks.hidden_path_pixels import TILE, Painter
from pipeline.tasks.hidden_paths import SIDE, TILES, chances, find_paths

AHEAD = np.array([(0, -1), (-1, 0), (0, 1), (1, 0)])
"""Right and down for each quarter of a turn to the left, from up."""
FACING = np.array([[-1, 0, 4], [2, 1, 3], [6, 7, 5]])
"""In eighths of a turn, where an agent faces that moves (none, left, right) and (none, up, down); -1: as before."""
SPEED, DIAGONAL = 3, 2
"""Pixels per step along one axis, and along each of two."""
MOST = 8192
"""Paths searched at once: what more would gain is lost again outside the processor's cache."""


class MysteryPath(EnvironmentTask):
    """An episode is a path."""

    meanings: ClassVar[dict[str, str]] = {
        "path": "place on the path of each of the 49 tiles, row by row: 1 is the origin, the largest the goal, 0 off the path; uint8",
        "tiles": "tiles of the path, both ends counted, int32",
        "best": "return of the best policy, without what steps cost",
    }

    config: Config

    def draw(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Paths of the split, by a hash of their tiles."""
        rng, weights_N = generator(key), hash_weights(TILES)
        low, high = BUCKETS[split]
        found: list[np.ndarray] = [np.empty((0, TILES), np.uint8)]
        while (missing := rows - sum(map(len, found))) > 0:
            path_BN = find_paths(chances(min(missing * 100 // (high - low) + 16, MOST), rng))
            hash_B = (path_BN * weights_N).sum(1)
            found.append(path_BN[in_split(hash_B, split)][:missing])
        path_BN = np.concatenate(found)
        tiles_B = path_BN.max(1, initial=0).astype(np.int32)
        best_B = self.config.reward_goal + self.config.reward_path_progress * (tiles_B - 2.0)
        return {"path": path_BN, "tiles": tiles_B, "best": best_B}

    def environment(self, batch: int, seed: int) -> MysteryPaths:
        """Copies of the board."""
        return (GridPaths if self.config.moves == "grid" else ContinuousPaths)(self, batch, seed)


class MysteryPaths(BatchedEnvironment):
    """Copies of the board, however the agent moves on it: `x_B` and `y_B` are its centre in pixels, `facing_B` in eighths of a turn."""

    carried: ClassVar[tuple[str, ...]] = (
        "path_BN",
        "origin_B",
        "goal_B",
        "x_B",
        "y_B",
        "facing_B",
        "fallen_B",
        "visited_BN",
        "fails_B",
        "success_B",
    )
    facings: ClassVar[int]

    def __init__(self, task: MysteryPath, batch: int, seed: int) -> None:
        self.config = config = task.config
        shape, pixels = config.observation.shape, config.observation.kind == "pixels"
        space: Any = Box(0, 255, shape, np.uint8) if pixels else Box(0.0, 1.0, shape, np.float32)
        action: Any = Discrete(4) if config.moves == "grid" else MultiDiscrete([3, 3])
        super().__init__(task, batch, seed, space, action, config.steps)
        self.path_BN, self.visited_BN = np.zeros((batch, TILES), np.uint8), np.zeros((batch, TILES), bool)
        self.origin_B, self.goal_B, self.x_B, self.y_B, self.facing_B = (np.zeros(batch, np.int64) for _ in range(5))
        self.fails_B, self.success_B, self.fallen_B = np.zeros(batch, np.int64), np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.all_B = np.arange(batch)
        self.painter = Painter()

    def _begin(self, copies: np.ndarray, episodes: Columns) -> None:
        path_BN = episodes["path"]
        self.path_BN[copies] = path_BN
        self.origin_B[copies], self.goal_B[copies] = (path_BN == 1).argmax(1), path_BN.argmax(1)
        self.visited_BN[copies] = False
        self.facing_B[copies] = self.fails_B[copies] = self.success_B[copies] = self.fallen_B[copies] = 0
        self._to_origin(copies)

    def _to_origin(self, copies: np.ndarray) -> None:
        origin_B = self.origin_B[copies]
        self.x_B[copies], self.y_B[copies] = origin_B % SIDE * TILE + TILE // 2, origin_B // SIDE * TILE + TILE // 2

    def _act(self, action_B: np.ndarray, fallen: np.ndarray) -> None:
        """Move every agent but the fallen ones."""
        raise NotImplementedError

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fallen = np.flatnonzero(self.fallen_B)
        self._act(action_B, fallen)
        if len(fallen):
            self._to_origin(fallen)
        tile_B = self._tile(ALL)
        reached_B = tile_B == self.goal_B
        on_B = self.path_BN[self.all_B, tile_B] > 0
        new_B = on_B & ~self.visited_BN[self.all_B, tile_B] & ~reached_B & (tile_B != self.origin_B)
        self.visited_BN[self.all_B, tile_B] |= new_B
        self.fallen_B = ~on_B
        self.fails_B += self.fallen_B
        self.success_B = reached_B.astype(np.int64)
        return self._rewards(reached_B, new_B), reached_B

    def _rewards(self, reached_B: np.ndarray, new_B: np.ndarray) -> np.ndarray:
        config = self.config
        reward_B = config.reward_goal * reached_B + config.reward_path_progress * new_B
        if config.reward_fall_off:
            reward_B += config.reward_fall_off * self.fallen_B
        return reward_B + config.reward_step if config.reward_step else reward_B

    def _tile(self, copies: Copies) -> np.ndarray:
        return self.y_B[copies] // TILE * SIDE + self.x_B[copies] // TILE

    def _first(self, copies: np.ndarray) -> np.ndarray:
        return self._see(copies)

    def _observe(self) -> np.ndarray:
        return self._see(ALL)

    def _see(self, copies: Copies) -> np.ndarray:
        return self._paint(copies) if self.config.observation.kind == "pixels" else self._symbols(copies)

    def _paint(self, copies: Copies) -> np.ndarray:
        config = self.config
        stamp_B = 2 * self.facing_B[copies] + (self.fallen_B[copies] & config.visual_feedback)
        origin_B = self.origin_B[copies] if config.show_origin else None
        goal_B = self.goal_B[copies] if config.show_goal else None
        return self.painter.paint(self.x_B[copies], self.y_B[copies], stamp_B, origin_B, goal_B)

    def _symbols(self, copies: Copies) -> np.ndarray:
        """One plane of the board each for the agent and, if shown, origin and goal; where it faces; whether it fell; where in its tile it is."""
        config = self.config
        tile_B = self._tile(copies)
        here = self.all_B[: len(tile_B)]
        seen = np.zeros((len(tile_B), *config.observation.shape), np.float32)
        seen[here, tile_B] = 1
        at = TILES
        for shown, place_B in ((config.show_origin, self.origin_B), (config.show_goal, self.goal_B)):
            if shown:
                seen[here, at + place_B[copies]] = 1
                at += TILES
        seen[here, at + self.facing_B[copies] * self.facings // 8] = 1
        at += self.facings
        if config.visual_feedback:
            seen[:, at] = self.fallen_B[copies]
            at += 1
        if config.moves == "continuous":
            seen[:, at], seen[:, at + 1] = self.x_B[copies] % TILE / TILE, self.y_B[copies] % TILE / TILE
        return seen

    def _report(self) -> Columns:
        return {"success": self.success_B, "fails": self.fails_B}

    def render(self) -> np.ndarray:
        """Frames (B, 84, 84, 3), uint8: what an agent with eyes would see."""
        return self._paint(ALL)


class GridPaths(MysteryPaths):
    """The agent turns by quarters and moves by tiles."""

    facings: ClassVar[int] = 4

    def _act(self, action_B: np.ndarray, fallen: np.ndarray) -> None:
        turn_B = (action_B == 1).astype(np.int64) - (action_B == 2)
        forward_B = action_B == 3
        turn_B[fallen], forward_B[fallen] = 0, False
        self.facing_B = (self.facing_B + 2 * turn_B) % 8
        ahead_B = AHEAD[self.facing_B // 2] * (TILE * forward_B[:, None])
        low, high = TILE // 2, SIDE * TILE - TILE // 2
        self.x_B = np.clip(self.x_B + ahead_B[:, 0], low, high)
        self.y_B = np.clip(self.y_B + ahead_B[:, 1], low, high)


class ContinuousPaths(MysteryPaths):
    """The agent moves by pixels, in eight directions."""

    facings: ClassVar[int] = 8

    def _act(self, action_B: np.ndarray, fallen: np.ndarray) -> None:
        across_B, along_B = action_B[:, 0].copy(), action_B[:, 1].copy()
        across_B[fallen] = along_B[fallen] = 0
        facing_B = FACING[across_B, along_B]
        self.facing_B = np.where(facing_B < 0, self.facing_B, facing_B)
        pixels_B = np.where((across_B > 0) & (along_B > 0), DIAGONAL, SPEED)
        low, high = TILE // 2, SIDE * TILE - TILE // 2
        self.x_B = np.clip(self.x_B + pixels_B * _sign(across_B), low, high)
        self.y_B = np.clip(self.y_B + pixels_B * _sign(along_B), low, high)


def _sign(part_B: np.ndarray) -> np.ndarray:
    """0, 1, 2 as 0, -1, 1."""
    return (part_B == 2).astype(np.int64) - (part_B == 1)
