"""A whole plan in one process: of tuned experiments, only what was tried or chosen is trained and only the chosen is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.choices import read_choices
from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.config.spec_files import write_spec
from pipeline.evaluation.collect import collect
from pipeline.in_process import run_plan
from pipeline.plan import Plan, make_plan
from pipeline.storage.errors import UserError
from pipeline.storage.tables import read_table
from pipeline.training.run_status import run_status

BASE = """
    base:
      task: {name: copy, symbols: 3, delay: 5, alphabet: 4}
      network: {name: sequence, mixer: lru, width: 8, residual: true, norm: rms}
      learner: {name: supervised, steps: 8, batch_size: 4, learning_rate: 0.01, validation_rows: 8, evaluate_every: 4}
      evaluate: {rows: 8}
    sweep: {seed: [0, 1]}
"""
CONFIG = f"""
experiments:
  plain: {BASE}
  rates: {BASE}
    tune: {{learner.learning_rate: [1e-2, 1e-3, 100]}}
    tune_seeds: 1
  hopeless: {BASE}
    tune: {{learner.learning_rate: [100, 90]}}
    tune_seeds: 1
  grown: {BASE.replace("batch_size: 4", "batch_size: 4, parent: plain")}
    tune: {{learner.learning_rate: [1e-2, 2e-2]}}
    tune_seeds: 1
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, str]:
    """The plan, run to its end: its results folder and the tables."""
    results = tmp_path_factory.mktemp("process") / "results"
    plan = make_plan(expand(read_text(CONFIG, "c.yaml")))
    code, tables = run_plan(plan, results)
    assert code == 0
    return plan, results, tables


def test_trials_and_chosen_runs_are_trained(finished: tuple[Plan, Path, str]) -> None:
    plan, results, _ = finished
    trained = {run for run in plan.runs if run_status(results, run).state == "done"}
    assert trained == {*plan.certain_runs(), *plan.shown_runs(results)}
    for name, trials in (("rates", 3), ("hopeless", 2), ("grown", 2)):
        assert len(plan.trials(name)) == trials, "candidates, on the first seed"
        chosen = {entry["run"] for entry in plan.entries(name, results)}
        assert len(chosen) == 2
        assert {entry["run"] for entry in plan.entries(name) if entry["seed"] == 1} & trained <= chosen


def test_only_the_chosen_is_evaluated_and_shown(finished: tuple[Plan, Path, str]) -> None:
    plan, results, tables = finished
    shown = {f"{item.run}/{item.id}" for name in plan.experiments for item in plan.evaluations_of(name, results)}
    assert {f"{path.parent.name}/{path.stem}" for path in (results / "evaluations").glob("*/*.parquet")} == shown
    for name in plan.experiments:
        found = set(read_table(results / "experiments" / name / "results.parquet").column("run").to_pylist())
        assert found == {entry["run"] for entry in plan.entries(name, results)}
    assert tables.count("| LRU") >= 4


def test_if_all_candidates_diverged_the_smallest_is_shown(finished: tuple[Plan, Path, str]) -> None:
    plan, results, _ = finished
    (choice,) = read_choices(plan.experiments["hopeless"].spec, results / "experiments" / "hopeless").values()
    assert choice["values"] == {"learner.learning_rate": 90}
    for entry in plan.entries("hopeless", results):
        assert run_status(results, entry["run"]).detail.startswith("diverged at step ")
    table = (results / "experiments" / "hopeless" / "table.md").read_text()
    assert "Diverged, so measured with initial weights: " in table
    assert "Diverged" not in (results / "experiments" / "rates" / "table.md").read_text()
    (choice,) = read_choices(plan.experiments["rates"].spec, results / "experiments" / "rates").values()
    assert choice["values"] != {"learner.learning_rate": 100}


def test_a_second_time_nothing_is_trained(finished: tuple[Plan, Path, str], capfd: pytest.CaptureFixture[str]) -> None:
    plan, results, tables = finished
    assert run_plan(plan, results) == (0, tables)
    assert "step 0/8" not in capfd.readouterr().err


def test_a_run_that_diverged_is_no_result_without_tune(finished: tuple[Plan, Path, str], tmp_path: Path) -> None:
    """Even if it was evaluated as a candidate of another experiment."""
    plan, results, _ = finished
    spec = {key: value for key, value in plan.experiments["hopeless"].spec.items() if key != "tune"}
    write_spec(tmp_path / "experiment.yaml", {**spec, "runs": plan.entries("hopeless", results)})
    with pytest.raises(UserError, match=" diverged at step "):
        collect(tmp_path / "experiment.yaml", results, tmp_path)
