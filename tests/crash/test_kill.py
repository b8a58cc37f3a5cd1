"""kill -9 at random moments, then the one documented command: the same bytes as if nothing had happened, and never two trainers on one run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.crash.conftest import suite_config
from tests.workflow.suite import Suite

pytestmark = pytest.mark.crash

LONGEST = 14.0
"""Seconds within which a kill falls: about what one undisturbed run of the suite takes."""


class Watch(threading.Thread):
    """Looks over and over at who trains, and remembers each time two trainers of one run made progress side by side."""

    def __init__(self, results: Path) -> None:
        super().__init__(daemon=True)
        self.results = results
        self.stop = threading.Event()
        self.clashes: list[str] = []
        self.seen = 0

    def run(self) -> None:
        while not self.stop.wait(0.05):
            training: dict[str, list[int]] = {}
            for process in psutil.process_iter(["pid", "cmdline"]):
                words = process.info["cmdline"] or []
                if "train" in words and str(process.info["pid"]) and _works_in(process, self.results):
                    run = next((word for word in words if word.endswith("run.yaml")), "")
                    if _holds_lease(process, self.results / "checkpoints" / Path(run).parent.name):
                        training.setdefault(run, []).append(process.info["pid"])
            self.seen += len(training)
            self.clashes += [f"{run}: {pids}" for run, pids in training.items() if len(pids) > 1]


def _works_in(process: psutil.Process, results: Path) -> bool:
    try:
        return process.cwd() == str(results.parent)
    except psutil.Error:
        return False


def _holds_lease(process: psutil.Process, folder: Path) -> bool:
    """Whether the process holds the flock of the run's checkpoint folder, by the kernel's own list of locks."""
    try:
        inode = (folder / "lock").stat().st_ino
    except FileNotFoundError:
        return False
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    held = [line for line in fields if line[1] == "FLOCK" and line[3] == "WRITE"]
    return any(int(line[4]) == process.pid and int(line[5].rsplit(":", 1)[1]) == inode for line in held)


def kill_at(suite: Suite, seconds: float, group: bool) -> bool:
    """Start the workflow and kill it after so many seconds: the whole process group, or Snakemake alone. False when it had ended."""
    process = suite.start()
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()
    return True


def orphans(suite: Suite) -> list[psutil.Process]:
    """Processes that still work in the suite's folder."""
    return [process for process in psutil.process_iter() if _works_in(process, suite.results)]


@pytest.mark.parametrize("seed", range(2))
def test_kill_nine_of_the_group(undisturbed: Suite, tmp_path: Path, seed: int) -> None:
    """Three kills of everything one after the other, then plain Snakemake."""
    suite = Suite(tmp_path, suite_config())
    moments = random.Random(seed)
    for _ in range(3):
        kill_at(suite, moments.uniform(0.5, LONGEST), group=True)
    assert suite.call()[0] == 0
    assert suite.digests() == undisturbed.digests()
    assert not suite.planned()


@pytest.mark.parametrize("seed", range(2))
def test_kill_nine_of_snakemake_alone(undisturbed: Suite, tmp_path: Path, seed: int) -> None:
    """Its jobs live on as orphans beside the new ones; still one trainer a run, and the same bytes."""
    suite = Suite(tmp_path, suite_config())
    moments = random.Random(1000 + seed)
    watch = Watch(suite.results)
    watch.start()
    for _ in range(3):
        kill_at(suite, moments.uniform(2.0, LONGEST), group=False)
    code, output = suite.call()
    watch.stop.set()
    watch.join()
    assert code == 0, output
    assert not watch.clashes
    end = time.monotonic() + 30
    while orphans(suite) and time.monotonic() < end:
        time.sleep(0.1)
    assert suite.digests() == undisturbed.digests()
    assert not suite.planned()


def test_a_second_pipeline_is_refused_in_one_line(tmp_path: Path) -> None:
    suite = Suite(tmp_path, suite_config())
    process = suite.start()
    end = time.monotonic() + 30
    while not (suite.results / ".pipeline" / "plan.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    code, output = suite.call()
    dry, _ = suite.call("--dry-run")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert code == 2
    ours = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(ours) == 1
    assert f"pid {process.pid} on " in ours[0]
    assert dry == 0
