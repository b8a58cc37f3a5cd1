"""Interruptions drawn at random, of every kind and on every way to run, two in a row: the same bytes, each row of history once.

Four of them here; RECURLAB_INTERRUPTIONS=20 draws twenty.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest

from tests.slurm.suite import PATIENCE, SlurmSuite, Training
from tests.slurm.test_interruptions import left_alone, preempt
from tests.workflow.suite import Suite

pytestmark = [pytest.mark.slurm, pytest.mark.crash]

SEEDS = range(int(os.environ.get("RECURLAB_INTERRUPTIONS", "4")))
LONGEST = 8.0
"""Seconds of training within which an interruption falls."""

Interruption = Callable[[SlurmSuite, Training, "subprocess.Popen[str]"], None]


def signal_trainer(number: int) -> Interruption:
    """A signal to the trainer itself."""

    def send(suite: SlurmSuite, training: Training, process: subprocess.Popen[str]) -> None:
        try:
            os.kill(training.pid(), number)
        except (ProcessLookupError, AssertionError):
            return  # it has ended by itself

    return send


def cancel(suite: SlurmSuite, training: Training, process: subprocess.Popen[str]) -> None:
    """`scancel` of whatever waits or runs."""
    if queue := suite.cluster.queue():
        suite.cluster.call("scancel", *queue)


def preempted(suite: SlurmSuite, training: Training, process: subprocess.Popen[str]) -> None:
    """Jobs that go first take all nodes."""
    job = training.job()
    if job in suite.cluster.queue():
        preempt(suite.cluster, job)


def stopped(suite: SlurmSuite, training: Training, process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def killed(suite: SlurmSuite, training: Training, process: subprocess.Popen[str]) -> None:
    """kill -9 of Snakemake alone."""
    process.kill()


def all_killed(suite: SlurmSuite, training: Training, process: subprocess.Popen[str]) -> None:
    """kill -9 of Snakemake and of everything that works in the folder."""
    process.kill()
    for other in psutil.process_iter():
        try:
            if other.cwd() == str(suite.folder):
                other.kill()
        except psutil.Error:
            continue


EVERYWHERE = {
    "kill the trainer": signal_trainer(signal.SIGKILL),
    "SIGTERM to the trainer": signal_trainer(signal.SIGTERM),
    "SIGUSR1 to the trainer": signal_trainer(signal.SIGUSR1),
    "Ctrl-C": stopped,
    "kill Snakemake": killed,
    "kill everything": all_killed,
}
ENDING = ("Ctrl-C", "kill Snakemake", "kill everything")
"""What ends Snakemake. On a cluster it would outlast the others, and is killed a little later."""
ON_A_CLUSTER: dict[str, Interruption] = {**EVERYWHERE, "scancel": cancel, "preempt": preempted}


@pytest.mark.parametrize("seed", SEEDS)
def test_interrupted_twice_at_random_then_the_same_command(
    untrained: SlurmSuite, undisturbed: Suite, images: dict[str, str], seed: int
) -> None:
    draw = random.Random(seed)
    ways = [(cluster, image) for image in images for cluster in (True, False)]
    on_cluster, image = ways[seed % len(ways)]
    untrained.run_by(on_cluster, images[image])
    kinds = ON_A_CLUSTER if on_cluster else EVERYWHERE
    told = [f"{'slurm' if on_cluster else 'local'}{image}"]
    for attempt in range(2):
        process = untrained.start()
        training = Training(untrained)
        end = time.monotonic() + PATIENCE
        while not training.under_way() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        moment, kind = draw.uniform(0, LONGEST), draw.choice(sorted(kinds))
        time.sleep(moment)
        running = process.poll() is None
        assert running or attempt, "it ended before it was interrupted"
        told.append(f"{kind} after {moment:.1f} s" if running else "nothing, it had ended")
        if running:
            kinds[kind](untrained, training, process)
        if on_cluster and kind not in ENDING:
            time.sleep(2)
            process.kill()
        process.communicate(timeout=PATIENCE)
    print("; ".join(told))
    code, output = untrained.call()
    assert code == 0, f"{told}\n{output}"
    left_alone(untrained)
    assert untrained.digests() == undisturbed.digests(), told
    assert not untrained.planned()
