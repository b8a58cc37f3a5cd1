"""A budget in FLOPs: where it ends, killed and resumed with the same bytes, the same rows in several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.expand import expand
from pipeline.plan import make_plan
from pipeline.storage.tables import read_table
from pipeline.training.signals import RESUMABLE
from tests.training.deaths import ended, spawn, train_and_die, wait_for
from tests.training.members import run as run_members
from tests.training.members import start
from tests.training.test_processes import is_under_way
from tests.training.test_resume import fresh
from tests.training.test_resume_acting import BASE
from tests.training.tiny import block, describe, digests, tiny_run, train_tiny

SUPERVISED: dict[str, Any] = {"steps": None, "flops": "400k", "evaluate_every": 3, "keep": ["last", "best", 2], "warmup_steps": 0.25}
POINTS = 5
"""File operations, spread over a whole training, at which it is killed."""


def acting_run(results: Path, mixer: str) -> str:
    """Describe a run that acts; returns its identifier."""
    learner = {**BASE["learner"], "flops": "8M", "num_updates": None, "num_envs": 8}
    base = {**BASE, "network": {**BASE["network"], "mixer": mixer}, "learner": learner}
    return describe(make_plan(expand(block({"experiments": {"acting": {"base": base}}}))), results)


def described(results: Path, learner: str) -> str:
    return tiny_run(results, **SUPERVISED) if learner == "supervised" else acting_run(results, "attention")


def history(results: Path, run: str) -> list[dict[str, Any]]:
    return read_table(results / "runs" / run / "history.parquet").to_pylist()


def test_training_ends_with_the_update_that_reaches_the_budget(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, **{**SUPERVISED, "evaluate_every": 1})
    assert train_tiny(tmp_path, run) == 0
    rows = history(tmp_path, run)
    assert rows[-2]["flops"] < 400_000 <= rows[-1]["flops"] and rows[-1]["step"] > 4
    assert rows[0]["learning_rate"] == 0 < rows[1]["learning_rate"]
    written = json.loads((tmp_path / "runs" / run / "environment.json").read_text())
    assert (written["budget"], written["reproducible"]) == ("flops", True)


def test_a_budget_below_one_update_is_one_update(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, **{**SUPERVISED, "flops": 1})
    assert train_tiny(tmp_path, run) == 0
    assert history(tmp_path, run)[-1]["step"] == 1


def test_other_budgets_leave_no_column(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, steps=2, evaluate_every=1)
    assert train_tiny(tmp_path, run) == 0
    assert "flops" not in history(tmp_path, run)[-1]


@pytest.mark.parametrize("learner", ["supervised", "ppo"])
def test_killed_at_any_file_operation(learner: str, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    run = described(undisturbed, learner)
    assert train_tiny(undisturbed, run) == 0
    made = (undisturbed, run, digests(undisturbed, run))
    fresh(made, tmp_path / "counting")
    assert train_and_die(tmp_path / "counting", run, at=-1, log=tmp_path / "log") == 0
    assert digests(tmp_path / "counting", run) == made[2], "saving must change nothing"
    names = (tmp_path / "log").read_text().splitlines()
    for index in range(len(names) // POINTS // 2, len(names), len(names) // POINTS):
        results = tmp_path / str(index)
        fresh(made, results)
        assert train_and_die(results, run, at=index + 1) == -signal.SIGKILL, names[index]
        assert ended(spawn(lambda results=results: train_tiny(results, run))) == 0, names[index]
        assert digests(results, run) == made[2], names[index]
        shutil.rmtree(results)


@pytest.mark.parametrize("learner", ["supervised", "ppo"])
def test_two_processes_stopped_and_resumed(learner: str, tmp_path: Path) -> None:
    first, results = tmp_path / "undisturbed", tmp_path / "disturbed"
    run = described(first, learner)
    assert run_members(2, lambda: train_tiny(first, run)) == [0, 0]
    fresh((first, run, {}), results)
    members = start(2, lambda: train_tiny(results, run, checkpoint_seconds=1e-9))
    wait_for(lambda: is_under_way(results, run))
    os.kill(members[1], signal.SIGUSR1)
    assert [ended(member) for member in members] == [RESUMABLE, RESUMABLE]
    assert run_members(2, lambda: train_tiny(results, run)) == [0, 0]
    assert digests(results, run) == digests(first, run)


def test_processes_that_share_a_training_see_the_rows_of_one(tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        results = tmp_path / str(processes)
        run = tiny_run(results, **SUPERVISED, curriculum=None)
        assert run_members(processes, lambda results=results, run=run: train_tiny(results, run)) == [0] * processes
        found.append([(row["step"], row["rows"], row["flops"]) for row in history(results, run)])
    assert found[0] == found[1] and found[0][-1][2] >= 400_000


def test_processes_that_act_count_all_environments(tmp_path: Path) -> None:
    """With LSTM every step costs the same, and two processes step as many environments as one."""
    ends = []
    for processes in (1, 2):
        results = tmp_path / str(processes)
        run = acting_run(results, "lstm")
        assert run_members(processes, lambda results=results, run=run: train_tiny(results, run)) == [0] * processes
        ends.append(history(results, run)[-1])
    assert ends[0]["rows"] == ends[1]["rows"] and ends[0]["flops"] == pytest.approx(ends[1]["flops"], rel=0.02)
