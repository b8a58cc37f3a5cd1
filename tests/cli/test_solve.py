"""`pipeline solve` and `pipeline submission` on tiny trained runs: their answers are those of the evaluation, their errors one line."""

from __future__ import annotations

import gzip
import io
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.arc_puzzles import listed
from pipeline.config.catalogue import implementation
from pipeline.config.spec_files import load_component, read_spec
from pipeline.evaluation.arc_votes import check_submission
from pipeline.evaluation.schemas import read_evaluation, read_results
from pipeline.in_process import run_plan
from pipeline.plan import plan_file
from pipeline.tasks.arc_grids import read_set
from tests.cli.conftest import TINY, Answer, Call

LEARNER = "{name: deep_supervision, steps: 3, batch_size: 4, validation_rows: 4, evaluate_every: 2, supervision: 2}"
BASES = {
    "boards": ("{name: sudoku, side: 4}", "full_attention", "{rows: 6, supervision: [1, 3], chains: 3, noise: 0.3}"),
    "fixed": ("{name: sudoku, side: 4, origin: puzzles.csv, symmetries: false}", "token_mixing", "{rows: 1}"),
    "mazes": ("{name: maze, side: 7}", "stencil", "{rows: 4, sides: [7, 9], supervision: [2], halt: true}"),
    "length": ("{name: maze, side: 5}", "token_mixing", "{rows: 4}"),
    "grids": (
        "{name: arc, training_sets: [arc1_training], test_set: concept_minimal, side: 6, augmentations: 9}",
        "full_attention",
        "{votes: 4, supervision: [1, 2]}",
    ),
}
EXPERIMENT = """\
  {name}:
    question: Is it solved?
    base:
      task: {task}
      network: {{name: recursive, mixer: {mixer}, width: 8, depth: 1, outer: 1, inner: 1}}
      learner: {learner}
      evaluate: {evaluate}
    figures: [learning_curves]
"""
CONFIG = TINY + "".join(
    EXPERIMENT.format(name=name, task=task, mixer=mixer, learner=LEARNER, evaluate=evaluate)
    for name, (task, mixer, evaluate) in BASES.items()
)
SUDOKU = ".1..3.....2...14"


def puzzles_csv(count: int = 200) -> str:
    """Different Sudokus and their solutions: in all splits."""
    task = implementation(load_component("task", {"name": "sudoku", "version": 1, "side": 4}))
    maker = task(load_component("task", {"name": "sudoku", "version": 1, "side": 4}))
    boards = maker.fresh(np.arange(count, dtype=np.uint64))
    lines = [f"{maker.text(question)},{maker.text(answer)}" for question, answer in zip(boards.question_BC, boards.answer_BC, strict=True)]
    return "\n".join(["question,answer", *lines]) + "\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every experiment; the csv file is named relative to it."""
    folder = tmp_path_factory.mktemp("solved")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "puzzles.csv").write_text(puzzles_csv())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_plan(plan_file(Path("config.yaml")), Path("results"))[0] == 0
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, and the current one; tests change nothing in it."""
    monkeypatch.chdir(trained)
    return trained


def run_of(folder: Path, experiment: str) -> str:
    (entry,) = read_spec(folder / "results" / "experiments" / experiment / "experiment.yaml")["runs"]
    return entry["run"]


def rows_of(folder: Path, experiment: str) -> tuple[Any, list[dict[str, Any]]]:
    """The task's implementation and the rows of the evaluation that have their tokens."""
    run = run_of(folder, experiment)
    (file,) = (folder / "results" / "evaluations" / run).glob("*.parquet")
    config = load_component("task", read_spec(folder / "results" / "runs" / run / "run.yaml")["task"])
    return implementation(config)(config), [row for row in read_evaluation(file)[0].to_pylist() if row["prompt"]]


def probability(q: float) -> str:
    return f"q {1 / (1 + math.exp(-q)):.3f}"


