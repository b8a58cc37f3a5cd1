"""The list of ARC's puzzles, from their files, in plain Python: `python -m tests.tasks.arc_index` writes resources/arc/puzzles.csv."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import lzma
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "resources" / "arc"
SETS = ("arc1_training", "arc1_evaluation", "arc2_training", "arc2_evaluation", "concept", "concept_minimal")
HEADER = ("set", "puzzle", "side", "demonstrations", "tests", "repeated", "hash")
PARTS = ("train", "test")
Grid = list[list[int]]
Pair = dict[str, Grid]


@functools.cache
def puzzles(name: str) -> dict[str, Any]:
    """Every puzzle of a set, as published."""
    return json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))


def turned(grid: Grid) -> Grid:
    """A quarter turn, clockwise."""
    return [list(column) for column in zip(*grid[::-1], strict=True)]


def all_eight(grid: Grid) -> list[Grid]:
    """The grid in its eight orientations."""
    found = [grid, [row[::-1] for row in grid]]
    for _ in range(3):
        found += [turned(other) for other in found[-2:]]
    return found


def canonical(pair: Pair) -> str:
    """A text that is equal for two pairs if and only if a symmetry makes one of the other."""
    forms = []
    for both in zip(all_eight(pair["input"]), all_eight(pair["output"]), strict=True):
        colours = {0: 0}
        forms.append(json.dumps([[[colours.setdefault(cell, len(colours)) for cell in row] for row in grid] for grid in both]))
    return min(forms)


@functools.cache
def forms(name: str, puzzle: str) -> dict[str, list[str]]:
    """The canonical texts of a puzzle's demonstrations and of its test pairs."""
    return {part: [canonical(pair) for pair in puzzles(name)[puzzle][part]] for part in PARTS}


def row_of(name: str, puzzle: str) -> tuple[str | int, ...]:
    """A puzzle's row in the list."""
    pairs = puzzles(name)[puzzle]
    side = max(max(len(grid), len(grid[0])) for part in PARTS for pair in pairs[part] for grid in (pair["input"], pair["output"]))
    train, test = forms(name, puzzle).values()
    digest = hashlib.sha256("\n".join(sorted(train + test)).encode()).hexdigest()[:16]
    return name, puzzle, side, len(train), len(test), sum(form in train for form in test), digest


def index() -> str:
    """The whole list."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *(row_of(name, puzzle) for name in SETS for puzzle in puzzles(name))])
    return text.getvalue()


if __name__ == "__main__":
    (FOLDER / "puzzles.csv").write_text(index(), encoding="utf-8")
