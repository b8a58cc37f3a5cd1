"""Mystery Path: find and remember an invisible path.

    . . . . . . .     O origin, G goal, # hidden path tiles. Off the path the agent falls, shown by a cross, and the next step, with any
    . . # # # # G     action, puts it back on the origin. Every path tile is rewarded once, and the goal ends the episode.
    . . # . . . .
    O # # . . . .     grid: stay, turn left, turn right, forward.  continuous: left or right, and up or down, 3 pixels at a time.
    . . . . . . .

The rules are those of `memory-gym` 1.0.2 (Pleines et al. 2023), checked step by step by tests, except that the time limit truncates here and
terminates there. Notation: B = sub-environments, N = tiles (7 y + x).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from pipeline.config.tasks import MysteryPath as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import BUCKETS, Split, hash_weights, in_split
from pipeline.tasks.environment import ALL, BatchedEnvironment, Columns, EnvironmentTask, Indices
from pipeline.tasks.hidden_path_pixels import TILE, Painter
from pipeline.tasks.hidden_paths import SIDE, TILES, find_paths, sample_random_inputs

LOW, HIGH = TILE // 2, SIDE * TILE - TILE // 2
"""Range of the agent's centre in pixels."""
SPEED, DIAGONAL = 3, 2
"""Pixels per step along one axis, and along each axis of a diagonal."""
MOST = 8192
"""Paths searched at once: more do not fit into the processor's cache."""


def grid_moves() -> np.ndarray:
    """Return the moves of an agent that turns by quarters and moves by tiles: (right, down, new facing) by (action, facing)."""
    table = np.zeros((4, 8, 3), np.int64)
    table[:, :, 2] = (np.array([0, 2, -2, 0])[:, None] + np.arange(8)) % 8
    table[3, 0::2, :2] = TILE * np.array([(0, -1), (-1, 0), (0, 1), (1, 0)])
    return table


def continuous_moves() -> np.ndarray:
    """Return the moves of an agent that moves by pixels; actions are 3 x (none, left, right) + (none, up, down)."""
    table = np.zeros((9, 8, 3), np.int64)
    table[0, :, 2] = np.arange(8)
    facing = {(0, -1): 0, (-1, -1): 1, (-1, 0): 2, (-1, 1): 3, (0, 1): 4, (1, 1): 5, (1, 0): 6, (1, -1): 7}
    code = {0: 0, -1: 1, 1: 2}
    for (right, down), after in facing.items():
        pixels = DIAGONAL if right and down else SPEED
        table[3 * code[right] + code[down]] = (pixels * right, pixels * down, after)
    return table


