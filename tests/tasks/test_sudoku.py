"""Sudoku against a solver in plain Python: generator, solver, symmetries, splits, files, and the rules."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.base import canonical
from pipeline.config.code import files_of
from pipeline.config.tasks.puzzles import GENERATED_BLANKS, Sudoku, SudokuEvaluation
from pipeline.storage import native
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks import puzzles, sudoku
from tests.tasks.puzzle_rows import boards_of, task_of

SIDES = pytest.mark.parametrize("side", [4, 6, 9])
EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def peers(side: int, cell: int) -> list[int]:
    """The cells that share a row, column or box with a cell."""
    high, wide = {4: (2, 2), 6: (2, 3), 9: (3, 3)}[side]
    row, column = divmod(cell, side)
    others = [divmod(other, side) for other in range(side**2)]
    return [
        other
        for other, (i, j) in enumerate(others)
        if other != cell and (i == row or j == column or (i // high == row // high and j // wide == column // wide))
    ]


PEERS = {side: [peers(side, cell) for cell in range(side**2)] for side in (4, 6, 9)}


def solutions(side: int, board: list[int]) -> Iterator[list[int]]:
    """Every solution of a board, by backtracking on the cell with the fewest digits left."""
    left = {cell: set(range(1, side + 1)) - {board[other] for other in PEERS[side][cell]} for cell, digit in enumerate(board) if digit == 0}
    if not left:
        yield board
        return
    cell = min(left, key=lambda cell: len(left[cell]))
    for digit in left[cell]:
        yield from solutions(side, [*board[:cell], digit, *board[cell + 1 :]])


def count(side: int, board: list[int], most: int = 2) -> int:
    """The number of solutions, up to `most`."""
    return sum(1 for _, _ in zip(range(most), solutions(side, board), strict=False))


def is_solution(side: int, board: list[int], answer: list[int]) -> bool:
    """Whether an answer keeps the givens and repeats no digit among peers."""
    kept = all(given in (0, digit) for given, digit in zip(board, answer, strict=True))
    return kept and all(
        1 <= digit <= side and digit not in [answer[other] for other in PEERS[side][cell]] for cell, digit in enumerate(answer)
    )


def made(side: int, rows: int, *key: int, **fields: Any) -> tuple[Any, list[list[int]], list[list[int]]]:
    """A task, and boards and answers of its rows as digits."""
    task = task_of(Sudoku(side=side, **fields))  # type: ignore[arg-type]
    rows_made = boards_of(task, rows, "train", side, *key)
    return task, (rows_made.tokens_BT - 1).tolist(), (rows_made.target_BT - 1).tolist()


@SIDES
def test_generated_puzzles_have_one_solution_and_no_clue_too_many(side: int) -> None:
    _, boards, answers = made(side, 3 if side == 9 else 12)
    for board, answer in zip(boards, answers, strict=True):
        assert is_solution(side, board, answer) and count(side, board) == 1
        for cell in [cell for cell, digit in enumerate(board) if digit]:
            assert count(side, [*board[:cell], 0, *board[cell + 1 :]]) == 2


@SIDES
def test_the_solver_agrees_with_another(side: int) -> None:
    """On puzzles with one solution, with clues taken away, and with digits changed to wrong ones."""
    _, boards, _ = made(side, 12)
    rng = np.random.default_rng(0)
    boards += [[0 if rng.random() < 0.1 else digit for digit in board] for board in boards]
    boards += [[(digit % side) + 1 if digit and rng.random() < 0.1 else digit for digit in board] for board in boards[:12]]
    answers, found, guesses = sudoku.solve(side, np.array(boards, np.uint8))
    for board, answer, number in zip(boards, answers.tolist(), found, strict=True):
        broken = any(digit and digit in [board[other] for other in PEERS[side][cell]] for cell, digit in enumerate(board))
        assert number == (0 if broken else count(side, board))
        assert not number or is_solution(side, board, answer)
    assert (guesses >= 0).all() and set(found.tolist()) == {0, 1, 2}


def test_the_blanks_that_the_baseline_counts_on() -> None:
    for side, share in GENERATED_BLANKS.items():
        rows = boards_of(task_of(Sudoku(side=side)), 1000, "train", "blanks", side)  # type: ignore[arg-type]
        assert (rows.tokens_BT == 1).mean() == pytest.approx(share, rel=0.01)
    for origin in ("hard", "clues17", "mix"):
        config = Sudoku(origin=origin)
        share = (boards_of(task_of(config), 3000).tokens_BT == 1).mean()
        assert share * np.log(9) == pytest.approx(config.baseline, rel=0.01)


@SIDES
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 1000))
def test_a_symmetry_keeps_the_puzzle_what_it_is(side: int, seed: int, number: int) -> None:
    task, boards, answers = made(side, 1, seed)
    board, answer = np.array(boards, np.uint8) + 1, np.array(answers, np.uint8) + 1
    other, other_answer = (task.symmetric(board, np.array([number]), given) for given in (board, answer))
    assert is_solution(side, (other[0] - 1).tolist(), (other_answer[0] - 1).tolist()) and count(side, (other[0] - 1).tolist()) == 1
    assert (other > 1).sum() == (board > 1).sum() and np.array_equal(task.split_hash(other), task.split_hash(board))
    assert np.array_equal(task.symmetric(board, np.array([number]), other, inverse=True), board)
    assert np.array_equal(task.symmetric(board, np.array([0]), board), board)


def test_a_symmetry_is_a_function_of_puzzle_and_number() -> None:
    task, boards, _ = made(9, 6)
    board = np.array(boards, np.uint8) + 1
    number = np.array([3, 1, 4, 1, 5, 1000])
    together = task.symmetric(board, number, board)
    alone = [task.symmetric(board[[row]], number[[row]], board[[row]])[0] for row in range(6)]
    assert np.array_equal(together, np.array(alone))
    ways = task.symmetric(np.repeat(board[:1], 1000, 0), np.arange(1, 1001), np.repeat(board[:1], 1000, 0))
    assert len(np.unique(ways, axis=0)) == 1000
    assert (task.symmetric(board, number, np.zeros_like(board)) == 1).all(), "a wrong answer may have padding"


def test_the_hash_tells_puzzles_apart() -> None:
    """Of side 4 it finds the 36 classes of minimal puzzles, as published; of side 9 no two puzzles of the lists are taken for equivalent."""
    task = task_of(Sudoku(side=4))
    task.digits_only = False
    rows = task.fresh(np.arange(3000, dtype=np.uint64))
    assert len(np.unique(task.split_hash(rows.question_BC))) == 36
    board = sudoku.stored_lists()[sudoku.CLUES17].question_BC
    assert len(np.unique(task_of(Sudoku()).split_hash(board))) > 0.999 * len(board)


@pytest.mark.parametrize("fields", [{"side": 4}, {"side": 6}, {"puzzles": 30}, {"origin": "mix"}, {"origin": "hard", "puzzles": 100}])
def test_splits_do_not_meet_up_to_symmetry(fields: dict[str, Any]) -> None:
    task = task_of(Sudoku(**fields))
    hashes = [set(task.split_hash(boards_of(task, 100, split).tokens_BT).tolist()) for split in ("train", "validation", "test")]
    assert not (hashes[0] & hashes[1] or hashes[0] & hashes[2] or hashes[1] & hashes[2])


def test_stored_rows() -> None:
    """Training sees symmetries of the first N puzzles; a test every puzzle once as it is, then its first symmetry."""
    task = task_of(Sudoku(origin="hard", puzzles=20))
    train = boards_of(task, 300, "train").columns
    assert len(set(train["group"])) == 20 and len(set(train["augmentation"])) > 200 and train["augmentation"].max() <= 1000
    more = boards_of(task_of(Sudoku(origin="hard", puzzles=40)), 600, "train").columns
    assert set(train["group"]) < set(more["group"])
    most = len(task.pool("test"))
    rows = boards_of(task, most + 50, "test")
    assert 4000 < most < 6000 and len(np.unique(rows.tokens_BT, axis=0)) == most + 50
    assert (rows.columns["augmentation"][:most] == 0).all() and (rows.columns["augmentation"][most:] == 1).all()
    plain = task_of(Sudoku(origin="hard", symmetries=False))
    assert (boards_of(plain, 50, "train").columns["augmentation"] == 0).all()
    with pytest.raises(UserError, match=f"got {most + 1:,} test rows; expected at most {most:,}"):
        boards_of(plain, most + 1, "test")
    with pytest.raises(UserError, match="got puzzles 1,000,000; expected at most"):
        boards_of(task_of(Sudoku(origin="clues17", puzzles=10**6)), 4)


def test_the_mix_has_its_shares() -> None:
    task = task_of(Sudoku(origin="mix", puzzles=1000))
    origin = task.puzzles.origin_B[task.pool("train")]
    assert [int((origin[:count] == sudoku.HARD).sum()) for count in (100, 1000)] == [64, 640]
    assert (task.puzzles.origin_B[task.pool("test")] == sudoku.HARD).mean() == pytest.approx(0.64, abs=0.001)


def test_the_lists_are_right() -> None:
    """A sample of them, by the solver."""
    for origin, part in sudoku.stored_lists().items():
        sample = part.take(np.arange(0, len(part), 50))
        answer_BC, solutions_B, _ = sudoku.solve(9, sample.question_BC - np.uint8(1))
        assert (solutions_B == 1).all() and np.array_equal(answer_BC + 1, sample.answer_BC)
        assert part.rating_B.mean() == pytest.approx({sudoku.HARD: 33.5, sudoku.CLUES17: 0.46}[origin], rel=0.03)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="got origin hard and side 4; expected side 9"):
        Sudoku(side=4, origin="hard")
    with pytest.raises(ValidationError, match="got 'no.csv', which is no file; expected generated, hard, clues17, mix or the path"):
        Sudoku(origin="no.csv")
    with pytest.raises(ValidationError, match="expected it with a file only"):
        Sudoku(sha256="0" * 64)
    evaluation = SudokuEvaluation(origins=["hard", "generated"])
    assert [task.origin for task in evaluation.points(Sudoku())] == ["hard", "generated"]
    with pytest.raises(ValueError, match="mix without its parts"):
        SudokuEvaluation(origins=["hard", "mix"]).points(Sudoku())
    with pytest.raises(UserError, match="no row has side <= 8, all have side 9"):
        task_of(Sudoku()).generate(4, derive_key("level"), 8)


def written(path: Path, *lines: str) -> Path:
    """A file of puzzles."""
    path.write_text("\n".join(["source,question,answer,rating", *lines]) + "\n")
    return path


def test_a_file(tmp_path: Path) -> None:
    lines = [
        f"own,{''.join(map(str, board))},{''.join(map(str, answer))},{row}" for row, (_, boards, answers) in enumerate([made(9, 60)] * 60)
        for board, answer in [(boards[row], answers[row])]
    ]  # fmt: skip
    path = written(tmp_path / "own.csv", *lines)
    config = Sudoku(origin=str(path))
    assert config.sha256 == file_sha256(path) and canonical(config)["sha256"] == config.sha256
    task = task_of(config)
    rows = boards_of(task, 40)
    assert task.valid(rows.tokens_BT, rows.target_BT).all() and set(rows.columns["origin"]) == {sudoku.FILE}
    assert (rows.columns["group"] == rows.columns["rating"]).all()
    packed = tmp_path / "own.csv.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    assert np.array_equal(boards_of(task_of(Sudoku(origin=str(packed))), 40).tokens_BT, rows.tokens_BT)
    assert Sudoku().variant(origin=str(packed)).model_dump()["sha256"] == file_sha256(packed)
    written(path, *lines[:-1])
    assert Sudoku(**config.model_dump()) == config, "what was planned can be read again"
    sudoku.stored_file.cache_clear()
    with pytest.raises(UserError, match=rf"own.csv: SHA-256 is \w+; expected {config.sha256}, as planned"):
        boards_of(task_of(config), 4)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["a,12,34,5"], r":2: question has 2 characters; expected 81"),
        ([f"a,{EASY},{SOLVED},1", f"a,{EASY},{SOLVED[:-1]},1"], r":3: answer has 80 characters; expected 81"),
        ([f"a,{EASY[:-1]}x,{SOLVED},1"], r":2: question has 'x' in cell 81; expected '.' '0' '1'"),
        ([f"a,{EASY},{SOLVED[1:]}5,1"], r":2: the answer does not have every digit once"),
        ([f"a,{EASY},{SOLVED},1"] * 2 + [f"a,1{EASY[1:]},{SOLVED},1"] * 2, r":4: the answer changes a given of the question; .* 1 other"),
        ([f"a,{'.' * 81},{SOLVED},1"], r":2: more than one solution; expected exactly one"),
        ([f"a,{EASY},{SOLVED},1"] * 99 + [f"a,{'.' * 81},{SOLVED},1"], r":101: more than one solution; expected exactly one"),
        ([f"a,{EASY},{SOLVED}"], r"Expected 4 columns, got 3"),
        ([f"a,{EASY},{SOLVED},hard"], r"invalid value 'hard'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_named(lines: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puzzles, "in_split", lambda hash_B, split: np.ones(len(hash_B), bool))
    with pytest.raises(UserError, match=error) as raised:
        boards_of(task_of(Sudoku(origin=str(written(tmp_path / "wrong.csv", *lines)))), 4)
    assert "\n" not in str(raised.value) and "wrong.csv" in str(raised.value)


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("quizzes,solutions\n1,2\n")
    with pytest.raises(UserError, match=r"wrong.csv:1: no column question; expected columns question and answer"):
        boards_of(task_of(Sudoku(origin=str(path))), 4)


@SIDES
def test_the_rules(side: int) -> None:
    task, boards, answers = made(side, 5)
    question, answer = np.array(boards, np.uint8) + 1, np.array(answers, np.uint8) + 1
    assert task.valid(question, answer).all()
    unfinished, swapped, other = answer.copy(), answer.copy(), task.symmetric(question, np.full(5, 1), answer)
    unfinished[:, 3] = 1
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    given_changed = question.copy()
    given_changed[:, 0] = answer[:, 0] % side + 2
    for wrong in (unfinished, swapped):
        assert not task.valid(question, wrong).any()
    assert not task.valid(given_changed, answer).any()
    assert task.valid(np.ones_like(question), other).all(), "any full board solves an empty one"


def test_text() -> None:
    task = task_of(Sudoku())
    tokens = task.parse(EASY)
    assert task.text(tokens) == EASY and np.array_equal(task.parse("\n".join(EASY[row : row + 9] for row in range(0, 81, 9))), tokens)
    assert np.array_equal(task.parse(EASY.replace(".", "0")), tokens)
    answer, _, _ = sudoku.solve(9, tokens[None] - np.uint8(1))
    assert task.text(answer[0] + 1) == SOLVED
    for text, error in {
        EASY[1:]: "puzzle: got 80 cells; expected 81",
        f"x{EASY[1:]}": "puzzle: got 'x' in cell 1; expected digits 1 to 9",
        f"5{'.' * 80}": "puzzle: got a puzzle with more than one solution; expected exactly one",
        f"55{EASY[2:]}": "puzzle: got a puzzle with no solution; expected exactly one",
    }.items():
        with pytest.raises(UserError, match=error):
            task.parse(text)


def test_what_is_compiled_belongs_to_the_code() -> None:
    assert {"pipeline/tasks/sudoku.c", "pipeline/tasks/random.h", "pipeline/tasks/puzzles.py"} <= files_of(Sudoku()).keys()


def test_without_a_compiler_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(source: Path) -> None:
        raise native.NotAvailable("no C compiler found")

    monkeypatch.setattr(native, "load", none)
    puzzles.library.cache_clear()
    with pytest.raises(
        UserError, match="sudoku: its generator is not available: no C compiler found; expected a C compiler, or the container"
    ):
        boards_of(task_of(Sudoku()), 4)
    puzzles.library.cache_clear()
