"""Which ARC puzzles there are, and which of them a task is made of; their grids are read elsewhere.

The list, `resources/arc/puzzles.csv`, is read at the first use.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.storage.errors import MissingFileError

ARC_FOLDER = Path(__file__).resolve().parents[2] / "resources" / "arc"
ArcSet = Literal["arc1_training", "arc1_evaluation", "arc2_training", "arc2_evaluation", "concept", "concept_minimal"]
"""The published sets, oldest first."""

TWINS = (("070dd51e", "40853293"), ("50a16a69", "caa06a1f"))
"""Puzzles with a test pair in common up to symmetry, though they have different names; there are no others."""

HELD_OUT = range(10, 15)
"""Buckets, out of 100, of a puzzle's hash that are held out for validation: those of every task's validation rows."""


class ArcPuzzle(NamedTuple):
    """A puzzle in the list.

    side: longest side of its grids. repeated: test pairs that are a demonstration too, up to symmetry. hash: the same for all its symmetries.
    """

    set: str
    name: str
    side: int
    demonstrations: int
    tests: int
    repeated: int
    hash: str

    @property
    def held_out(self) -> bool:
        """Whether its test pairs are validation rows where the puzzle is in a training set."""
        return int(self.hash, 16) % 100 in HELD_OUT


class ArcSelection(NamedTuple):
    """The puzzles of a task, in the order in which they are counted: first those measured.

    left_out: puzzles with a grid that is too large. twins: puzzles of training sets that share a pair with another one.
    """

    measured: tuple[ArcPuzzle, ...]
    trained: tuple[ArcPuzzle, ...]
    left_out: int
    twins: int

    @property
    def puzzles(self) -> tuple[ArcPuzzle, ...]:
        """All of them."""
        return self.measured + self.trained

    @property
    def test_pairs(self) -> int:
        """Test pairs of the measured puzzles."""
        return sum(puzzle.tests for puzzle in self.measured)

    @property
    def validation_pairs(self) -> int:
        """Test pairs of the held-out puzzles."""
        return sum(puzzle.tests for puzzle in self.trained if puzzle.held_out)


@functools.cache
def listed() -> dict[str, dict[str, ArcPuzzle]]:
    """Every puzzle by set and name. Raises MissingFileError."""
    path = ARC_FOLDER / "puzzles.csv"
    found: dict[str, dict[str, ArcPuzzle]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for name, puzzle, *counts, digest in list(csv.reader(file))[1:]:
                side, demonstrations, tests, repeated = map(int, counts)
                found.setdefault(name, {})[puzzle] = ArcPuzzle(name, puzzle, side, demonstrations, tests, repeated, digest)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; restore the repository's folder resources") from None
    return found


def shared(training_set: str, test_set: str) -> int:
    """Puzzles that two sets have in common."""
    return len(listed()[training_set].keys() & listed()[test_set].keys())


@functools.lru_cache(maxsize=64)
def select(training_sets: tuple[str, ...], test_set: str, side: int) -> ArcSelection:
    """The puzzles of some training sets and a test set whose grids fit into `side` x `side` cells.

    A puzzle in two training sets is that of the older set; one with a pair in common with another, see TWINS, is there once.
    """
    measured = [puzzle for puzzle in listed()[test_set].values() if puzzle.side <= side]
    known = {puzzle.name for puzzle in measured}
    left_out, twins, trained = len(listed()[test_set]) - len(measured), 0, []
    for puzzle in (puzzle for name in training_sets for puzzle in listed()[name].values() if puzzle.name not in known):
        if any(puzzle.name in pair and known & set(pair) for pair in TWINS):
            twins += 1
        elif puzzle.name not in known and puzzle.side > side:
            left_out += 1
        elif puzzle.name not in known:
            known.add(puzzle.name)
            trained.append(puzzle)
    return ArcSelection(tuple(measured), tuple(trained), left_out, twins)