class MysteryPath(EnvironmentTask):
    """An episode is a path."""

    meanings: ClassVar[dict[str, str]] = {
        "path": "place on the path of each of the 49 tiles, row by row: 1 is the origin, the largest the goal, 0 off the path; uint8",
        "tiles": "tiles of the path, both ends counted, int32",
        "best": "return of the best policy, without what steps cost",
    }

    config: Config

    def sample_episodes(self, rows: int, key: Key, split: Split = "train") -> Columns:
        """Sample paths that belong to the split, by a hash of their tiles."""
        rng, weights_N = generator(key), hash_weights(TILES)
        low, high = BUCKETS[split]
        found: list[np.ndarray] = [np.empty((0, TILES), np.uint8)]
        while (missing := rows - sum(map(len, found))) > 0:
            path_BN = find_paths(sample_random_inputs(min(missing * 100 // (high - low) + 16, MOST), rng))
            hash_B = (path_BN * weights_N).sum(1)
            found.append(path_BN[in_split(hash_B, split)][:missing])
        path_BN = np.concatenate(found)
        tiles_B = path_BN.max(1, initial=0).astype(np.int32)
        best_B = self.config.reward_goal + self.config.reward_path_progress * (tiles_B - 2.0)
        return {"path": path_BN, "tiles": tiles_B, "best": best_B}

    def environment(self, batch: int, seed: int) -> MysteryPaths:
        """Create the vector environment."""
        return MysteryPaths(self, batch, seed)


class MysteryPaths(BatchedEnvironment):
    """Vectorised Mystery Path. at_B2: the agent's centre in pixels, right and down; facing_B: eighths of a turn to the left, from up."""

    state_arrays: ClassVar[tuple[str, ...]] = (
        "path_BN",
        "unpaid_BN",
        "origin_B",
        "goal_B",
        "at_B2",
        "facing_B",
        "fallen_B",
        "fails_B",
        "success_B",
    )

    def __init__(self, task: MysteryPath, batch: int, seed: int) -> None:
        self.config = config = task.config
        self.pixels, self.grid, self.shape = config.view == "pixels", config.moves == "grid", config.observation.shape
        space: Any = Box(0, 255, self.shape, np.uint8) if self.pixels else Box(0.0, 1.0, self.shape, np.float32)
        action: Any = Discrete(4) if self.grid else MultiDiscrete([3, 3])
        super().__init__(task, batch, seed, space, action, config.steps)
        self.path_BN, self.unpaid_BN = np.zeros((batch, TILES), np.uint8), np.zeros((batch, TILES), bool)
        self.at_B2, self.fallen_B = np.full((batch, 2), LOW), np.zeros(batch, bool)
        self.origin_B, self.goal_B, self.facing_B, self.fails_B, self.success_B = (np.zeros(batch, np.int64) for _ in range(5))
        self.rows_B = np.arange(batch) * TILES
        self.moves = grid_moves() if self.grid else continuous_moves()
        self.painter = Painter()

    def _begin(self, indices: np.ndarray, episodes: Columns) -> None:
        path_BN = episodes["path"]
        origin_B, goal_B = (path_BN == 1).argmax(1), path_BN.argmax(1)
        self.path_BN[indices], self.origin_B[indices], self.goal_B[indices] = path_BN, origin_B, goal_B
        self.unpaid_BN[indices] = path_BN > 1
        self.unpaid_BN[indices, goal_B] = False
        self.facing_B[indices] = self.fails_B[indices] = self.success_B[indices] = self.fallen_B[indices] = 0
        self.at_B2[indices] = _middle(origin_B)

    def _move(self, action_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        move_B3 = self.moves[action_B if self.grid else 3 * action_B[:, 0] + action_B[:, 1], self.facing_B]
        at_B2 = np.minimum(np.maximum(self.at_B2 + move_B3[:, :2], LOW), HIGH)
        self.facing_B = np.where(self.fallen_B, self.facing_B, move_B3[:, 2])
        self.at_B2 = np.where(self.fallen_B[:, None], _middle(self.origin_B), at_B2) if self.fallen_B.any() else at_B2
        tile_B = self._tile(ALL)
        place_B = self.rows_B + tile_B
        reached_B = tile_B == self.goal_B
        new_B = self.unpaid_BN.reshape(-1).take(place_B)
        self.unpaid_BN.reshape(-1)[place_B] = False
        self.fallen_B = self.path_BN.reshape(-1).take(place_B) == 0
        self.fails_B += self.fallen_B
        self.success_B = reached_B.astype(np.int64)
        return self._rewards(reached_B, new_B), reached_B

    def _rewards(self, reached_B: np.ndarray, new_B: np.ndarray) -> np.ndarray:
        config = self.config
        reward_B = config.reward_goal * reached_B + config.reward_path_progress * new_B
        if config.reward_fall_off:
            reward_B += config.reward_fall_off * self.fallen_B
        return reward_B + config.reward_step if config.reward_step else reward_B

    def _tile(self, indices: Indices) -> np.ndarray:
        tile_B2 = self.at_B2[indices] // TILE
        return tile_B2[:, 1] * SIDE + tile_B2[:, 0]

    def _first(self, indices: np.ndarray) -> np.ndarray:
        return self._see(indices)

    def _observe(self) -> np.ndarray:
        return self._see(ALL)

    def _see(self, indices: Indices) -> np.ndarray:
        return self._paint(indices) if self.pixels else self._symbols(indices)

    def _paint(self, indices: Indices) -> np.ndarray:
        config = self.config
        stamp_B = 2 * self.facing_B[indices] + (self.fallen_B[indices] & config.visual_feedback)
        origin_B = self.origin_B[indices] if config.show_origin else None
        goal_B = self.goal_B[indices] if config.show_goal else None
        return self.painter.paint(self.at_B2[indices], stamp_B, origin_B, goal_B)

    def _symbols(self, indices: Indices) -> np.ndarray:
        """Return one-hot planes of the agent's tile and, if shown, origin and goal; its facing; whether it fell; its offset in the tile."""
        config, (width,) = self.config, self.shape
        tile_B = self._tile(indices)
        seen = np.zeros((len(tile_B), width), np.float32)
        flat, row_B, at = seen.reshape(-1), np.arange(len(tile_B)) * width, TILES
        flat[row_B + tile_B] = 1
        for shown, place_B in ((config.show_origin, self.origin_B), (config.show_goal, self.goal_B)):
            if shown:
                flat[row_B + at + place_B[indices]] = 1
                at += TILES
        facings = 4 if self.grid else 8
        flat[row_B + at + self.facing_B[indices] * facings // 8] = 1
        at += facings
        if config.visual_feedback:
            seen[:, at] = self.fallen_B[indices]
        if not self.grid:
            seen[:, -2:] = self.at_B2[indices] % TILE / TILE
        return seen

    def _report(self) -> Columns:
        return {"success": self.success_B, "fails": self.fails_B}

    def render(self) -> np.ndarray:
        """Return frames (B, 84, 84, 3), uint8: the pixel observations."""
        return self._paint(ALL)


def _middle(tile_B: np.ndarray) -> np.ndarray:
    """Return the centres of tiles in pixels, right and down."""
    return np.stack([tile_B % SIDE, tile_B // SIDE], 1) * TILE + TILE // 2
