"""Mistakes in a config with puzzles: each is one line, with exit code 2, and no row is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.catalogue import implementation
from pipeline.config.tasks import Sudoku
from tests.cli.conftest import Call

TEXT = """\
experiments:
  one:
    question: Is it solved?
    base:
      task: {task}
      network: {network}
      learner: {learner}
      evaluate: {evaluate}
    figures: [learning_curves]
"""
RIGHT = {
    "task": "{name: sudoku, side: 4}",
    "network": "{name: recursive, mixer: full_attention, width: 8, depth: 1}",
    "learner": "{name: deep_supervision, steps: 2, batch_size: 4, validation_rows: 2}",
    "evaluate": "{rows: 4}",
}
WRONG = [
    ({"evaluate": "{supervision: [0]}"}, ":8: experiments.one.base.evaluate.supervision: got 0 in the list; expected values of at least 1"),
    ({"evaluate": "{supervision: [2, 2]}"}, ":8: experiments.one.base.evaluate.supervision: got [2, 2]; expected different values"),
    ({"evaluate": "{measurement: {name: puzzles, supervision: []}}"}, ":8: experiments.one.base.evaluate.measurement: supervision: "),
    (
        {"evaluate": "{chains: 2, noise: 0.1, measurement: puzzles}"},
        ":8: experiments.one.base.evaluate.measurement: got chains and noise beside a measurement; expected its settings within it",
    ),
    (
        {"evaluate": "{measurement: arc_votes}"},
        ":8: experiments.one.base.evaluate.measurement: arc_votes measures votes on test pairs; sudoku has none",
    ),
    (
        {"evaluate": "{chains: 3}"},
        ":8: experiments.one.base.evaluate.chains: got 3 attempts that are all the same; expected noise above 0, or network.start: random",
    ),
    ({"task": "copy"}, ":6: experiments.one.base.network.name: recursive is for puzzles on grids, copy is a token task; expected network: "),
    ({"task": "t_maze", "learner": "ppo"}, ":6: experiments.one.base.network.name: recursive is for puzzles on grids, t_maze is an environment"),
    (
        {"network": "{name: sequence, mixer: full_attention}"},
        ":7: experiments.one.base.learner: deep_supervision trains a network that answers in steps, sequence answers once; expected network: ",
    ),
    (
        {"network": "{name: recursive, mixer: stencil, registers: 1}"},
        ":6: experiments.one.base.network.registers: got registers: 1 with mixer stencil; expected 0: they are no cells of a grid",
    ),
    (
        {"learner": "{name: deep_supervision, rows: 300, halting: halt}"},
        ":7: experiments.one.base.learner.rows: a budget in rows with rows that stay in the batch",
    ),
    (
        {"learner": "{name: deep_supervision, steps: 3, warm_up: random, halting: halt}"},
        ":7: experiments.one.base.learner.halting: got halting: halt with warm_up: random",
    ),
    ({"task": "{name: sudoku, side: 5}"}, ":5: experiments.one.base.task.side: got 5; expected one of 4, 6, 9"),
    ({"task": "{name: sudoku, origin: no.csv}"}, ":5: experiments.one.base.task.origin: got 'no.csv', which is no file; expected generated, "),
    ({"task": "{name: arc, side: 31}"}, ":5: experiments.one.base.task.side: got 31; expected at most 30"),
    (
        {"task": "{name: arc, training_sets: [arc2_training], test_set: arc1_evaluation}"},
        ":5: experiments.one.base.task.training_sets: 376 of the 400 puzzles of arc1_evaluation are in arc2_training too; ",
    ),
    ({"task": "{name: arc, augmentations: 3}", "evaluate": "{votes: 5}"}, ":8: experiments.one.base.evaluate.votes: got 5 votes of 3 augmentations"),
    ({"task": "arc", "evaluate": "{rows: 420}"}, ":8: experiments.one.base.evaluate: got 420 rows; expected at most 419: 419 test pairs x 1 votes"),
    (
        {"task": "{name: maze, side: 9}", "network": "{name: recursive, mixer: token_mixing}", "evaluate": "{sides: [9, 11]}"},
        ":8: experiments.one.base.evaluate: a point of the evaluation has cells 121, the task 81; expected the same: ",
    ),
    (
        {"evaluate": "{supervision: [100001]}"},
        ":8: experiments.one.base.evaluate.supervision: got 100,001 supervision steps; expected at most 100,000",
    ),
    (
        {"network": "{name: recursive, start: fixed, starts: 2}", "evaluate": "{chains: 4}"},
        ":8: experiments.one.base.evaluate.chains: got 4 attempts that start alike with network.starts = 2; expected noise above 0, or ",
    ),
    (
        {"learner": "{name: deep_supervision, steps: 2, halting: halt, q_coef: 0}"},
        ":7: experiments.one.base.learner.q_coef: got q_coef: 0 with halting: halt, so nobody learns to halt; expected q_coef above 0",
    ),
    (
        {"network": "{name: recursive, outer: 2}", "learner": "{name: deep_supervision, steps: 2, gradient: 3}"},
        ":7: experiments.one.base.learner.gradient: got 3 cycles with gradients of network.outer = 2; expected at most that, or all",
    ),
    (
        {"network": "{name: recursive, feedforward: 0, gate_norm: true}"},
        ":6: experiments.one.base.network.gate_norm: gate_norm normalises a feed-forward layer; expected feedforward above 0",
    ),
    ({"task": "{name: maze, side: 9, min_path: 55}"}, ":5: experiments.one.base.task.min_path: got min_path 55 with side 9; expected at most 54"),
    (
        {"task": "{name: arc, augmentations: 0, side: 10}", "learner": "{name: deep_supervision, steps: 2, validation_rows: 1m}"},
        ":7: experiments.one.base.learner.validation_rows: got 1,000,000 rows; expected at most ",
    ),
    ({"task": "maze", "evaluate": "{sides: [3]}"}, ":8: experiments.one.base.evaluate: got side 3; expected 5 to 128"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_mistakes_are_one_line(parts: dict[str, str], message: str, empty: Path, call: Call) -> None:
    Path("config.yaml").write_text(TEXT.format(**{**RIGHT, **parts}))
    answer = call("check", "config.yaml")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert answer.err.startswith(f"config.yaml{message}")
    assert [path.name for path in empty.iterdir()] == ["config.yaml"]


def several_solutions() -> str:
    """Different boards with four clues, in all splits."""
    maker = implementation(Sudoku(side=4))(Sudoku(side=4))
    answers = [maker.text(board) for board in maker.fresh(np.arange(100, dtype=np.uint64)).answer_BC]
    return "question,answer\n" + "".join(f"{answer[:4]}{'.' * 12},{answer}\n" for answer in answers)


BOARD = ".1..3.....2...14,4132324114232314\n"
FILES = [
    ("sudoku", "question,answer\n" + BOARD.replace("4132", "1432"), "puzzles.csv:2: the answer does not have every digit once"),
    ("sudoku", "question,answer\n" + BOARD.replace(".1..", "1..."), "puzzles.csv:2: the answer changes a given of the question"),
    ("sudoku", "q,answer\n" + BOARD, "puzzles.csv:1: no column question; expected columns question and answer"),
    ("sudoku", "question,answer\n" + BOARD[1:], "puzzles.csv:2: question has 15 characters; expected 16"),
    ("sudoku", "question,answer\nx" + BOARD[1:], "puzzles.csv:2: question has 'x' in cell 1; expected '.' '0' '1' '2' '3' '4'"),
    ("sudoku", "question,answer\né" + BOARD[1:], "puzzles.csv:2: question has 'é' in cell 1; expected 16 characters of a board"),
    ("sudoku", "question,answer\n" + BOARD, "puzzles.csv: no puzzle of 1 is of the "),
    ("sudoku", "question,answer\n", "puzzles.csv: Empty CSV file; expected a csv file"),
    ("sudoku", "", "puzzles.csv:1: no column question"),
    ("sudoku", "\0\0", "puzzles.csv:1: no column question"),
    ("sudoku", None, "more than one solution; expected exactly one"),
    ("maze", f"question,answer\nS####{'#####' * 3}####G,S####{'#####' * 3}####G\n", "puzzles.csv:2: no path from S to G; expected one"),
    ("maze", f"question,answer\nS {'#' * 21} G,S {'#' * 21} G\n", "puzzles.csv:2: no path from S to G; expected one"),
    ("maze", f"question,answer\n{'#' * 24}G,{'#' * 24}G\n", "puzzles.csv:2: 0 cells S in the question; expected exactly 1"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "content", "message"), FILES, ids=lambda value: str(value)[:40])
def test_mistakes_in_a_file_are_one_line(task: str, content: str | None, message: str, empty: Path, call: Call) -> None:
    Path("puzzles.csv").write_text(several_solutions() if content is None else content)
    side = {"sudoku": 4, "maze": 5}[task]
    base = {**RIGHT, "task": f"{{name: {task}, side: {side}, origin: puzzles.csv, symmetries: false}}"}
    Path("config.yaml").write_text(TEXT.format(**base))
    answer = call("try", "one")
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err and answer.err.count("\n") == 1
    assert not list(empty.rglob("*.parquet"))
