"""ARC's grids: the puzzles' files, the symmetries of a grid, and grids as tokens.

    grid         tokens of a side of 4      0 padding, 1 end of the grid, c + 2 colour c
    3 0 7        5 2 9 1
    0 3 7        2 5 9 1
                 1 1 1 0
                 0 0 0 0

Notation: B = grids, S = cells per side, T = S * S cells.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import math
from typing import Any

import numpy as np

from pipeline.config.arc_puzzles import ARC_FOLDER
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.tasks.base import GOLDEN, mix

PADDING, END, FIRST_COLOUR = range(3)
COLOURS = 10
MOST = 30
"""Cells per side of the largest grid."""

SHA256 = {
    "arc1_training": "64e2f0843cac8f264df2f399b82d47928d4ed32b2bb3aa6d61c54254e60f9560",
    "arc1_evaluation": "ba8f9386ba84f6ff4da004c8c2af2231d156afcd449d1781b060f7372361ad1f",
    "arc2_training": "e03a599a0fd3a042d85568c68510b6ee87e384f9bb5a9dd618142f5cb495bcc0",
    "arc2_evaluation": "a7616c03d2c4ee30f349a88104028facb190ee708b21d54e9c4fdf4593e5dcfe",
    "concept": "a7073348b0e9839609830fa04cf4945f40ded7d8c32b919468a9bd3ac9dfef0e",
    "concept_minimal": "cadb0ded451ea6243cd885fdf206aaf8cf3db98805b333e438fcb9c414ba78ff",
}
"""Of the sets' files: so rows made from other puzzles count as made by other code."""

TURNS = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
"""The eight symmetries of a square, numbered as published: 0 none, 1..3 quarter turns counter-clockwise, 4 left-right, 5 up-down, 6 transposed,
7 about the other diagonal. Of each, where cell (row, column) comes from: transposed or not, then rows and columns of the source flipped or not."""
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
PERMUTATIONS = math.factorial(COLOURS - 1)


@functools.cache
def read_set(name: str) -> dict[str, Any]:
    """Read the puzzles of a set by name: `{"train": [{"input": grid, "output": grid}, ...], "test": [...]}` each.

    Raises MissingFileError or CorruptFileError.
    """
    path = ARC_FOLDER / f"{name}.json.xz"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; restore the repository's folder resources") from None
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise CorruptFileError(f"{path}: not the published puzzles; restore the repository's folder resources")
    return json.loads(lzma.decompress(content))


@functools.cache
def seed_of(puzzle: str) -> int:
    """Return the 64 bits that a puzzle's symmetries derive from."""
    return int.from_bytes(hashlib.sha256(puzzle.encode()).digest()[:8], "little")


