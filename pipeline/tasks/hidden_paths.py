"""Random hidden paths across a board of 7 x 7 tiles, as `memory-gym` 1.0.2 draws them, many at once.

The path leads from a tile on one side to one on the opposite side. Walls are strewn over the board, and a careless best-first search finds
a way between them: it takes the open tile that was found first, or the first that looks better than that one, and each step to a
neighbour costs a random 1 to 8. The tests hold it to that package tile by tile, given the same random numbers.

Notation: B = number of paths, N = tiles of the board (7 y + x), D = directions (right, left, down, up). A tile outside the board has the number N.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SIDE = 7
TILES = SIDE * SIDE
UNSEEN, CLOSED = np.int16(32_766), np.int16(32_767)
"""Keys of tiles that the search has not found, and cannot open. That of an open one is 64 x its place in the order they were found + its number."""

TILE = np.arange(TILES)
X, Y = TILE % SIDE, TILE // SIDE
BORDER = np.flatnonzero((X % (SIDE - 1) == 0) | (Y % (SIDE - 1) == 0))
INNER = np.flatnonzero((X > 0) & (X < SIDE - 2) & (Y > 0) & (Y < SIDE - 2))
"""Where the first walls may stand: not in the last column or row but one, and that is how it is."""


def _table(steps: list[tuple[int, int]]) -> np.ndarray:
    """The tile that each step leads to from each tile; (steps, N + 1), and from outside nowhere."""
    table = np.full((len(steps), TILES + 1), TILES)
    for number, (right, down) in enumerate(steps):
        inside = (X + right >= 0) & (X + right < SIDE) & (Y + down >= 0) & (Y + down < SIDE)
        table[number, :TILES][inside] = (TILE + right + SIDE * down)[inside]
    return table


STEPS = [(1, 0), (-1, 0), (0, 1), (0, -1)]
NEXT = _table(STEPS)
AROUND = _table([*STEPS, (1, 1), (-1, -1), (1, -1), (-1, 1)])
DISTANCE = np.sqrt((X[:, None] - X) ** 2 + (Y[:, None] - Y) ** 2).astype(np.float32)


class Chances(NamedTuple):
    """Every random number that so many paths depend on."""

    origin_B: np.ndarray
    goal_B: np.ndarray
    inner_NB: np.ndarray  # bool: a wall stands on this tile if it may
    outer_B: np.ndarray  # walls on the border at most
    rank_NB: np.ndarray  # border tiles become walls in this order, the smallest first
    cost_DNB: np.ndarray  # uint8, of a step from a tile in a direction


def chances(rows: int, rng: np.random.Generator) -> Chances:
    """Draw them: each of the four sides has the origin as often, tiles of a side are equally likely."""
    side_B, from_B, to_B = rng.integers(4, size=rows), rng.integers(SIDE, size=rows), rng.integers(SIDE, size=rows)
    last = SIDE - 1
    origin_B = np.choose(side_B, [SIDE * from_B, SIDE * from_B + last, from_B, SIDE * last + from_B])
    goal_B = np.choose(side_B, [SIDE * to_B + last, SIDE * to_B, SIDE * last + to_B, to_B])
    return Chances(
        origin_B,
        goal_B,
        rng.integers(100, size=(TILES, rows), dtype=np.uint8) < 33,
        np.where(rng.integers(2, size=rows, dtype=np.uint8), 8, 4),
        rng.random((len(BORDER), rows)),
        rng.integers(1, 9, size=(len(STEPS), TILES, rows), dtype=np.uint8),
    )


def walls(given: Chances) -> np.ndarray:
    """Where walls stand, (N + 1, B); outside the board counts as one.

    On the border they keep away from the others, from both ends of the path and from their neighbours.
    """
    copies = np.arange(len(given.origin_B))
    wall_NB = np.zeros((TILES + 1, len(copies)), bool)
    wall_NB[INNER] = given.inner_NB[INNER]
    free_NB = np.logical_not(wall_NB[AROUND].any(0))
    for end_B in (given.origin_B, given.goal_B):
        free_NB[end_B, copies] = False
        free_NB[NEXT[:, end_B], copies] = False
    rank_NB = np.where(free_NB[BORDER], given.rank_NB, np.inf)
    limit_B = np.sort(rank_NB, axis=0)[given.outer_B - 1, copies]
    wall_NB[BORDER] = np.isfinite(rank_NB) & (rank_NB <= limit_B)
    wall_NB[TILES] = True
    return wall_NB


def find_paths(given: Chances) -> np.ndarray:
    """The place of every tile on its path, 1 at the origin, 0 off the path; path_BN, uint8."""
    came_NB = _search(given, walls(given))
    copies = np.arange(len(given.origin_B))
    back_NB = np.zeros((TILES, len(copies)), np.uint8)
    tile_B, count = given.goal_B.copy(), 1
    while len(copies):
        back_NB[tile_B, copies] = count
        going = tile_B != given.origin_B[copies]
        copies, tile_B, count = copies[going], tile_B[going], count + 1
        tile_B = came_NB[tile_B, copies].astype(np.int64)
    return np.where(back_NB, back_NB.max(0) + np.uint8(1) - back_NB, 0).astype(np.uint8).T.copy()


def _search(given: Chances, wall_NB: np.ndarray) -> np.ndarray:
    """From which tile the search reached each, (N + 1, B)."""
    search = _Search(given, wall_NB)
    came_NB = np.empty(wall_NB.shape, np.uint8)
    while True:
        current_B = search.best()
        going = current_B != search.goal_B
        if not going.all():
            done = ~going
            came_NB[:, search.copies[done]] = search.came_NB[:, done]
            if not going.any():
                return came_NB
            search.keep(going)
            current_B = current_B[going]
        search.expand(current_B)


class _Search:
    """The unfinished searches and what they know of each tile; arrays are flat, tile after tile."""

    def __init__(self, given: Chances, wall_NB: np.ndarray) -> None:
        self.copies, self.goal_B, self.cost_DNB = np.arange(len(given.origin_B)), given.goal_B, given.cost_DNB
        self.key_NB = np.where(wall_NB, CLOSED, UNSEEN)
        self.key_NB[given.origin_B, self.copies] = given.origin_B
        self.paid_NB, self.hope_NB = np.zeros(wall_NB.shape, np.int16), np.zeros(wall_NB.shape, np.float32)
        self.came_NB = np.full(wall_NB.shape, TILES, np.uint8)
        self.found_B = np.ones(len(self.copies), np.int16)

    def keep(self, going: np.ndarray) -> None:
        """Go on with some only."""
        for name in ("copies", "goal_B", "found_B"):
            setattr(self, name, getattr(self, name)[going])
        for name in ("key_NB", "paid_NB", "hope_NB", "came_NB"):
            setattr(self, name, getattr(self, name).compress(going, 1))

    def best(self) -> np.ndarray:
        """The tile that each search expands next."""
        first_B = self.key_NB.min(0)
        hope_B = self.hope_NB[first_B & 63, np.arange(len(first_B))]
        better_B = np.where(self.hope_NB < hope_B, self.key_NB, CLOSED).min(0)
        return (np.where(better_B < UNSEEN, better_B, first_B) & 63).astype(np.int64)

    def expand(self, current_B: np.ndarray) -> None:
        """Close these tiles and open their neighbours, or find a cheaper way to those that are open."""
        count = len(current_B)
        here = np.arange(count)
        key, paid, hope, came = (values.reshape(-1) for values in (self.key_NB, self.paid_NB, self.hope_NB, self.came_NB))
        key[current_B * count + here] = CLOSED
        next_DB = NEXT.take(current_B, 1)
        at_DB = next_DB * count + here
        key_DB = key.take(at_DB)
        cost_DB = self.cost_DNB.reshape(len(STEPS), -1).take(current_B * self.cost_DNB.shape[2] + self.copies, 1)
        paid_DB = paid.take(current_B * count + here) + cost_DB
        new_DB = key_DB == UNSEEN
        order_DB = self.found_B + np.cumsum(new_DB, 0, dtype=np.int16)
        self.found_B = order_DB[-1]
        places = np.flatnonzero(new_DB)
        at, cost = at_DB.reshape(-1).take(places), paid_DB.reshape(-1).take(places)
        tile = next_DB.reshape(-1).take(places)
        key[at], paid[at] = 64 * (order_DB.reshape(-1).take(places) - 1) + tile, cost
        hope[at] = cost + DISTANCE[tile, self.goal_B.take(places % count)]
        places = np.flatnonzero(new_DB | ((key_DB < UNSEEN) & (paid_DB < paid.take(at_DB))))
        came[at_DB.reshape(-1).take(places)] = current_B.take(places % count)
