"""Votes on ARC's test pairs: answers to several symmetries of a pair, turned back, are counted; the most frequent ones are the attempts.

Notation: B = predictions, T = cells of a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.evaluation.measurements.arc import ATTEMPTS
from pipeline.storage.errors import UserError
from pipeline.storage.lazy import np
from pipeline.tasks.arc_grids import COLOURS, MOST, decode

Grid = tuple[tuple[int, ...], ...]
"""Rows of colours; empty where a prediction has no grid."""
Pair = tuple[int, int]
"""A test pair: the columns `group` and `pair` of its rows."""
KEYS = ("attempt_1", "attempt_2")
"""Of the two answers that the official rules allow for each test pair."""


class Candidate(NamedTuple):
    """One answer to a test pair: the predictions that gave it, and their mean q, 0..1."""

    grid: Grid
    count: int
    q: float


class Passed(NamedTuple):
    """Share of puzzles solved by so many attempts: as published, the mean over a puzzle's test pairs; as official, 1 if all are right."""

    mean: float
    all: float


def as_grid(cells: np.ndarray) -> Grid:
    """Return an array as a grid."""
    return tuple(map(tuple, cells.tolist())) if cells.size else ()


class Votes:
    """Predictions of test pairs, counted as they come: each distinct grid is kept once, in a byte per cell."""

    def __init__(self, names: list[str]) -> None:
        """names: of the puzzles, by group."""
        self.names = names
        self._q: dict[Pair, dict[bytes, list[float]]] = {}

    def add(self, group_B: np.ndarray, pair_B: np.ndarray, augmentation_B: np.ndarray, tokens_BT: np.ndarray, q_B: np.ndarray) -> None:
        """Count predictions: the columns of their rows, their tokens and q (0..1)."""
        grids = decode(tokens_BT, [self.names[group] for group in group_B.tolist()], augmentation_B)
        for group, pair, grid, q in zip(group_B.tolist(), pair_B.tolist(), grids, q_B.tolist(), strict=True):
            self._q.setdefault((group, pair), {}).setdefault(_packed(grid), []).append(q)

    def pairs(self) -> list[Pair]:
        """Return the test pairs that have predictions, in order."""
        return sorted(self._q)

    def candidates(self, pair: Pair) -> list[Candidate]:
        """Return the candidates of a test pair, those of most predictions first; of equally many, those of the highest mean q."""
        return ranked({_unpacked(packed): qs for packed, qs in self._q[pair].items()})


def _packed(grid: np.ndarray) -> bytes:
    """Return height, width and cells."""
    return bytes(grid.shape) + grid.astype(np.uint8).tobytes()


def _unpacked(packed: bytes) -> Grid:
    return as_grid(np.frombuffer(packed, np.uint8, offset=2).reshape(packed[0], packed[1]))


def count_votes(
    names: list[str], group_B: np.ndarray, pair_B: np.ndarray, augmentation_B: np.ndarray, tokens_BT: np.ndarray, q_B: np.ndarray
) -> dict[Pair, list[Candidate]]:
    """Return the candidates of every test pair that some predictions answer; arguments as of `Votes`."""
    votes = Votes(names)
    votes.add(group_B, pair_B, augmentation_B, tokens_BT, q_B)
    return {pair: votes.candidates(pair) for pair in votes.pairs()}


def ranked(qs: Mapping[Grid, Sequence[float]]) -> list[Candidate]:
    """Rank candidates by their predictions' q, in any order. A prediction without a grid is no candidate: it cannot be submitted."""
    candidates = [Candidate(grid, len(values), math.fsum(values) / len(values)) for grid, values in qs.items() if grid]
    return sorted(candidates, key=lambda candidate: (-candidate.count, -candidate.q, candidate.grid))


def pass_at(votes: Mapping[Pair, Sequence[Candidate]], solutions: Mapping[Pair, np.ndarray]) -> dict[int, Passed]:
    """Return for each number of attempts the share of puzzles solved, of those with votes. A test pair without votes is not solved.

    solutions: the output grids of the test pairs, of all puzzles.
    """
    voted = {group for group, _ in votes}
    places: dict[int, list[float]] = {}
    for (group, pair), cells in solutions.items():
        if group in voted:
            grids = [candidate.grid for candidate in votes.get((group, pair), ())]
            places.setdefault(group, []).append(grids.index(as_grid(cells)) if as_grid(cells) in grids else math.inf)
    found = {}
    for attempts in ATTEMPTS if places else ():
        right = [[place < attempts for place in of_puzzle] for of_puzzle in places.values()]
        mean = math.fsum(sum(pairs) / len(pairs) for pairs in right) / len(right)
        found[attempts] = Passed(mean, sum(map(all, right)) / len(right))
    return found


def submission(votes: Mapping[Pair, Sequence[Candidate]], names: list[str], pairs: Sequence[Pair]) -> dict[str, list[dict[str, Any]]]:
    """Return the first two candidates of every test pair in the official format, `{puzzle: [{"attempt_1": grid, "attempt_2": grid}, ...]}`.

    pairs: the test pairs to answer. A single candidate is repeated; a pair without one is answered by one black cell.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for group, pair in sorted(pairs):
        grids = [[list(row) for row in candidate.grid] for candidate in votes.get((group, pair), ())] or [[[0]]]
        attempts = [grids[min(place, len(grids) - 1)] for place in range(len(KEYS))]
        found.setdefault(names[group], []).append(dict(zip(KEYS, attempts, strict=True)))
    return found


def check_submission(submitted: Any, tests: Mapping[str, int]) -> None:
    """Check a submission. tests: the number of test pairs by puzzle. Raises UserError, one line, for the first thing that is wrong."""
    if not isinstance(submitted, dict):
        raise UserError("submission: expected an object of puzzles")
    if different := sorted(map(str, submitted.keys() ^ tests.keys())):
        what = "no such puzzle" if different[0] in submitted else "not answered"
        raise UserError(f"submission: {different[0]}: {what}; expected exactly the {len(tests)} puzzles of the test set")
    for name, answers in submitted.items():
        if not isinstance(answers, list) or len(answers) != tests[name]:
            found = f"{len(answers)} answers" if isinstance(answers, list) else "no list"
            raise UserError(f"submission: {name}: {found}; expected {tests[name]}, one per test pair")
        for index, answer in enumerate(answers):
            if not isinstance(answer, dict) or answer.keys() != set(KEYS):
                raise UserError(f"submission: {name}[{index}]: expected {' and '.join(KEYS)}, nothing else")
            for key, grid in answer.items():
                if wrong := _complaint(grid):
                    raise UserError(
                        f"submission: {name}[{index}].{key}: {wrong}; expected 1..{MOST} rows of equally many colours 0..{COLOURS - 1}"
                    )


def _complaint(grid: Any) -> str:
    """Return what is wrong with an attempt, empty if nothing is."""
    if not isinstance(grid, list) or not all(isinstance(row, list) for row in grid):
        return "not a list of rows"
    sizes = {len(grid), *map(len, grid)}
    if not grid or min(sizes) < 1 or max(sizes) > MOST:
        return f"{len(grid)} rows of {max(map(len, grid), default=0)} cells"
    if len(set(map(len, grid))) > 1:
        return "rows of different lengths"
    wrong = [cell for row in grid for cell in row if type(cell) is not int or not 0 <= cell < COLOURS]
    return f"colour {wrong[0]!r}" if wrong else ""