def test_answers_are_those_of_the_evaluation(here: Path, call: Call) -> None:
    task, rows = rows_of(here, "boards")
    assert {row["supervision"] for row in rows} == {1, 3} and len(rows) == 6
    for row in rows:
        words = ["--steps", str(row["supervision"]), "--chains", "3", "--noise", "0.3", "--all-steps"]
        answer = call("solve", run_of(here, "boards"), task.text(np.array(row["prompt"])), *words)
        shown = answer.out.splitlines()[1 + row["supervision"]]
        assert shown.split()[:3] == ["step", str(row["supervision"]), task.text(np.array(row["answer"]))]
        assert probability(row["q"]) in shown and ("not valid" in shown) != bool(row["valid"])
        assert f"attempt {row['attempt'] + 1} of 3" in shown
        assert answer.code == (not row["valid"])


def test_mazes_of_any_side(here: Path, call: Call, tmp_path: Path) -> None:
    task, rows = rows_of(here, "mazes")
    assert {row["side"] for row in rows} == {7, 9}
    for row in rows:
        side = row["side"]
        own = implementation(task.config)(task.config.variant(side=side))
        maze, answer = (own.text(np.array(row[name], np.uint8)) for name in ("prompt", "answer"))
        (tmp_path / "maze.txt").write_text(maze + "\n")
        steps = row["halting_step"] or 2
        found = call("solve", Path("results") / "runs" / run_of(here, "mazes"), tmp_path / "maze.txt", "--steps", steps, "--all-steps")
        assert found.out.splitlines()[-1 - side : -1] == answer.split("\n")
        assert found.code == (not row["valid"])


def test_grids_with_their_identifiers(here: Path, call: Call, tmp_path: Path) -> None:
    task, rows = rows_of(here, "grids")
    (row, _) = [row for row in rows if row["augmentation"] == 0]
    name = task.names[row["group"]]
    run = run_of(here, "grids")
    (tmp_path / f"{name}.json").write_text(json.dumps(read_set("concept_minimal")[name]))
    for given in (name, tmp_path / f"{name}.json"):
        found = call("solve", run, given, "--steps", "1")
        assert found.code == 1 and found.out.count(f"identifier {row['identifier']}, of {name} as it is") == 3
        assert found.out.count("wrong after 1 step") == 3 and "valid" not in found.out
        assert probability(row["q"]) in found.out
    known = call("solve", run, name, "--steps", "2", "--votes", "4")
    assert known.code == 1 and " of 4 votes  q " in known.out and "wrong" in known.out
    unknown = call("solve", run, '{"train": [], "test": [{"input": [[1, 2], [3, 4]]}]}', "--steps", "1")
    assert unknown.code == 0
    assert "puzzle: test 0: identifier 0, as the puzzle was not trained on" in unknown.out
    assert unknown.out.endswith("answered in 1 step; the solution is not known\n")


def test_votes_are_those_of_the_evaluation(here: Path, call: Call) -> None:
    task, _ = rows_of(here, "grids")
    run = run_of(here, "grids")
    (file,) = (here / "results" / "evaluations" / run).glob("*.parquet")
    rows = [row for row in read_evaluation(file)[0].to_pylist() if row["augmentation"] == 0 and row["supervision"] == 2]
    assert len(rows) == task.config.selection.test_pairs
    for row in rows[:4]:
        shown = call("solve", run, task.names[row["group"]], "--steps", "2", "--votes", "4").out
        one = shown.split(f"test {row['pair']}: ")[1].split("test ")[0]
        grids = ["\n".join("".join(map(str, line)) for line in row[name]) for name in ("attempt_1", "attempt_2") if row[name]]
        assert all(grid in one for grid in grids) and one.count("attempt ") == len(grids)


