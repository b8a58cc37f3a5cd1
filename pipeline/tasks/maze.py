"""Maze: mark the shortest path from start to goal, or every cell that can be reached. With `side: 5`:

    question   S   #      answer   S   #      tokens and labels: 1 wall, 2 open (a space), 3 S, 4 G, 5 o
               # ###               #o###      every cell is scored
                   #               ooo
               ### #               ### #
               G                   Goooo      (here S and G are 8 moves apart)

walls: perfect       rooms at even coordinates, passages of a spanning tree (recursive backtracker), S and G random rooms: one path.
walls: percolation   random walls on 30 to 50 % of the cells. S is a random cell, or the farthest from it where that is too near everything;
                     G is a random cell at least `min_path` moves away. Of several shortest paths the label is the one traced from the goal
                     by the first of up, down, left, right that is nearer to the start; each is a solution (`valid`).
asks: reach          percolation of 38 % walls, without G: mark what can be reached from S.

Rating: moves of the shortest path; with `asks: reach`, cells reached. Symmetries: the 8 of the square.
Source: Lehnert et al. 2024 (Searchformer) for percolation with long paths, Wang et al. 2025 (HRM) for Maze-Hard.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.tasks.puzzles import Maze as Config
from pipeline.storage.errors import UserError
from pipeline.tasks.puzzle_files import PuzzleFile, read_puzzle_file
from pipeline.tasks.puzzles import Puzzles, PuzzleTask, address, boards_like, library

LETTERS = {"#": 1, " ": 2, "S": 3, "G": 4, "o": 5}
WALL, OPEN, START, GOAL, MARKED = LETTERS.values()
SOURCE = Path(__file__).parent / "maze.c"
TRIES = 200_000
"""Mazes made until one has a path that is long enough."""


class Maze(PuzzleTask):
    """Generator and rules of mazes."""

    config: Config
    most_symmetries = 7

    @property
    def asks_path(self) -> bool:
        """Whether the answer is a path."""
        return self.config.asks == "path"

    def fresh(self, seed_B: np.ndarray) -> Puzzles:
        """Generate a maze per seed. Raises UserError if paths are never long enough."""
        parts = [self._made(part_B) for part_B in (seed_B[:1], seed_B[1:])]  # if the first is never found, the others are not looked for
        question_BC, answer_BC, moves_B = map(np.concatenate, zip(*parts, strict=True))
        return Puzzles(question_BC, answer_BC, moves_B, self.group_of(question_BC), np.zeros(len(moves_B), np.int32))

    def _made(self, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Generate questions, answers and ratings."""
        config = self.config
        question_BC = np.zeros((len(seed_B), config.longest), np.uint8)
        answer_BC, moves_B = np.zeros_like(question_BC), np.zeros(len(seed_B), np.int32)
        limits = ctypes.c_uint32(config.min_path), ctypes.c_uint32(TRIES)
        asked = () if config.walls == "perfect" else (ctypes.c_int32(self.asks_path),)
        arrays = map(address, (question_BC, answer_BC, moves_B))
        call(config.walls, config.side, len(seed_B), address(seed_B), *limits, *asked, *arrays)
        if (moves_B == 0).any():
            raise UserError(
                f"maze: none of {TRIES:,} mazes of side {config.side} has a path of {config.min_path} moves; expected a smaller min_path"
            )
        return question_BC, answer_BC, moves_B

    def stored(self) -> Puzzles:
        """Return the mazes of a file, checked; or those that training is limited to."""
        if not self.config.is_file:
            return self.limited()
        file = stored_file(self.config.origin, self.config.sha256, self.config.side, self.asks_path)
        return Puzzles(file.question_PC, file.answer_PC, file.rating_P, np.arange(len(file.rating_P)), np.zeros_like(file.rating_P))

    def symmetric(self, question_BC: np.ndarray, number_B: np.ndarray, board_BC: np.ndarray, inverse: bool = False) -> np.ndarray:
        """Turn boards: numbers 0 to 3 are quarter turns, 4 to 7 the same after a reflection. A turned label is still a shortest path."""
        return np.take_along_axis(np.asarray(board_BC), turned_cells(self.config.side, inverse)[number_B], axis=1)

    def split_hash(self, question_BC: np.ndarray) -> np.ndarray:
        """Hash mazes, equal for those that turn into each other."""
        board_BC, hash_B = boards_like(question_BC), np.zeros(len(question_BC), np.uint64)
        call("hash", self.config.side, len(board_BC), address(board_BC), address(hash_B))
        return hash_B

    def valid(self, tokens_BT: np.ndarray, answer_BT: np.ndarray, label_BT: np.ndarray | None = None) -> np.ndarray:
        """Return which answers keep the maze and mark a shortest path, whichever; with `asks: reach`, exactly what can be reached."""
        board_BC, given_BC = boards_like(tokens_BT), boards_like(answer_BT)
        answer_BC, moves_B = solve(self.config.side, board_BC, self.asks_path)
        if not self.asks_path:
            return (given_BC == answer_BC).all(axis=1)
        valid_B = np.zeros(len(board_BC), np.uint8)
        call("check", self.config.side, len(board_BC), *map(address, (board_BC, given_BC, moves_B, valid_B)))
        return valid_B.astype(bool)

    def text(self, tokens_T: np.ndarray) -> str:
        """Return the rows as lines of `#`, space, `S`, `G` and `o`."""
        letters = {token: letter for letter, token in LETTERS.items()}
        cells = "".join(letters.get(token, "?") for token in np.asarray(tokens_T).tolist())
        return "\n".join(cells[start : start + self.config.side] for start in range(0, len(cells), self.config.side))

    def parse(self, text: str, where: str = "puzzle") -> np.ndarray:
        """Return the tokens of a maze: lines as `text` writes them, `.` also for open, spaces at the end may be missing; or all in one line.

        Raises UserError unless it has one start and, if a path is asked for, one goal that can be reached.
        """
        side = self.config.side
        cells = "".join(lines_of(text, side, where))
        allowed = {**LETTERS, ".": OPEN} if self.asks_path else {**LETTERS, ".": OPEN, "G": 0}
        for place, letter in enumerate(cells):
            if letter == "o" or not allowed.get(letter):
                here = f"{where}: got {letter!r} in line {place // side + 1}, column {place % side + 1}"
                raise UserError(f"{here}; expected # for a wall, a space or . for open, S{' and G' if self.asks_path else ''}")
        tokens_T = np.array([allowed[letter] for letter in cells], np.uint8)
        for letter in "SG" if self.asks_path else "S":
            if cells.count(letter) != 1:
                raise UserError(f"{where}: got {cells.count(letter)} cells {letter}; expected exactly one")
        if solve(side, tokens_T[None], self.asks_path)[1][0] < 0:
            raise UserError(f"{where}: got a maze without a path from S to G; expected one")
        return tokens_T


