"""Work that does not end hears every signal within seconds, in processes of their own: validation by playing and evaluation in an environment
that never ends, an update that takes for ever, waiting for a lease, a compiler that hangs, making rows."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.expand import expand
from pipeline.plan import make_plan
from pipeline.storage.tables import read_table
from pipeline.training.run_status import run_status
from pipeline.training.signals import GRACE_SECONDS, HANDLED, RESUMABLE
from tests.training.deaths import wait_for
from tests.training.tiny import block, describe, tiny_run

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 5.0
"""Within which a signal is heard, on a busy machine."""
MODULE = '''
import time

import gymnasium
import numpy as np


class Endless(gymnasium.Env):
    """Shows nothing and never ends; `pause`: seconds of a step; `ends`: the file whose presence lets it end."""

    def __init__(self, pause=0.0, ends=""):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        self.action_space = gymnasium.spaces.Discrete(2)
        self.pause, self.ends = pause, ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        time.sleep(self.pause)
        import os
        return np.zeros(2, np.float32), 1.0, bool(self.ends) and os.path.exists(self.ends), False, {}


gymnasium.register("Endless-v0", Endless)
'''
LONG = 10_000_000


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """Starts `pipeline` with words in a process of its own; returns it and the file that it writes its lines to."""
    (tmp_path / "endless.py").write_text(MODULE, encoding="utf-8")
    running: list[subprocess.Popen[str]] = []

    def start(*words: str | Path, **environment: str) -> tuple[subprocess.Popen[str], Path]:
        log = tmp_path / f"log{len(running)}"
        paths = f"{tmp_path}{os.pathsep}{REPOSITORY}"
        known = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", *map(str, words)], cwd=tmp_path, env=known, stderr=file, text=True
            )
        running.append(process)
        return process, log

    yield start
    for process in running:
        process.kill()
        process.wait()


def endless(results: Path, limit: int | None = LONG, **options: Any) -> str:
    """Describe a training in the environment that never ends; returns its identifier."""
    task: dict[str, Any] = {
        "name": "gymnasium",
        "id": "endless:Endless-v0",
        "observation_shape": [2],
        "num_actions": [2],
        "kwargs": options,
    }
    network = {"name": "actor_critic", "mixer": "gru", "width": 4, "head_width": 4, "context": LONG}
    learner = {"name": "ppo", "num_updates": 3, "num_envs": 4, "rollout_steps": 4, "evaluate_every": 2, "validation_rows": 3}
    base = {
        "task": {**task, **({} if limit is None else {"max_episode_steps": limit})},
        "network": network,
        "learner": learner,
        "evaluate": {"rows": 2},
    }
    return describe(make_plan(expand(block({"experiments": {"endless": {"base": base}}}))), results)


def stopped_by(process: subprocess.Popen[str], number: int, within: float = SECONDS) -> int:
    """Send a signal; the exit code of the process, which must come in time."""
    process.send_signal(number)
    return process.wait(within)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_validation_is_broken_off_and_goes_on(number: signal.Signals, started: Any, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    run = endless(tmp_path / "results", ends=str(ends))
    words = ("train", tmp_path / "results" / "runs" / run / "run.yaml")
    process, log = started(*words)
    line = "0 of 3 episodes played, step " if number == signal.SIGTERM else f"{run}: step 0"
    wait_for(lambda: line in log.read_text(encoding="utf-8"))
    time.sleep(0.5)
    assert stopped_by(process, number) == RESUMABLE
    assert f"{number.name}: saved step 0; the same command resumes from there" in log.read_text(encoding="utf-8")
    assert run_status(tmp_path / "results", run).detail == "stopped; resumes from step 0"
    ends.touch()
    process, log = started(*words)
    assert process.wait(300) == 0
    assert read_table(tmp_path / "results" / "runs" / run / "history.parquet").column("step").to_pylist() == [0, 2, 3]


def test_an_update_without_end_is_given_up(started: Any, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    ends.touch()
    run = endless(tmp_path / "results", pause=3.0, ends=str(ends))
    process, log = started("train", tmp_path / "results" / "runs" / run / "run.yaml")
    wait_for(lambda: "step 0" in log.read_text(encoding="utf-8"))
    time.sleep(12)
    assert stopped_by(process, signal.SIGTERM, GRACE_SECONDS + SECONDS) == RESUMABLE
    assert "SIGTERM: stopped; the same command resumes from the newest checkpoint" in log.read_text(encoding="utf-8")


def test_evaluation_is_broken_off(started: Any, tmp_path: Path) -> None:
    ends, results = tmp_path / "ends", tmp_path / "results"
    ends.touch()
    run = endless(results, ends=str(ends))
    process, _ = started("train", results / "runs" / run / "run.yaml")
    assert process.wait(300) == 0
    ends.unlink()
    data, out = next((results / "datasets").glob("*validation*")), tmp_path / "out" / "table.parquet"
    both = [(number, *started("evaluate", results / "runs" / run / "run.yaml", "--data", data, "--out", out)) for number in HANDLED[:2]]
    for number, process, log in both:
        wait_for(lambda log=log: "0 of 3 episodes played, step " in log.read_text(encoding="utf-8"))
        assert stopped_by(process, number) == RESUMABLE
        assert log.read_text(encoding="utf-8").splitlines()[-1] == f"{number.name}: stopped; the same command resumes"
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_waiting_for_a_lease_is_broken_off(number: signal.Signals, started: Any, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "results")
    folder = tmp_path / "results" / "checkpoints" / run
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process, log = started("train", tmp_path / "results" / "runs" / run / "run.yaml")
        wait_for(lambda: "waiting" in log.read_text(encoding="utf-8"))
        assert stopped_by(process, number) == RESUMABLE


def test_a_compiler_that_hangs_is_broken_off(started: Any, tmp_path: Path) -> None:
    """By `doctor`, which tries every backend; nothing stays in the folder of libraries."""
    compiler, cache, called = tmp_path / "cc", tmp_path / "cache", tmp_path / "called"
    compiler.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && exec echo cc\ntouch '{called}'\nexec sleep 600\n", encoding="utf-8")
    compiler.chmod(0o755)
    process, _ = started("doctor", CC=str(compiler), XDG_CACHE_HOME=str(cache), RECURLAB_NATIVE="")
    wait_for(called.exists)
    assert stopped_by(process, signal.SIGTERM) == RESUMABLE
    assert not [*(cache / "recurlab").iterdir()]


def test_making_rows_is_broken_off(started: Any, tmp_path: Path) -> None:
    process, log = started("generate", "--task", "copy", "--rows", 50_000_000, "--out", tmp_path / "data")
    wait_for(lambda: [*(tmp_path / "data").glob("*.parquet")])
    assert stopped_by(process, signal.SIGTERM) == RESUMABLE
    assert log.read_text(encoding="utf-8").splitlines()[-1] == "SIGTERM: stopped; the same command resumes"
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.endswith(".tmp")]


def test_the_check_asks_for_a_limit(started: Any, tmp_path: Path) -> None:
    task = "{name: gymnasium, id: CliffWalking-v1, observation_shape: [48], num_actions: [4]}"
    parts = "network: {name: actor_critic}, learner: {name: ppo, total_timesteps: 10k}"
    (tmp_path / "config.yaml").write_text(f"experiments:\n  cliff:\n    base:\n      {{{parts},\n       task: {task}}}\n", encoding="utf-8")
    process, log = started("check")
    assert process.wait(300) == 2
    expected = (
        "gymnasium CliffWalking-v1 has no time limit of its own; expected task.max_episode_steps, steps after which an episode is cut off"
    )
    assert log.read_text(encoding="utf-8") == f"config.yaml:5: experiments.cliff.base.task.id: {expected}\n"


def test_a_training_asks_for_a_limit_that_no_check_could_miss(started: Any, tmp_path: Path) -> None:
    run = endless(tmp_path / "results", limit=None)
    process, log = started("train", tmp_path / "results" / "runs" / run / "run.yaml")
    assert process.wait(300) == 2
    expected = "it has no time limit of its own; expected task.max_episode_steps, steps after which an episode is cut off"
    assert log.read_text(encoding="utf-8") == f"gymnasium endless:Endless-v0: {expected}\n"
