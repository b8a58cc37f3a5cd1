"""A training that several processes share: the numbers of one process, the same bytes again after an interruption, and one voice for errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipeline.config.config_file import Runtime
from pipeline.config.expand import expand
from pipeline.learners import parallel
from pipeline.plan import make_plan
from pipeline.storage.errors import UserError
from pipeline.storage.tables import read_table
from pipeline.training.launch import combined_exit_code, launch
from pipeline.training.processes import LOST, from_rank_0, gather, process_group
from pipeline.training.run_spec import read_run
from pipeline.training.serialization import read_tensors, write_tensors
from pipeline.training.signals import RESUMABLE, StopRequest
from tests.learners.grids import Opposite
from tests.learners.small import small_learner
from tests.training.deaths import ended, wait_for
from tests.training.members import run as run_members
from tests.training.members import start
from tests.training.test_resume_acting import BASE
from tests.training.test_resume_puzzles import described
from tests.training.tiny import block, describe, digests, tiny_run, train_tiny

STEPS = 12


def weights_after(path: Path, processes: int, **fields: Any) -> dict[str, torch.Tensor]:
    """The weights of a small learner after some updates, in double precision."""

    def body() -> int:
        torch.set_default_dtype(torch.float64)
        with StopRequest() as stop, process_group(stop):
            learner = small_learner(**fields)
            figures = [{name: float(value) for name, value in learner.update().items()} for _ in range(STEPS)]
            names = sorted(figures[0])
            table = {name: torch.tensor([row[name] for row in figures]) for name in names}
            write_tensors(path / f"{parallel.rank()}.safetensors", {**learner.models()["model"].state_dict(), **table})
        return 0

    path.mkdir()
    assert run_members(processes, body) == [0] * processes
    found = [read_tensors(file) for file in sorted(path.iterdir())]
    assert all(all(other[name].equal(found[0][name]) for name in found[0]) for other in found), "every process has the same"
    return found[0]


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "in parts": {"micro_batch_size": 1},
    "averaged, with a curriculum": {"ema_decay": 0.9, "curriculum": {"column": "delay", "start": 2, "threshold": 0.01, "window": 2}},
}


DEEP = {"mixer": "full_attention", "task": Opposite(side=3), "learner": "deep_supervision", "supervision": 3, "ema_decay": 0.9}
CASES |= {
    "identifiers": {"mixer": "full_attention", "task": Opposite(side=3)},
    "rows that stay": {**DEEP, "halting": "continue", "exploration": 0.5, "network": {"registers": 1, "outer": 1, "inner": 1}},
    "several attempts at fresh rows": {
        **DEEP, "warm_up": "random", "attempts": 2, "network": {"start": "fixed", "starts": 2, "outer": 1, "inner": 1}, "data": "stream",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_processes_learn_what_one_learns(tmp_path: Path, case: str) -> None:
    alone, shared = (weights_after(tmp_path / str(count), count, **CASES[case]) for count in (1, 2))
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-11, atol=1e-12, msg=name)


def test_what_they_tell_each_other(tmp_path: Path) -> None:
    state = {"tensor": torch.arange(3), "list": [1, None, (2.5, "x")], "empty": {}}

    def body() -> int:
        with StopRequest() as stop, process_group(stop):
            mine = parallel.rank()
            told = from_rank_0(lambda: {**state, "mine": mine})
            assert told["mine"] == 0 and told["tensor"].equal(state["tensor"]) and told["list"] == state["list"]
            parts = gather({"mine": [mine] * (mine + 1)})
            assert parts == ([{"mine": [0]}, {"mine": [1, 1]}] if mine == 0 else [])
            assert parallel.all_reduce_max([float(mine), -float(mine)]) == [1.0, 0.0]
            halves = [torch.full((2,), float(mine)), torch.full((1, 3), mine + 1)]
            parallel.all_reduce_sum(halves)
            assert halves[0].tolist() == [1.0, 1.0] and halves[1].tolist() == [[3, 3, 3]]
            assert parallel.shard(6) == slice(3 * mine, 3 * mine + 3)
        return 0

    assert run_members(2, body) == [0, 0]


def fresh(undisturbed: Path, run: str, results: Path) -> str:
    """The same run described anew, with the same data and nothing trained."""
    shutil.copytree(undisturbed / "datasets", results / "datasets")
    (results / "runs" / run).mkdir(parents=True)
    for name in ("run.yaml", ".run.yaml.sha256"):
        shutil.copy(undisturbed / "runs" / run / name, results / "runs" / run)
    return run


def acting_run(results: Path) -> str:
    """Describe a run that acts, in a number of copies that divides; returns its identifier."""
    base = {**BASE, "learner": {**BASE["learner"], "num_envs": 8}}
    return describe(make_plan(expand(block({"experiments": {"acting": {"base": base}}}))), results)


def is_under_way(results: Path, run: str) -> bool:
    return any((results / "checkpoints" / run).glob("step-*"))


@pytest.mark.parametrize("learner", ["supervised", "ppo", "deep_supervision"])
def test_a_signal_to_one_and_the_death_of_one_change_nothing(tmp_path: Path, learner: str) -> None:
    """Dropout, averages, a curriculum; environments and what is carried of them: every process's own part is in the checkpoint."""
    first, results = tmp_path / "undisturbed", tmp_path / "disturbed"
    run = {"supervised": tiny_run, "ppo": acting_run, "deep_supervision": partial(described, case="arc", steps=40)}[learner](first)
    assert run_members(2, lambda: train_tiny(first, run)) == [0, 0]
    fresh(first, run, results)
    members = start(2, lambda: train_tiny(results, run, checkpoint_seconds=1e-9))
    wait_for(lambda: is_under_way(results, run))
    os.kill(members[1], signal.SIGUSR1)
    assert [ended(member) for member in members] == [RESUMABLE, RESUMABLE]
    members = start(2, lambda: train_tiny(results, run, checkpoint_seconds=1e-9))
    before = sorted((results / "checkpoints" / run).glob("step-*"))
    wait_for(lambda: sorted((results / "checkpoints" / run).glob("step-*")) != before)
    os.kill(members[1], signal.SIGKILL)
    assert ended(members[1]) == -signal.SIGKILL
    os.kill(members[0], signal.SIGTERM)
    assert ended(members[0]) in (LOST, RESUMABLE)
    assert run_members(2, lambda: train_tiny(results, run)) == [0, 0]
    assert digests(results, run) == digests(first, run)


