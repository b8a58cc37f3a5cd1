"""Mystery Path once more, one board, in plain Python: its rules, what is seen, how a path is searched for, and a picture of each agent."""

from __future__ import annotations

import math
from typing import Any

Tile = tuple[int, int]
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))
TURNS = ["up", "left", "down", "right"]
EIGHTHS = ["up", "up left", "left", "down left", "down", "down right", "right", "up right"]
WAYS = {"up": (0, -1), "left": (-1, 0), "down": (0, 1), "right": (1, 0)}

AGENTS = {
    ("up", False): """
        .##.oooo.##.
        ####oooo####
        ####oooo####
        .##oooooo##.
        oooooooooooo
        oooooooooooo
        oooooooooooo
        oooooooooooo
        .oooooooooo.
        ..oooooooo..
        ...oooooo...
        ....oooo....
    """,
    ("down", True): """
        ....oooo....
        .xxooooooxx.
        .xxxooooxxx.
        .oxxxooxxxo.
        oooxxxxxxooo
        ooooxxxxoooo
        ooooxxxxoooo
        oooxxxxxxooo
        .#xxxooxxx#.
        #xxxooooxxx#
        #xx#oooo#xx#
        .##.oooo.##.
    """,
}
"""Twelve by twelve pixels of an agent: body, hands, cross."""
COLOURS = {".": (0, 0, 0), "o": (250, 204, 153), "#": (50, 50, 50), "x": (255, 0, 0)}


class Board:
    """One episode. `path` is its tiles, right and down from the upper left, origin first."""

    def __init__(self, config: Any, path: list[Tile]) -> None:
        self.config, self.path = config, path
        self.x, self.y = self.middle(path[0])
        self.facing, self.fallen = "up", False
        self.paid: set[Tile] = set()
        self.steps = self.fails = 0

    def middle(self, tile: Tile) -> Tile:
        """The pixel in the middle of a tile."""
        return tile[0] * 12 + 6, tile[1] * 12 + 6

    def go(self, right: int, down: int) -> None:
        """Move by pixels, and stay on the board."""
        self.x = min(max(self.x + right, 6), 78)
        self.y = min(max(self.y + down, 6), 78)

    def obey(self, action: Any) -> None:
        """Do what an agent that stands may do."""
        if self.config.moves == "grid":
            if action in (1, 2):
                self.facing = TURNS[(TURNS.index(self.facing) + (1 if action == 1 else -1)) % 4]
            if action == 3:
                self.go(*(12 * part for part in WAYS[self.facing]))
            return
        words = [word for word in (["", "up", "down"][action[1]], ["", "left", "right"][action[0]]) if word]
        if words:
            self.facing = " ".join(words)
            for word in words:
                self.go(*(part * (3 if len(words) == 1 else 2) for part in WAYS[word]))

    def act(self, action: Any) -> tuple[float, bool, bool]:
        """Reward, whether the goal is reached, whether time is up."""
        if self.fallen:
            self.x, self.y = self.middle(self.path[0])
        else:
            self.obey(action)
        self.steps += 1
        here = (self.x // 12, self.y // 12)
        self.fallen = here not in self.path
        reward = self.config.reward_step
        if here == self.path[-1]:
            return reward + self.config.reward_goal, True, False
        if self.fallen:
            self.fails += 1
            reward += self.config.reward_fall_off
        elif here != self.path[0] and here not in self.paid:
            self.paid.add(here)
            reward += self.config.reward_path_progress
        return reward, False, self.steps == self.config.steps

    def see(self) -> list[float]:
        """The observation in symbols."""
        config, seen = self.config, []
        shown = [(self.x // 12, self.y // 12)]
        shown += [self.path[0]] if config.show_origin else []
        shown += [self.path[-1]] if config.show_goal else []
        for tile in shown:
            seen += [float((x, y) == tile) for y in range(7) for x in range(7)]
        seen += [float(self.facing == way) for way in (TURNS if config.moves == "grid" else EIGHTHS)]
        seen += [float(self.fallen)] if config.visual_feedback else []
        return seen + ([self.x % 12 / 12, self.y % 12 / 12] if config.moves == "continuous" else [])


def picture(agent: str, at: Tile, tiles: dict[Tile, tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """A frame of 84 x 84 pixels: coloured tiles, then an agent of twelve by twelve."""
    frame = [[tiles.get((x // 12, y // 12), (0, 0, 0)) for x in range(84)] for y in range(84)]
    for down, line in enumerate(agent.split()):
        for right, letter in enumerate(line):
            if letter != ".":
                frame[at[1] - 6 + down][at[0] - 6 + right] = COLOURS[letter]
    return frame


def neighbours(tile: Tile) -> list[Tile]:
    """The tiles beside one: right, left, below, above; also outside the board."""
    return [(tile[0] + right, tile[1] + down) for right, down in SIDES]


def around(tile: Tile) -> list[Tile]:
    """The eight tiles around one."""
    return [(tile[0] + right, tile[1] + down) for right in (-1, 0, 1) for down in (-1, 0, 1) if right or down]


def walls(origin: Tile, goal: Tile, inner: set[Tile], outer: list[Tile], count: int) -> set[Tile]:
    """Inner walls, and up to so many of the border's tiles in the order given, of those that are far enough from everything."""
    standing = {tile for tile in inner if 0 < tile[0] < 5 and 0 < tile[1] < 5}
    kept = {origin, goal, *neighbours(origin), *neighbours(goal)}
    free = [tile for tile in outer if tile not in kept and not standing & set(around(tile))]
    return standing | set(free[:count])


def search(origin: Tile, goal: Tile, standing: set[Tile], cost: Any) -> list[Tile]:
    """The path that the careless search finds; `cost(tile, direction)` is what a step costs."""
    paid, hope, came, found, closed = {origin: 0}, {origin: 0.0}, {}, [origin], set()
    while True:
        current = next((tile for tile in found if hope[tile] < hope[found[0]]), found[0])
        if current == goal:
            path = [goal]
            while path[-1] != origin:
                path.append(came[path[-1]])
            return path[::-1]
        found.remove(current)
        closed.add(current)
        for way, tile in enumerate(neighbours(current)):
            if tile in closed or tile in standing or not (0 <= tile[0] < 7 and 0 <= tile[1] < 7):
                continue
            price = paid[current] + cost(current, way)
            if tile not in found:
                found.append(tile)
                paid[tile], came[tile] = price, current
                hope[tile] = price + math.dist(tile, goal)
            elif price < paid[tile]:
                came[tile] = current