def lines_of(text: str, side: int, where: str) -> list[str]:
    """Split a maze into `side` lines of `side` cells. Raises UserError for another number of cells."""
    lines = text.split("\n")
    if len(lines) == 1 and len(text) == side**2:
        return [text]
    while len(lines) > side and not lines[-1].strip():
        lines.pop()
    while len(lines) > side and not lines[0].strip():
        lines.pop(0)
    if len(lines) != side:
        raise UserError(f"{where}: got {len(lines)} lines; expected {side}, a maze of side {side}")
    if wrong := [number for number, line in enumerate(lines, 1) if len(line.rstrip()) > side]:
        raise UserError(f"{where}: got {len(lines[wrong[0] - 1].rstrip())} cells in line {wrong[0]}; expected at most {side}")
    return [line.rstrip().ljust(side) for line in lines]


def call(function: str, side: int, rows: int, *arguments: Any) -> None:
    """Call a function of the C file."""
    getattr(library(SOURCE), f"maze_{function}")(ctypes.c_uint32(side), ctypes.c_size_t(rows), *arguments)


def solve(side: int, board_BC: np.ndarray, asks_path: bool) -> tuple[np.ndarray, np.ndarray]:
    """Answer mazes that have a start and, if a path is asked for, a goal; also moves, -1 without a path, or the number of cells reached."""
    answer_BC, moves_B = np.zeros_like(board_BC), np.zeros(len(board_BC), np.int32)
    call("solve", side, len(board_BC), ctypes.c_int32(asks_path), *map(address, (board_BC, answer_BC, moves_B)))
    return answer_BC, moves_B


@functools.cache
def turned_cells(side: int, inverse: bool) -> np.ndarray:
    """Return which old cell each new cell comes from, for each of the 8 symmetries."""
    cells = np.arange(side**2).reshape(side, side)
    turned = np.stack([np.rot90(way, turns).reshape(-1) for way in (cells, cells.T) for turns in range(4)])
    return np.argsort(turned, axis=1) if inverse else turned


@functools.lru_cache(maxsize=2)
def stored_file(path: str, sha256: str | None, side: int, asks_path: bool) -> PuzzleFile:
    """Read a user's file, its ratings replaced by moves or cells reached. Raises UserError, naming file and line, for a wrong answer."""
    file = read_puzzle_file(Path(path), sha256, side**2, LETTERS)
    file.refuse((file.question_PC == MARKED).any(axis=1), "'o' in the question", "it in the answer only")
    for letter, count in (("S", 1), ("G", int(asks_path))):
        counted_P = (file.question_PC == LETTERS[letter]).sum(axis=1)
        wrong_P = counted_P != count
        file.refuse(wrong_P, f"{counted_P[wrong_P.argmax()]} cells {letter} in the question", f"exactly {count}")
    answer_PC, moves_P = solve(side, file.question_PC, asks_path)
    file.refuse(moves_P < 0, "no path from S to G", "one")
    if asks_path:
        valid_P = np.zeros(len(moves_P), np.uint8)
        call("check", side, len(moves_P), *map(address, (file.question_PC, file.answer_PC, moves_P, valid_P)))
        file.refuse(valid_P == 0, "the answer is not the maze with a shortest path marked by o", "one")
    else:
        file.refuse((file.answer_PC != answer_PC).any(axis=1), "the answer does not mark exactly what can be reached", "that")
    return file._replace(rating_P=moves_P)