def symmetries(seed_B: np.ndarray, k_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the k-th symmetry of each puzzle: one of TURNS, and the colour that each colour becomes, (B, 10).

    Colour 0 stays; k = 0 changes nothing.
    """
    code_B = mix(seed_B.astype(np.uint64) + k_B.astype(np.uint64) * GOLDEN) % np.uint64(len(TURNS) * PERMUTATIONS)
    code_B = np.where(k_B == 0, 0, code_B.astype(np.int64))
    turn_B, rank_B = np.divmod(code_B, PERMUTATIONS)
    return turn_B, np.concatenate([np.zeros((len(k_B), 1), np.int64), 1 + _permutations(rank_B)], axis=1)


def _permutations(rank_B: np.ndarray) -> np.ndarray:
    """Return the permutations of 0..8 of these ranks in lexicographic order, from the digits of a rank in the factorial number system."""
    permutation = np.empty((len(rank_B), COLOURS - 1), np.int64)
    for place in range(COLOURS - 1):
        permutation[:, place], rank_B = np.divmod(rank_B, math.factorial(COLOURS - 2 - place))
    for place in reversed(range(COLOURS - 2)):
        permutation[:, place + 1 :] += permutation[:, place + 1 :] >= permutation[:, place, None]
    return permutation


def symmetry(puzzle: str, k: int) -> tuple[int, np.ndarray]:
    """Return the k-th symmetry of a puzzle: one of TURNS, and the colour that each colour becomes, (10,)."""
    turn_B, colours_BC = symmetries(np.array([seed_of(puzzle)], np.uint64), np.array([k]))
    return int(turn_B[0]), colours_BC[0]


def turn(grid: np.ndarray, number: int) -> np.ndarray:
    """Apply one of TURNS to a grid."""
    transposed, flip_rows, flip_columns = TURNS[number]
    source = grid[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return source.T if transposed else source


def augment(grid: np.ndarray, puzzle: str, k: int) -> np.ndarray:
    """Apply the k-th symmetry of a puzzle to a grid: colours first, then the turn."""
    number, colours = symmetry(puzzle, k)
    return turn(colours[grid], number)


def inverse(grid: np.ndarray, puzzle: str, k: int) -> np.ndarray:
    """Undo `augment`."""
    number, colours = symmetry(puzzle, k)
    return np.argsort(colours)[turn(grid, INVERSE[number])]


def encode(grid: np.ndarray, side: int) -> np.ndarray:
    """Return the tokens of one grid in the top left corner, (T,) uint16."""
    tokens = np.full((side, side), PADDING, np.uint16)
    height, width = grid.shape
    tokens[:height, :width] = grid + FIRST_COLOUR
    tokens[height : height + 1, :width] = END
    tokens[:height, width : width + 1] = END
    return tokens.ravel()


def extents(tokens_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return height and width of the largest rectangle of colours in the top left corner; of equal ones the lowest, 0 and 0 if there is none."""
    side = math.isqrt(tokens_BT.shape[1])
    colour = (tokens_BT >= FIRST_COLOUR) & (tokens_BT < FIRST_COLOUR + COLOURS)
    run_BS = np.logical_and.accumulate(colour.reshape(-1, side, side), axis=2).sum(axis=2)
    width_BS = np.minimum.accumulate(run_BS, axis=1)
    best_B = np.argmax(width_BS * np.arange(1, side + 1), axis=1)
    width_B = np.take_along_axis(width_BS, best_B[:, None], axis=1)[:, 0]
    return np.where(width_B, best_B + 1, 0), width_B


def crop(tokens_T: np.ndarray) -> np.ndarray:
    """Return the grid in the top left corner of one row of tokens: the largest rectangle of colours, as published. It may be empty."""
    side = math.isqrt(len(tokens_T))
    height, width = (int(size[0]) for size in extents(tokens_T[None]))
    return tokens_T.reshape(side, side)[:height, :width].astype(np.int64) - FIRST_COLOUR


def decode(tokens_BT: np.ndarray, puzzles: list[str], k_B: np.ndarray) -> list[np.ndarray]:
    """Return the grid in the top left corner of each row, with the k-th symmetry of its puzzle undone: `inverse` of `crop`, of many rows."""
    side = math.isqrt(tokens_BT.shape[1])
    turn_B, colours_BC = symmetries(np.array([seed_of(puzzle) for puzzle in puzzles], np.uint64), k_B)
    colours_BC, cells_BSS = np.argsort(colours_BC, axis=1), tokens_BT.reshape(-1, side, side)
    sizes = zip(*(size.tolist() for size in extents(tokens_BT)), strict=True)
    return [
        colours[turn(cells[:height, :width].astype(np.int64) - FIRST_COLOUR, INVERSE[number])]
        for cells, colours, number, (height, width) in zip(cells_BSS, colours_BC, turn_B.tolist(), sizes, strict=True)
    ]


def read_grid(value: Any, where: str, side: int) -> np.ndarray:
    """Check a grid that a user wrote as a list of rows. Raises UserError, one line that starts with `where`."""
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise UserError(f"{where}: expected a grid, a list of rows of colours")
    if len(widths := {len(row) for row in value}) > 1:
        raise UserError(f"{where}: rows of {min(widths)} and of {max(widths)} cells; expected rows of equal length")
    if max(len(value), *widths) > side:
        raise UserError(f"{where}: a grid of {len(value)} x {widths.pop()} cells; expected at most {side} x {side}")
    wrong = [cell for row in value for cell in row if type(cell) is not int or not 0 <= cell < COLOURS]
    if wrong:
        raise UserError(f"{where}: colour {wrong[0]!r}; expected 0..{COLOURS - 1}")
    return np.array(value)
