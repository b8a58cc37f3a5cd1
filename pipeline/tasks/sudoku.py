"""Sudoku: fill a board so that every row, column and box has every digit once. With `side: 4`, boxes of 2x2:

    tokens   1 3 1 1  1 1 1 2  4 1 1 1  1 1 5 1      . 2 . .     1: blank, 2..5: digits 1..4
    target   5 3 2 4  2 4 3 5  ...                   . . . 1     every cell is scored, givens too
                                                     3 . . .
                                                     . . 4 .

Generated puzzles are minimal: without any of its clues a puzzle would have more than one solution. Rating: the digits that a solver tries
until it finds the solution, after placing every digit that has one place in a unit or is the only one of its cell; 0: it need not try.
Stored puzzles keep their file's rating; in the lists, and in Sudoku-Extreme, it is the same number of the solver tdoku.

Symmetries: digits renamed; bands, rows of a band, stacks, columns of a stack permuted; boards with square boxes transposed. For side 4 digits
are renamed only. The lists: resources/sudoku/README.md. Wang et al. 2025 (HRM), Jolicoeur-Martineau 2025 (TRM).
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.tasks.puzzles import Sudoku as Config
from pipeline.storage.errors import UserError
from pipeline.tasks.base import GOLDEN, hash_weights, mix
from pipeline.tasks.puzzle_files import PuzzleFile, read_puzzle_file
from pipeline.tasks.puzzles import RESOURCES, Puzzles, PuzzleTask, address, boards_like, library

BLANK = 1
SOURCE = Path(__file__).parent / "sudoku.c"
GENERATED, HARD, CLUES17, FILE = range(4)
LISTS = {HARD: "hard.csv.xz", CLUES17: "clues17.csv.xz"}
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box."""


class Sudoku(PuzzleTask):
    """Generator and rules of Sudoku."""

    config: Config
    most_symmetries = 1000

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.digits_only = config.side == 4
        self.shares = {HARD: 0.64, CLUES17: 0.36} if config.origin == "mix" else {}

    def fresh(self, seed_B: np.ndarray) -> Puzzles:
        """Generate a minimal puzzle per seed."""
        board_BC = np.zeros((len(seed_B), self.config.longest), np.uint8)
        answer_BC = np.zeros_like(board_BC)
        self._call("generate", address(seed_B), address(board_BC), address(answer_BC), rows=len(seed_B))
        question_BC, rating_B = board_BC + np.uint8(BLANK), solve(self.config.side, board_BC)[2]
        return Puzzles(question_BC, answer_BC + np.uint8(BLANK), rating_B, self.group_of(question_BC), np.full(len(seed_B), GENERATED))

    def stored(self) -> Puzzles:
        """Return the puzzles of a list or file, checked except for uniqueness."""
        if self.config.origin == "generated":
            return self.limited()
        if not self.config.is_file:
            chosen = {"hard": [HARD], "clues17": [CLUES17], "mix": [HARD, CLUES17]}[self.config.origin]
            return Puzzles.joined([part for origin, part in stored_lists().items() if origin in chosen])
        file = stored_file(self.config.origin, self.config.sha256, self.config.side)
        return Puzzles(file.question_PC, file.answer_PC, file.rating_P, np.arange(len(file.rating_P)), np.full(len(file.rating_P), FILE))

    def check_used(self, chosen_P: np.ndarray) -> None:
        """Raise UserError for a file's puzzle with more than one solution. Solving all of a large file takes minutes."""
        if not self.config.is_file:
            return
        new_P = chosen_P[~self.is_unique_P[chosen_P]]
        _, solutions_B, _ = solve(self.config.side, boards_like(self.puzzles.question_BC[new_P], BLANK))
        if (solutions_B != 1).any():
            raise UserError(f"{self.config.origin}:{new_P[solutions_B != 1].min() + 2}: more than one solution; expected exactly one")
        self.is_unique_P[new_P] = True

    @functools.cached_property
    def is_unique_P(self) -> np.ndarray:
        """Which stored puzzles are known to have one solution."""
        return np.zeros(len(self.puzzles), bool)

    def symmetric(self, question_BC: np.ndarray, number_B: np.ndarray, board_BC: np.ndarray, inverse: bool = False) -> np.ndarray:
        """Apply symmetry `number` of each puzzle to boards, as tokens, or undo it. What is no digit, as in wrong answers, becomes a blank."""
        sums = (boards_like(question_BC).astype(np.uint64) * hash_weights(self.config.longest)).sum(axis=1)
        seed_B = mix(sums + number_B.astype(np.uint64) * GOLDEN)
        board_BC = boards_like(np.clip(board_BC, BLANK, self.config.side + BLANK), BLANK)
        out_BC = np.empty_like(board_BC)
        flags = ctypes.c_int32(self.digits_only), ctypes.c_int32(inverse)
        self._call("transform", address(seed_B), *flags, address(board_BC), address(out_BC), rows=len(board_BC))
        return np.where(number_B[:, None] > 0, out_BC, board_BC) + np.uint8(BLANK)

    def split_hash(self, question_BC: np.ndarray) -> np.ndarray:
        """Hash puzzles, equal for equivalent ones; of side 4, for those that are the same with renamed digits."""
        board_BC, hash_B = boards_like(question_BC, BLANK), np.zeros(len(question_BC), np.uint64)
        self._call("hash", ctypes.c_int32(self.digits_only), address(board_BC), address(hash_B), rows=len(board_BC))
        return hash_B

    def valid(self, tokens_BT: np.ndarray, answer_BT: np.ndarray, label_BT: np.ndarray | None = None) -> np.ndarray:
        """Return which answers are full boards that keep the givens and have every digit once in every row, column and box."""
        tokens_BT, answer_BT = np.asarray(tokens_BT), np.asarray(answer_BT)
        kept_B = ((tokens_BT == BLANK) | (tokens_BT == answer_BT)).all(axis=1)
        return kept_B & is_full_board(self.config.side, answer_BT)

    def text(self, tokens_T: np.ndarray) -> str:
        """Return the cells in row-major order, a blank as a dot: `53..7....6..195...`."""
        return "".join("." if token <= BLANK else str(token - BLANK) for token in np.asarray(tokens_T).tolist())

    def parse(self, text: str, where: str = "puzzle") -> np.ndarray:
        """Return the tokens of a puzzle; blanks are `.` or `0`, white space is skipped. Raises UserError unless it has exactly one solution."""
        side, cells = self.config.side, "".join(text.split())
        letters = letters_of(side)
        wrong = [place for place, letter in enumerate(cells) if letter not in letters]
        if wrong:
            got = f"got {cells[wrong[0]]!r} in cell {wrong[0] + 1}"
            raise UserError(f"{where}: {got}; expected digits 1 to {side}, and . or 0 for a blank")
        if len(cells) != side**2:
            raise UserError(f"{where}: got {len(cells)} cells; expected {side**2}, a board of side {side}")
        tokens_T = np.array([letters[letter] for letter in cells], np.uint8)
        _, (solutions,), _ = solve(side, boards_like(tokens_T[None], BLANK))
        if solutions != 1:
            raise UserError(f"{where}: got a puzzle with {'more than one' if solutions else 'no'} solution; expected exactly one")
        return tokens_T

    def _call(self, function: str, *arguments: Any, rows: int) -> None:
        call(function, self.config.side, rows, *arguments)


