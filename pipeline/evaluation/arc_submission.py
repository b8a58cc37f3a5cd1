"""ARC's official file of two answers to every test pair, from the evaluation of a run. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.arc_puzzles import listed
from pipeline.config.spec_files import load_component, read_spec
from pipeline.evaluation.arc_votes import KEYS, check_submission
from pipeline.evaluation.schemas import read_evaluation
from pipeline.storage.errors import MissingFileError, UserError

NO_ANSWER = [[0]]
"""For a test pair that no answer has a grid for."""


def arc_submission(run: Path, evaluation: str | None = None, steps: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return `{puzzle: [{"attempt_1": grid, "attempt_2": grid}, ...]}`, checked, of `results/runs/{run}`.

    evaluation: its identifier, by default the only one that has votes. steps: supervision steps, by default the most that were measured.
    Puzzles that are too large for the run's task are answered by one black cell.

    Raises MissingFileError, CorruptFileError or UserError, one line, if there is no such evaluation, or it has not every test pair.
    """
    table = _at_steps(*_evaluation(run, evaluation), steps)
    (dataset,) = set(table.column("dataset").to_pylist()) or {""}
    task = load_component("task", read_spec(run.parents[1] / "datasets" / dataset / "dataset.yaml", "dataset")["task"])
    tests = {name: puzzle.tests for name, puzzle in listed()[task.test_set].items()}
    found: dict[str, list[dict[str, Any]]] = {
        name: [{key: NO_ANSWER for key in KEYS}] * tests[name] for name in tests if listed()[task.test_set][name].side > task.side
    }
    for row in sorted(table.to_pylist(), key=lambda row: (row["group"], row["pair"])):
        first = row["attempt_1"] or NO_ANSWER
        found.setdefault(task.selection.puzzles[row["group"]].name, []).append(
            dict(zip(KEYS, (first, row["attempt_2"] or first), strict=True))
        )
    check_submission(found, tests)
    return {name: found[name] for name in sorted(found)}


def _evaluation(run: Path, chosen: str | None) -> tuple[Path, pa.Table]:
    """Read the evaluation with votes, without the rows beside symmetry 0."""
    folder = run.parents[1] / "evaluations" / run.name
    files = {path.stem: path for path in sorted(folder.glob("*.parquet")) if path.stem.startswith("arc-") or path.stem == chosen}
    if chosen is not None and chosen not in files:
        raise MissingFileError(f"{folder / chosen}.parquet: no such file; expected one of {', '.join(files) or 'none: run the workflow'}")
    names = [chosen] if chosen is not None else list(files)
    if len(names) != 1:
        raise UserError(
            f"{run.name}: {len(names)} evaluations with votes in {folder}; expected one"
            + (f"; --evaluation {' or '.join(names)}" if names else ": evaluate the run on arc")
        )
    path = files[names[0]]
    table, measurement = read_evaluation(path)
    if measurement.name != "arc_votes":
        raise UserError(f"{path}: measured by {measurement.name}; expected an evaluation by arc_votes")
    return path, table.filter(pc.field("augmentation") == 0)


def _at_steps(path: Path, table: pa.Table, steps: int | None) -> pa.Table:
    measured = sorted(set(table.column("supervision").to_pylist()))
    if steps is not None and steps not in measured:
        raise UserError(f"{path}: {steps} supervision steps: not measured; expected {' or '.join(map(str, measured))}")
    return table.filter(pc.field("supervision") == (steps or max(measured)))
