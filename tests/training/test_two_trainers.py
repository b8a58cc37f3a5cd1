"""However many trainers are started on one run, one trains at a time, and a finished run is never trained again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.deaths import ended, train_counting, wait_for
from tests.training.tiny import digests, tiny_run, train_tiny

SLOW = {"steps": 12, "keep": ["last"]}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, str]:
    run = tiny_run(tmp_path / "undisturbed", **SLOW)
    assert train_tiny(tmp_path / "undisturbed", run) == 0
    return digests(tmp_path / "undisturbed", run)


def trainers(updates: Path) -> list[int]:
    """Process ids in the order of their updates."""
    return [int(line) for line in updates.read_text().splitlines()] if updates.exists() else []


def delete_outputs(results: Path, run: str) -> None:
    """What the workflow does before it starts a job again: delete what the job declares."""
    shutil.rmtree(results / "runs" / run / "model", ignore_errors=True)
    for name in ("history.parquet", "timing.parquet", "environment.json", "manifest.json"):
        (results / "runs" / run / name).unlink(missing_ok=True)


def test_the_second_waits_and_finds_the_run_finished(tmp_path: Path, expected: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(tmp_path, **SLOW)
    updates = tmp_path / "updates"
    first = train_counting(tmp_path, run, updates, pause=0.12)
    wait_for(lambda: trainers(updates))
    others = [train_counting(tmp_path, run, updates) for _ in range(2)]
    assert [ended(child) for child in (first, *others)] == [0, 0, 0]
    assert trainers(updates) == [first] * SLOW["steps"]
    assert digests(tmp_path, run) == expected
    said = capfd.readouterr().err
    assert said.count(f"being trained by pid {first} on ") == 2
    assert said.count(f"{run}: already finished; 'pipeline retrain {run}' deletes the result") == 2


def test_the_second_goes_on_where_a_killed_first_one_was(tmp_path: Path, expected: dict[str, str]) -> None:
    run = tiny_run(tmp_path, **SLOW)
    updates = tmp_path / "updates"
    first = train_counting(tmp_path, run, updates, pause=0.12, checkpoint_seconds=1e-9)
    wait_for(lambda: list((tmp_path / "checkpoints" / run).glob("step-*")))
    second = train_counting(tmp_path, run, updates)
    time.sleep(0.3)
    os.kill(first, signal.SIGKILL)
    assert ended(first) == -signal.SIGKILL
    assert ended(second) == 0
    order = trainers(updates)
    assert order == sorted(order, key=[first, second].index), "never side by side"
    assert len(order) in (SLOW["steps"], SLOW["steps"] + 1), "at most the step under way is done twice"
    assert digests(tmp_path, run) == expected


def test_a_waiting_trainer_can_be_stopped(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, **SLOW)
    updates = tmp_path / "updates"
    first = train_counting(tmp_path, run, updates, pause=0.5)
    wait_for(lambda: trainers(updates))
    second = train_counting(tmp_path, run, updates)
    time.sleep(0.3)
    os.kill(second, signal.SIGTERM)
    assert ended(second) == 75
    os.kill(first, signal.SIGTERM)
    assert ended(first) == 75


def test_an_orphan_beside_a_new_workflow(tmp_path: Path, expected: dict[str, str]) -> None:
    """The workflow died, its trainer did not; the next workflow deletes the outputs and starts another trainer."""
    run = tiny_run(tmp_path, **SLOW)
    updates = tmp_path / "updates"
    orphan = train_counting(tmp_path, run, updates, pause=0.12)
    wait_for(lambda: trainers(updates))
    delete_outputs(tmp_path, run)
    new = train_counting(tmp_path, run, updates)
    assert [ended(orphan), ended(new)] == [0, 0]
    assert digests(tmp_path, run) == expected
    delete_outputs(tmp_path, run)
    assert ended(train_counting(tmp_path, run, updates)) == 0
    assert digests(tmp_path, run) == expected
    assert set(trainers(updates)) == {orphan}


def test_putting_a_finished_run_back_needs_neither_torch_nor_data(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, **SLOW)
    assert train_tiny(tmp_path, run) == 0
    before = digests(tmp_path, run)
    delete_outputs(tmp_path, run)
    shutil.rmtree(tmp_path / "datasets")
    code = "import sys; from tests.training import tiny; code = tiny.main(*sys.argv[1:]); print('torch' in sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), run, "30"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert digests(tmp_path, run) == before


def test_a_damaged_result_is_trained_again(tmp_path: Path, expected: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(tmp_path, **SLOW)
    assert train_tiny(tmp_path, run) == 0
    (tmp_path / "checkpoints" / run / "finished" / "history.parquet").write_bytes(b"")
    delete_outputs(tmp_path, run)
    assert train_tiny(tmp_path, run) == 0
    assert "finished/history.parquet: 0 bytes, expected" in capfd.readouterr().err
    assert digests(tmp_path, run) == expected


def test_a_damaged_output_is_put_back(tmp_path: Path, expected: dict[str, str]) -> None:
    run = tiny_run(tmp_path, **SLOW)
    assert train_tiny(tmp_path, run) == 0
    weights = tmp_path / "runs" / run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert train_tiny(tmp_path, run) == 0
    assert digests(tmp_path, run) == expected