def test_another_number_of_processes_goes_on_where_it_can(tmp_path: Path) -> None:
    """What a supervised learner knows is in every process; an environment, and the latents of rows that stay, are in one."""
    puzzles = described(tmp_path / "deep_supervision", "sudoku", steps=60)
    for name, run in (
        ("supervised", tiny_run(tmp_path / "supervised")),
        ("ppo", acting_run(tmp_path / "ppo")),
        ("deep_supervision", puzzles),
    ):
        members = start(2, lambda name=name, run=run: train_tiny(tmp_path / name, run, checkpoint_seconds=1e-9))
        wait_for(lambda name=name, run=run: is_under_way(tmp_path / name, run))
        os.kill(members[0], signal.SIGTERM)
        assert [ended(member) for member in members] == [RESUMABLE, RESUMABLE]
        if name == "supervised":
            assert train_tiny(tmp_path / name, run) == 0
            continue
        with pytest.raises(
            UserError, match=f"checkpoints/{run}: saved by 2 processes, expected 1; train it with 2 again, or delete the folder"
        ):
            train_tiny(tmp_path / name, run)


def test_figures_are_over_all_processes(tmp_path: Path) -> None:
    run = acting_run(tmp_path)
    assert run_members(2, lambda: train_tiny(tmp_path, run)) == [0, 0]
    last = read_table(tmp_path / "runs" / run / "history.parquet").to_pylist()[-1]
    assert last["rows"] == 6 * 8 * 8, "environment steps of all copies"
    assert 0 <= last["train_accuracy"] <= 1 and last["episodes"] >= 6


