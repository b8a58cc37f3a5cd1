"""Generating, solving and transforming Sudoku and mazes against prototypes in Numba: puzzles per CPU second, medians.

Ours: the tasks' own C, called in batches. The peer's numbers were recorded on one shared core under load with algorithms of the same kind, so
the ratios hold only for a similar machine:

    minimal_9x9        random minimal Sudoku with one solution: clues of a random board removed in random order
    hard_solved        the solution of a hard Sudoku (Sudoku Explainer 11 and above) and the proof that there is no other
    symmetries_9x9     random symmetries of a board; the peer's number is the rate that training at full speed needs
    perfect_30x30      spanning-tree mazes with a path of at least 111 moves
    percolation_30x30  random-wall mazes with a path of at least 111 moves
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np

from benchmarks.common import Row, compare, cpu_seconds, report
from pipeline.config.tasks.puzzles import Maze as MazeConfig
from pipeline.config.tasks.puzzles import Sudoku as SudokuConfig
from pipeline.tasks import sudoku
from pipeline.tasks.maze import Maze

RECORDED = {"minimal_9x9": 946, "hard_solved": 1123, "symmetries_9x9": 200_000, "perfect_30x30": 23_600, "percolation_30x30": 174}
"""Puzzles per CPU second."""
COUNTS = {"minimal_9x9": 4000, "hard_solved": 4000, "symmetries_9x9": 400_000, "perfect_30x30": 20_000, "percolation_30x30": 400}
"""Puzzles in a round."""


def seeds(count: int, key: int) -> np.ndarray:
    """64-bit seeds."""
    return np.random.default_rng(key).integers(2**64, size=count, dtype=np.uint64)


def works() -> dict[str, Callable[[int, int], object]]:
    """The work of each row: a number of puzzles, and a key."""
    task = sudoku.Sudoku(SudokuConfig())
    board_PC = sudoku.stored_lists()[sudoku.HARD].question_BC
    mazes = {walls: Maze(MazeConfig(side=30, min_path=111, walls=walls)) for walls in ("perfect", "percolation")}  # type: ignore[arg-type]

    def chosen(count: int, key: int) -> np.ndarray:
        return board_PC[np.random.default_rng(key).integers(400, 49_000, size=count)]

    return {
        "minimal_9x9": lambda count, key: task.fresh(seeds(count, key)),
        "hard_solved": lambda count, key: sudoku.solve(9, chosen(count, key) - np.uint8(sudoku.BLANK)),
        "symmetries_9x9": lambda count, key: task.symmetric(board := chosen(count, key), np.arange(1, count + 1), board),
        "perfect_30x30": lambda count, key: mazes["perfect"].fresh(seeds(count, key)),
        "percolation_30x30": lambda count, key: mazes["percolation"].fresh(seeds(count, key)),
    }


def speed(name: str, work: Callable[[int, int], object], rounds: int, scale: float) -> Row:
    """One row, in puzzles per CPU second."""
    count = int(COUNTS[name] * scale)
    work(count // 8, 0)
    rates = [count / cpu_seconds(lambda key=key: work(count, key)) for key in range(1, rounds + 1)]
    return compare(name, statistics.median(rates), RECORDED[name], "puzzles/CPU-s")


def main() -> None:
    """Measure every row, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three rounds of a quarter of the puzzles; under a minute")
    parser.add_argument("--rounds", type=int, help="rounds; default 7, with --quick 3")
    arguments = parser.parse_args()
    rounds, scale = arguments.rounds or (3 if arguments.quick else 7), 0.25 if arguments.quick else 1.0
    rows = [speed(name, work, rounds, scale) for name, work in works().items()]
    report(rows, peer="prototypes in Numba, recorded on a shared core", rounds=rounds)


if __name__ == "__main__":
    main()