@pytest.mark.parametrize("margin", ["whole", "spaces at the end missing"])
def test_a_maze_with_an_open_margin_keeps_its_side(margin: str, here: Path, call: Call, tmp_path: Path) -> None:
    """Of the run's side, 7: its outer rows and columns are spaces, which an editor may have removed."""
    inner = ["S   #", "### #", "    #", " ### ", "    G"]
    lines = [" " * 7, *(f" {line} " for line in inner), " " * 7]
    lines = lines if margin == "whole" else [line.rstrip() for line in lines]
    (tmp_path / "maze.txt").write_text("\n".join(lines) + "\n")
    found = call("solve", run_of(here, "mazes"), tmp_path / "maze.txt", "--steps", "1")
    assert not found.err and len(found.out.splitlines()) == 1 + 1 + 7 + 1


class Perfect:
    """Stands in for the solver's network: it answers with the solution from the second step on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pipeline.evaluation import solver
        from pipeline.evaluation.solving import Answers
        from pipeline.tasks.sudoku import BLANK, boards_like, solve

        def steps(network: Any, batch: Any, settings: Any, device: Any) -> Any:
            tokens_BT = batch.tokens_BT.numpy().astype(np.uint8)
            answer_BT = solve(4, boards_like(tokens_BT, BLANK))[0] + np.uint8(BLANK)
            for step in settings.supervision:
                number_B = np.full(len(tokens_BT), float(step))
                yield Answers(tokens_BT if step == 1 else answer_BT, number_B, number_B, number_B, number_B, np.zeros(len(tokens_BT)))

        monkeypatch.setattr(solver, "solve_steps", steps)


def test_it_stops_at_the_first_valid_answer(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Perfect(monkeypatch)
    run = run_of(here, "boards")
    answer = call("solve", run, SUDOKU, "--steps", "4")
    assert answer == Answer(
        0,
        f"puzzle:\n  puzzle  {SUDOKU}\nstep   1  {SUDOKU}  q 0.731  not valid\n"
        "step   2  4132324114232314  q 0.881  valid\nsolved in 2 steps\n",
        "",
    )
    assert call("solve", run, SUDOKU, "--steps", "1").code == 1
    everything = call("solve", run, SUDOKU, "--steps", "4", "--all-steps")
    assert everything.code == 0 and everything.out.count("step  ") == 4 and everything.out.endswith("solved in 2 steps\n")


def test_puzzles_come_from_files_and_standard_input(here: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Perfect(monkeypatch)
    run = run_of(here, "boards")
    rows = "\n".join(SUDOKU[start : start + 4] for start in range(0, 16, 4))
    (tmp_path / "one.txt").write_text(rows + "\n")
    (tmp_path / "two.txt").write_text(f"{SUDOKU}\n\n{SUDOKU}\n")
    (tmp_path / "two.csv").write_text(f"source,question,answer\nme,{SUDOKU},{SUDOKU}\nme,{SUDOKU},\n")
    for name, where in (("one.txt", [""]), ("two.txt", [":1", ":3"]), ("two.csv", [":2", ":3"])):
        answer = call("solve", run, tmp_path / name)
        assert answer.code == 0, answer.err
        assert [line for line in answer.out.splitlines() if name in line] == [f"{tmp_path / name}{place}:" for place in where]
        assert ("2 of 2 solved" in answer.out) == (len(where) == 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO(rows))
    assert call("solve", run, "-").code == 0
    assert call("solve", run, rows).code == 0


MAZE = "S    \n### #\n    #\n ####\n    G"
WRONG = [
    ("boards", SUDOKU.replace("1", "x"), "puzzle: got 'x' in cell 2; expected digits 1 to 4, and . or 0 for a blank"),
    ("boards", SUDOKU + ".", "puzzle: got 17 cells; expected 16, a board of side 4"),
    ("boards", "." * 16, "puzzle: got a puzzle with more than one solution; expected exactly one"),
    ("boards", "11" + "." * 14, "puzzle: got a puzzle with no solution; expected exactly one"),
    ("boards", "nothing.txt", "nothing.txt: no such file; expected one, a puzzle, or - for standard input"),
    ("boards", "-", "standard input: empty; expected a puzzle"),
    ("boards", "wrong.csv", "wrong.csv: no column question; expected a column question with a puzzle in every row"),
    ("boards", "empty.csv", "empty.csv:4: no question; expected a puzzle in every row"),
    ("boards", "wrong.csv.xz", "wrong.csv.xz: "),
    ("boards", "wrong.csv.gz", "wrong.csv.gz: "),
    ("boards", "wrong.txt", "wrong.txt: not text in UTF-8; expected puzzles"),
    ("mazes", MAZE.replace(" G", "#G").replace("### #", "#####"), "puzzle: got a maze without a path from S to G; expected one"),
    ("mazes", MAZE.replace("S", " "), "puzzle: got 0 cells S; expected exactly one"),
    ("mazes", MAZE.replace("S", "o"), "puzzle: got 'o' in line 1, column 1; expected # for a wall"),
    ("mazes", "S  \n## \nG  ", "puzzle: got side 3; expected 5 to 128"),
    ("mazes", "S#G" + " " * 23, "puzzle: got 26 cells in one line; expected a square number"),
    ("mazes", MAZE + "\n     ", "puzzle: got 6 lines of at most 5 cells; expected a square"),
    ("mazes", "\n".join(line + " " for line in MAZE.split("\n")), "puzzle: got 5 lines of at most 6 cells; expected a square"),
    ("length", MAZE.replace("\n", " \n") + "\n", None),
    ("length", "\n".join(line + "  " for line in MAZE.split("\n")) + "\n      #\n      #", "puzzle: cells of 49, but the network of "),
    ("grids", "00000000", "00000000: neither a puzzle of the run's task nor JSON; expected one of them, a file, or -"),
    ("grids", "{no json", "puzzle: not JSON (Expecting property name"),
    ("grids", '{"test": ' + "[" * 100_000, "puzzle: not JSON ("),
    ("grids", '{"train": []}', 'puzzle: expected a puzzle, {"train": [{"input": grid, "output": grid}, ...], "test": [{"input": grid}, ...]}'),
    ("grids", json.dumps({"train": [], "test": [{"input": [[0] * 31] * 31}]}), "puzzle: test 0 input: a grid of 31 x 31 cells; expected at most 6"),
    ("grids", json.dumps({"train": [], "test": [{"input": [[0]], "output": [[10]]}]}), "puzzle: test 0 output: colour 10; expected 0..9"),
    ("tiny", "1234", "copy-gru-s0-"),
]  # fmt: skip


@pytest.mark.parametrize(("experiment", "puzzle", "message"), WRONG, ids=lambda value: str(value)[:20])
def test_errors_are_one_line(
    experiment: str, puzzle: str, message: str | None, trained: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    Path("wrong.csv").write_text("answer\n1\n")
    Path("empty.csv").write_text(f"question,answer\n{SUDOKU},\n\n,{SUDOKU}\n")
    Path("wrong.csv.xz").write_bytes(b"\xfd7zXZ\0no")
    Path("wrong.csv.gz").write_bytes(gzip.compress(b"question,answer\n")[:10] + b"\xff" * 20)
    Path("wrong.txt").write_bytes(b"\xff\xfe")
    before = sorted(tmp_path.iterdir())
    answer = call("solve", trained / "results" / "runs" / run_of(trained, experiment), puzzle, "--steps", "1")
    if message is None:
        assert answer.code == 1, answer.err
        return
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(message) and answer.err.count("\n") == 1, answer.err
    assert sorted(tmp_path.iterdir()) == before


def test_errors_about_the_run_are_one_line(here: Path, call: Call, tmp_path: Path) -> None:
    run = run_of(here, "boards")
    unfinished = tmp_path / "results" / "runs" / run
    shutil.copytree(here / "results" / "runs" / run, unfinished)
    (unfinished / "manifest.json").unlink()
    for words, message in (
        (["nothing", SUDOKU], "results/runs/nothing: no such run"),
        ([unfinished, SUDOKU], f"{unfinished / 'manifest.json'}: no such file"),
        ([run, SUDOKU, "--votes", "3"], f"--votes: symmetries vote on puzzles of arc only; the task of {run} is sudoku"),
        ([run, SUDOKU, "--checkpoint", "best"], f"{run}: checkpoint best: not kept; expected model or one of last"),
        ([run, SUDOKU, "--chains", "4"], "--chains: got 4 attempts that start alike; expected --noise above 0"),
        ([run, SUDOKU, "--noise", "nan"], "pipeline solve: invalid value for '--noise': nan is no number"),
        ([run, SUDOKU, "--steps", "0"], "pipeline solve: invalid value for '--steps': 0 is not in the range"),
        ([run_of(here, "tiny"), "1234"], f"{run_of(here, 'tiny')}: its task is copy; expected a run of a task of puzzles"),
        ([run_of(here, "grids"), rows_of(here, "grids")[0].names[0], "--votes", "11"], ": test 0: got 11 votes; expected at most 10"),
    ):  # fmt: skip
        answer = call("solve", *words)
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.count("\n") == 1
        assert message in answer.err


def test_a_submission_has_the_votes_of_the_evaluation(here: Path, call: Call, tmp_path: Path) -> None:
    task, _ = rows_of(here, "grids")
    run = run_of(here, "grids")
    answer = call("submission", run, "--out", tmp_path / "submission.json", "--steps", "1")
    assert answer == Answer(0, "", "")
    written = json.loads((tmp_path / "submission.json").read_text())
    check_submission(written, {name: puzzle.tests for name, puzzle in listed()["concept_minimal"].items()})
    (file,) = (here / "results" / "evaluations" / run).glob("*.parquet")
    for row in read_evaluation(file)[0].to_pylist():
        if row["augmentation"] == 0 and row["supervision"] == 1 and row["attempt_1"]:
            assert written[task.names[row["group"]]][row["pair"]] == {
                "attempt_1": row["attempt_1"],
                "attempt_2": row["attempt_2"] or row["attempt_1"],
            }
    assert json.loads(call("submission", run).out).keys() == written.keys()


def test_errors_of_a_submission_are_one_line(here: Path, call: Call, tmp_path: Path) -> None:
    run = run_of(here, "grids")
    results = tmp_path / "results"
    for part in ("runs", "evaluations"):
        shutil.copytree(here / "results" / part / run, results / part / run)
    (name,) = [path.stem for path in (results / "evaluations" / run).glob("*.parquet")]
    for words, message in (
        ([run_of(here, "boards")], "0 evaluations with votes in "),
        ([run, "--steps", "7"], "7 supervision steps: not measured; expected 1 or 2"),
        ([run, "--evaluation", "x"], f"x.parquet: no such file; expected one of {name}"),
        ([run, "--out", "submission.txt"], "expected a file name ending in .json"),
        ([results / "runs" / run], "dataset.yaml"),
    ):
        answer = call("submission", *words)
        assert (answer.code, answer.out) == (2, ""), answer
        assert message in answer.err and answer.err.count("\n") == 1


def test_points_have_what_was_trained(here: Path) -> None:
    expected = {"boards": {"origin", "supervision"}, "mazes": {"side", "supervision"}, "grids": {"supervision"}}
    for name, points in expected.items():
        table, note = read_results(here / "results" / "experiments" / name / "results.parquet")
        assert set(note.points) == points
        rows = table.to_pylist()
        assert {(row["supervision_least_trained"], row["supervision_most_trained"]) for row in rows} == {(1, 2)}
        assert all(row[note.measurement.primary] is not None for row in rows)
        assert all(row["in_training"] == 0 for row in rows)
    sides = read_results(here / "results" / "experiments" / "mazes" / "results.parquet")[0].to_pylist()
    assert {(row["side"], row["side_least_trained"], row["side_most_trained"]) for row in sides} == {(7, 7, 7), (9, 7, 7)}
