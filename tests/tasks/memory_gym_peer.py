"""What memory-gym itself does, told to the tests: run by an interpreter that has it, which need not have anything of ours.

    python memory_gym_peer.py play  < {"moves", "seeds", "options"}  > a list of episodes: path, actions, rewards, ends, infos, frames
    python memory_gym_peer.py paths < a list of the random numbers of one path each                    > a list of their paths

Paths are lists of [x, y], origin first. Frames are digests of the pixels as they are seen, rows from top to bottom.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from typing import Any

STRAY = 0.06
"""How often an agent that knows the path does something else for a while."""


def digest(observation: Any) -> str:
    """Of one observation, which has columns first."""
    return hashlib.sha256(observation.transpose(1, 0, 2).tobytes()).hexdigest()


def path_of(env: Any) -> list[list[int]]:
    """The hidden path of an environment."""
    return [[int(node.x), int(node.y)] for node in reversed(env.mystery_path.path)]


def grid_action(env: Any, target: list[int]) -> int:
    """Turn towards a neighbouring tile, or go there."""
    right, down = target[0] - env.agent.grid_position[0], target[1] - env.agent.grid_position[1]
    wanted = {(0, -1): 0, (-1, 0): 90, (0, 1): 180, (1, 0): 270}.get((int(right), int(down)), 0)
    turn = (wanted - env.agent.rotation) % 360
    return {0: 3, 90: 1, 180: 1, 270: 2}[turn]


def continuous_action(env: Any, target: list[int]) -> list[int]:
    """Towards the middle of a tile."""
    x, y = env.agent.rect.center
    right, down = target[0] * 12 + 6 - x, target[1] * 12 + 6 - y
    return [1 if right < -1 else 2 if right > 1 else 0, 1 if down < -1 else 2 if down > 1 else 0]


def play(moves: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """One episode of an agent that knows the path and errs at times."""
    from memory_gym.mystery_path import MysteryPathEnv  # type: ignore[import-not-found]
    from memory_gym.mystery_path_grid import GridMysteryPathEnv  # type: ignore[import-not-found]

    env: Any = GridMysteryPathEnv() if moves == "grid" else MysteryPathEnv()
    chance = random.Random(seed)
    observation, _ = env.reset(seed=seed, options=options)
    path, reached = path_of(env), 0
    stray: list[Any] = []
    told: dict[str, Any] = {"path": path, "actions": [], "rewards": [], "frames": [digest(observation)], "end": False}
    while not told["end"]:
        here = [int(part) for part in env.normalized_agent_position]
        reached = path.index(here) if here in path else 0
        target = path[min(reached + 1, len(path) - 1)]
        action: Any = grid_action(env, target) if moves == "grid" else continuous_action(env, target)
        if not stray and chance.random() < STRAY:
            fixed = [chance.randrange(3), chance.randrange(3)]
            stray = [chance.choice([1, 2, 3]), 3] if moves == "grid" else [fixed] * chance.randrange(1, 12)
        action = stray.pop() if stray else action
        observation, reward, told["end"], _, info = env.step(action)
        told["actions"].append(action)
        told["rewards"].append(reward)
        told["frames"].append(digest(observation))
    return {**told, "info": {key: float(value) for key, value in info.items()}}


class Given:
    """A generator of random numbers that gives the ones that were given; it looks at who asks."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        self.numbers = numbers

    def integers(self, low: int, high: int) -> int:
        """Whether a tile is a wall, or what the step from a tile to another costs."""
        asking = sys._getframe(1).f_locals
        if high == 100:
            return 0 if self.numbers["inner"][7 * asking["j"] + asking["i"]] else 99
        one, other = asking["current_node"], asking["neighbor"]
        way = [(1, 0), (-1, 0), (0, 1), (0, -1)].index((other.x - one.x, other.y - one.y))
        return self.numbers["cost"][way][7 * one.y + one.x]

    def choice(self, items: list[Any]) -> Any:
        """How many walls stand on the border, or the next of them."""
        if items == [4, 8]:
            return self.numbers["outer"]
        return min(items, key=lambda node: self.numbers["rank"][str(7 * node.y + node.x)])


def path(numbers: dict[str, Any]) -> list[list[int]]:
    """The path that follows from these numbers."""
    from memory_gym.pygame_assets import MysteryPath  # type: ignore[import-not-found]

    ends = [(tile % 7, tile // 7) for tile in (numbers["origin"], numbers["goal"])]
    made: Any = MysteryPath(7, 7, *ends, Given(numbers))
    return [[node.x, node.y] for node in reversed(made.path)]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    answers = (
        [path(item) for item in asked]
        if sys.argv[1] == "paths"
        else [play(asked["moves"], seed, asked["options"]) for seed in asked["seeds"]]
    )
    sys.stdout.write("\n" + json.dumps(answers))
