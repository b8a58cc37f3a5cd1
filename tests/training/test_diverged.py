"""A training that diverges: for a candidate of a tuned experiment a result, the worst; for every other run an error of one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.choices import read_choices
from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.config.spec_files import write_spec
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.runs import load_run
from pipeline.evaluation.tuning import choose
from pipeline.figures.run_curve import draw_run
from pipeline.frozen_plan import frozen_plan_path
from pipeline.learners import parallel
from pipeline.learners.base import DivergedError
from pipeline.learners.supervised import Supervised
from pipeline.networks.build import build
from pipeline.plan import Plan, make_plan
from pipeline.storage.errors import UserError
from pipeline.storage.manifest import verify
from pipeline.storage.seals import write_sealed
from pipeline.storage.tables import read_table
from pipeline.tasks.generate import generate_shard, seal_dataset
from pipeline.training.processes import process_group
from pipeline.training.run_spec import read_run
from pipeline.training.run_status import run_status
from pipeline.training.serialization import is_finite, read_tensors
from pipeline.training.signals import RESUMABLE, StopRequest
from tests.learners.small import small_learner
from tests.training.deaths import ended, spawn, train_and_die, wait_for
from tests.training.members import run as run_members
from tests.training.members import start
from tests.training.tiny import describe, digests, train_tiny

BASE = """\
    base:
      task: {name: copy, symbols: {uniform: [1, 3]}, delay: {uniform: [1, 8]}, alphabet: 4}
      network: {name: sequence, mixer: lru, width: 8, dropout: 0.2, residual: true, norm: rms}
      learner:
        {name: supervised, steps: 24, batch_size: 4, learning_rate: 100, warmup_steps: 24, ema_decay: 0.9, distinct_rows: 30,
         validation_rows: 12, evaluate_every: 2, keep: [last, best, 1]}
      evaluate: {rows: 8}
"""
STEP = 6
"""The step at which its validation finds it diverged."""
SINGLE = "  single:\n" + BASE
RATES = "  rates:\n" + BASE + "    tune: {learner.learning_rate: [100]}\n"
CHILD = "  child:\n" + BASE.replace("evaluate_every", "parent: single, evaluate_every")


def freeze(results: Path, *experiments: str) -> Plan:
    """Freeze and describe the plan of some experiments."""
    plan = make_plan(expand(read_text("experiments:\n" + "".join(experiments), "c.yaml")))
    write_sealed(frozen_plan_path(results), plan.to_json())
    describe(plan, results)
    return plan


def measure(results: Path, plan: Plan) -> Path:
    """Evaluate the one evaluated run of a plan; returns the table."""
    (item,) = plan.evaluations.values()
    for name in item.datasets:
        write_spec(results / "datasets" / name / "dataset.yaml", plan.datasets[name].spec)
        generate_shard(results / "datasets" / name, 0)
        seal_dataset(results / "datasets" / name)
    out = results / "evaluations" / item.run / f"{item.id}.parquet"
    evaluate(results / "runs" / item.run / "run.yaml", [results / "datasets" / name for name in item.datasets], out, device="cpu")
    return out


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A candidate that diverged: its results folder and its name."""
    results = tmp_path_factory.mktemp("diverged")
    (run,) = freeze(results, RATES).runs
    assert train_tiny(results, run) == 0
    return results, run


def fresh(candidate: tuple[Path, str], results: Path) -> str:
    """The same candidate, with nothing trained."""
    shutil.copytree(candidate[0] / "datasets", results / "datasets")
    freeze(results, RATES)
    return candidate[1]


def test_a_candidate_that_diverges_ends_with_its_initial_weights(candidate: tuple[Path, str]) -> None:
    results, run = candidate
    folder = results / "runs" / run
    history = read_table(folder / "history.parquet")
    assert history.column("step").to_pylist() == [0, 2, 4], "up to the last finite validation"
    assert history.schema.metadata == {b"diverged_at": str(STEP).encode()}
    described = json.loads((folder / "model" / "config.json").read_text())
    assert described["diverged_at"] == STEP
    labels = described["checkpoints"]
    assert labels["last"]["step"] == 0 and labels["best"]["step"] in (0, 2, 4)
    assert {"step-1", "step-4"} < set(labels) and f"step-{STEP}" not in labels, "labels kept before stay"
    weights = {label: read_tensors(folder / "model" / item["files"]["model"]) for label, item in labels.items()}
    assert all(map(is_finite, weights.values()))
    spec = read_run(folder / "run.yaml")
    initial = build(spec.network, spec.task.sizes, spec.seed).state_dict()
    assert all(weights["last"][name].equal(value) for name, value in initial.items())
    draw_run(folder)
    assert (folder / "curve.svg").exists()
    assert run_status(results, run).state == "done" and run_status(results, run).detail == f"diverged at step {STEP}"