def call(function: str, side: int, rows: int, *arguments: Any) -> None:
    """Call a function of the C file."""
    getattr(library(SOURCE), f"sudoku_{function}")(ctypes.c_uint32(side), ctypes.c_size_t(rows), *arguments)


def solve(side: int, board_BC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve boards of digits, 0 blank: a solution of each, the number of solutions (2: more than one), and the digits tried until the first."""
    answer_BC, solutions_B, guesses_B = np.zeros_like(board_BC), np.zeros(len(board_BC), np.int32), np.zeros(len(board_BC), np.int32)
    call("solve", side, len(board_BC), *map(address, (board_BC, answer_BC, solutions_B, guesses_B)))
    return answer_BC, solutions_B, guesses_B


def letters_of(side: int) -> dict[str, int]:
    """Return the token of each character."""
    return {".": BLANK, "0": BLANK, **{str(digit): digit + BLANK for digit in range(1, side + 1)}}


def is_full_board(side: int, tokens_BT: np.ndarray) -> np.ndarray:
    """Return which boards have every digit once in every row, column and box."""
    rows, columns = BOXES[side]
    board = tokens_BT.reshape(-1, side, side)
    boxes = board.reshape(-1, side // rows, rows, side // columns, columns).swapaxes(2, 3).reshape(-1, side, side)
    digits = np.arange(side) + BLANK + 1
    return np.logical_and.reduce([(np.sort(units, axis=2) == digits).all(axis=(1, 2)) for units in (board, board.swapaxes(1, 2), boxes)])


@functools.cache
def stored_lists() -> dict[int, Puzzles]:
    """Read the lists, numbering their puzzles through."""
    found, first = {}, 0
    for origin, name in LISTS.items():
        file = read_puzzle_file(RESOURCES / "sudoku" / name, None, 81, letters_of(9))
        count = len(file.rating_P)
        found[origin] = Puzzles(
            file.question_PC, file.answer_PC, file.rating_P, np.arange(first, first + count), np.full(count, origin, np.int32)
        )
        first += count
    return found


@functools.lru_cache(maxsize=2)
def stored_file(path: str, sha256: str | None, side: int) -> PuzzleFile:
    """Read a user's file. Raises UserError, naming file and line, for an answer that breaks a rule."""
    file = read_puzzle_file(Path(path), sha256, side**2, letters_of(side))
    full_P = is_full_board(side, file.answer_PC)
    file.refuse(~full_P, "the answer does not have every digit once in every row, column and box", "a solution")
    kept_P = ((file.question_PC == BLANK) | (file.question_PC == file.answer_PC)).all(axis=1)
    file.refuse(~kept_P, "the answer changes a given of the question", "its solution")
    return file