def command(results: Path, run: str, *words: str) -> subprocess.Popen[str]:
    """`pipeline train` in two processes."""
    start = [sys.executable, "-m", "pipeline", "train", str(results / "runs" / run / "run.yaml"), "--processes", "2", *words]
    return subprocess.Popen(start, stderr=subprocess.PIPE, text=True)


def test_the_launcher_passes_signals_codes_and_deaths_on(tmp_path: Path) -> None:
    results = tmp_path / "results"
    run = tiny_run(results, steps=400, evaluate_every=400, keep=["last"])
    for number, whom in ((signal.SIGTERM, "launcher"), (signal.SIGKILL, "launcher"), (signal.SIGKILL, "member")):
        launcher = command(results, run)
        progress = results / "checkpoints" / run / "progress.json"
        wait_for(progress.exists)
        member = psutil.Process(launcher.pid).children()[1]
        (launcher if whom == "launcher" else member).send_signal(number)
        said = launcher.communicate(timeout=300)[1].splitlines()  # until the last that could write to it has ended
        progress.unlink()
        if whom == "launcher":
            assert launcher.returncode == (RESUMABLE if number == signal.SIGTERM else -number)
            assert said[-1].startswith("SIGTERM: saved step "), "its processes save when it dies too"
        else:
            assert launcher.returncode == 1
            assert said[-1] == f"{run}: rank 1 was killed by SIGKILL; the same command resumes from the newest checkpoint"
            assert "Traceback" not in "".join(said)
    launcher = command(results, run)
    said = launcher.communicate(timeout=300)[1]
    assert launcher.returncode == 0, said
    assert "resuming from step" in said
    assert digests(results, run)["model/model.safetensors"]


def test_an_error_that_all_meet_is_one_line(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, steps=4)
    shard = next((tmp_path / "datasets").glob("*train*/00000.parquet"))
    shard.write_bytes(shard.read_bytes()[:-8])
    launcher = command(tmp_path, run)
    said = launcher.communicate(timeout=300)[1].splitlines()
    assert (launcher.returncode, len(said)) == (2, 1), said
    assert "00000.parquet" in said[0]


def test_nodes_are_those_of_a_slurm_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    run = tiny_run(tmp_path, steps=4)
    with pytest.raises(UserError, match="runtime.nodes: 2 asked for, but this is no SLURM job; expected 1 here"):
        launch(tmp_path / "runs" / run / "run.yaml", Runtime(nodes=2), ["train"])


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ([(0, RESUMABLE), (1, RESUMABLE)], RESUMABLE, ""),
        ([(0, 2), (1, LOST)], 2, ""),
        ([(0, LOST), (1, 1)], 1, ""),
        ([(0, LOST), (1, -signal.SIGKILL)], 1, "rank 1 was killed by SIGKILL"),
        ([(0, LOST), (1, -signal.SIGTERM)], 1, "the ranks of another node have exited"),
    ],
)
def test_the_code_is_that_of_the_process_that_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ends: list[tuple[int, int]], code: int, said: str
) -> None:
    run = read_run(tmp_path / "runs" / tiny_run(tmp_path, steps=4) / "run.yaml")
    assert combined_exit_code(run, ends) == code
    assert (said in capfd.readouterr().err) if said else not capfd.readouterr().err


def test_a_batch_that_does_not_divide_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, steps=4)
    launcher = command(tmp_path, run, "--processes", "3")
    said = launcher.communicate(timeout=300)[1]
    assert launcher.returncode == 2
    expected = "learner.batch_size: got 4 rows, expected a multiple of the 3 processes of runtime.gpus, processes and nodes"
    assert said == f"{tmp_path / 'runs' / run / 'run.yaml'}: {expected}\n"
    assert not (tmp_path / "checkpoints").exists()