def test_killed_and_resumed_it_ends_in_the_same_bytes(candidate: tuple[Path, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = fresh(candidate, tmp_path / "whole")
    assert train_and_die(tmp_path / "whole", run, at=-1, log=log) == 0
    assert digests(tmp_path / "whole", run) == digests(*candidate)
    count = len(log.read_text().splitlines())
    for at in (count // 3, 2 * count // 3, count - 40):
        results = tmp_path / str(at)
        fresh(candidate, results)
        assert train_and_die(results, run, at) == -signal.SIGKILL
        assert ended(spawn(lambda results=results: train_tiny(results, run))) == 0
        assert digests(results, run) == digests(*candidate)


def test_all_processes_agree(candidate: tuple[Path, str], tmp_path: Path) -> None:
    whole, resumed, untuned = (tmp_path / name for name in ("whole", "resumed", "untuned"))
    run = fresh(candidate, whole)
    assert run_members(2, lambda: train_tiny(whole, run)) == [0, 0]
    assert run_status(whole, run).detail.startswith("diverged at step ")
    fresh(candidate, resumed)
    members = start(2, lambda: train_tiny(resumed, run, checkpoint_seconds=1e-9))
    wait_for(lambda: list((resumed / "checkpoints" / run).glob("step-*")))
    os.kill(members[0], signal.SIGTERM)
    assert [ended(member) for member in members] in ([RESUMABLE] * 2, [0, 0])
    assert run_members(2, lambda: train_tiny(resumed, run)) == [0, 0]
    assert digests(resumed, run) == digests(whole, run)
    freeze(untuned, SINGLE)
    assert run_members(2, lambda: train_tiny(untuned, run)) == [2, 2]


def test_all_processes_agree_when_one_acts_on_numbers_that_are_none(tmp_path: Path) -> None:
    def body() -> int:
        with StopRequest() as stop, process_group(stop):
            learner: Any = small_learner("gru", "t_maze", "a2c")
            learner.steps = 3
            if parallel.rank() == 1:
                with torch.no_grad():
                    learner.network.critic[0].weight[0, 0] = torch.nan
            with pytest.raises(DivergedError, match=r"^step 3: "):
                learner.update()
        return 0

    assert run_members(2, body) == [0, 0]


def test_elsewhere_it_is_an_error_of_one_line(tmp_path: Path) -> None:
    (run,) = freeze(tmp_path, SINGLE).runs
    with pytest.raises(DivergedError, match=rf"^{run}: step {STEP}: .* training has diverged; lower learner.learning_rate, or set [^\n]*$"):
        train_tiny(tmp_path, run)
    assert not (tmp_path / "runs" / run / "manifest.json").exists()
    frozen_plan_path(tmp_path).unlink()
    with pytest.raises(DivergedError):
        train_tiny(tmp_path, run)


def test_numbers_that_are_none_before_any_update_are_an_error_for_candidates_too(
    candidate: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh(candidate, tmp_path)
    monkeypatch.setattr(Supervised, "validate", lambda self: {"loss": float("nan"), "accuracy": 0.0})
    with pytest.raises(
        UserError, match=rf"^{run}: step 0: validation_loss is nan before any update: the initial weights cause it"
    ) as caught:
        train_tiny(tmp_path, run)
    assert not isinstance(caught.value, DivergedError)


def test_a_run_that_does_not_diverge_has_no_note(tmp_path: Path) -> None:
    (run,) = freeze(tmp_path, RATES.replace("[100]", "[0.01]")).runs
    assert train_tiny(tmp_path, run) == 0
    assert not read_table(tmp_path / "runs" / run / "history.parquet").schema.metadata
    assert "diverged_at" not in json.loads((tmp_path / "runs" / run / "model" / "config.json").read_text())
    assert run_status(tmp_path, run).detail == ""


def test_a_diverged_candidate_is_chosen_last_and_evaluated_for_tune_only(candidate: tuple[Path, str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(candidate[0], results)
    run, refusal = (
        candidate[1],
        f"^{candidate[1]} diverged at step {STEP}, kept as a trial of tune; lower learner.learning_rate, or retrain it$",
    )
    plan = freeze(results, RATES)
    assert measure(results, plan).exists()
    folder = results / "experiments" / "rates"
    write_spec(folder / "experiment.yaml", plan.experiments["rates"].spec)
    choose(folder / "experiment.yaml", results, folder)
    assert [choice["values"] for choice in read_choices(plan.experiments["rates"].spec, folder).values()] == [
        {"learner.learning_rate": 100.0}
    ]
    assert read_table(folder / "tuning.parquet").column("diverged_at").to_pylist() == [STEP]
    for experiments in ((SINGLE,), (RATES, SINGLE)):
        with pytest.raises(UserError, match=refusal):
            measure(results, freeze(results, *experiments))
    frozen_plan_path(results).unlink()
    with pytest.raises(UserError, match=refusal):
        measure(results, make_plan(expand(read_text("experiments:\n" + RATES, "c.yaml"))))
    verify(results / "runs" / run)


def test_a_diverged_candidate_has_no_trained_network(candidate: tuple[Path, str]) -> None:
    run = load_run(candidate[1], candidate[0])
    assert f"diverged at step {STEP}" in repr(run)
    with pytest.raises(UserError, match=f"^{candidate[1]} diverged at step {STEP}, kept as a trial of tune"):
        run.network()


def test_a_diverged_candidate_is_no_parent(candidate: tuple[Path, str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(candidate[0], results)
    child = list(freeze(results, RATES, SINGLE, CHILD).runs)[-1]
    with pytest.raises(UserError, match=f"^{candidate[1]} diverged at step {STEP}, kept as a trial of tune"):
        train_tiny(results, child)
