"""Every interruption on a cluster, followed by the same command: the same bytes as an uninterrupted run on one machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.suite import PATIENCE, SlurmSuite, Training
from tests.workflow.suite import Suite, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.crash]


def ends_alike(process: subprocess.Popen[str], suite: SlurmSuite, undisturbed: Suite) -> str:
    """Snakemake ends well, nothing is left anywhere, and the results are the same bytes; its output."""
    output, _ = process.communicate(timeout=suite.PATIENCE)
    assert process.returncode == 0, output
    left_alone(suite)
    assert suite.digests() == undisturbed.digests()
    assert not suite.planned()
    return output


def left_alone(suite: SlurmSuite) -> None:
    """No job waits or runs, and no process works in the suite's folder."""
    wait_until(lambda: not suite.cluster.queue(), PATIENCE, "the queue to be empty")
    wait_until(lambda: not workers(suite), PATIENCE, "the last processes to end")


def workers(suite: SlurmSuite) -> list[psutil.Process]:
    """Processes that work in the suite's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(suite.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def ended_attempt(training: Training, job: str) -> None:
    """Wait until another attempt than the job's trains, or the run is finished."""
    wait_until(
        lambda: training.job() not in ("", job) or (training.folder / "finished").exists(), PATIENCE, f"job {job} to be followed by another"
    )


def goes_on_where_it_was(suite: SlurmSuite, undisturbed: Suite, tell: Callable[[Training, str], object]) -> None:
    """A training's job is told to end, and loses no step that had been reported; `tell` gets the training and the job."""
    process = suite.start()
    training = suite.training()
    job, shown = training.job(), training.shown()
    tell(training, job)
    ended_attempt(training, job)
    ends_alike(process, suite, undisturbed)
    assert training.resumed() >= shown


def first_process(training: Training) -> psutil.Process:
    """The first process of the trainer's job step, which is Snakemake: the only one that most clusters signal."""
    chain = [psutil.Process(training.pid()), *psutil.Process(training.pid()).parents()]
    return next(one for one, above in itertools.pairwise(chain) if above.name() == "slurmstepd")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_first_process_of_a_step_reaches_the_trainer(untrained: SlurmSuite, undisturbed: Suite, number: int) -> None:
    def tell(training: Training, job: str) -> None:
        first = first_process(training)
        assert first.pid != training.pid()
        first.send_signal(number)

    goes_on_where_it_was(untrained, undisturbed, tell)


def test_a_job_near_its_time_limit_saves_and_is_resubmitted(untrained: SlurmSuite, undisturbed: Suite) -> None:
    """SLURM looks at the time every half minute: the trainer waits for that, or it would be done before."""

    def tell(training: Training, job: str) -> None:
        trainer = psutil.Process(training.pid())
        trainer.suspend()
        untrained.cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=2")
        wait_until(lambda: is_told(trainer.pid) or training.job() != job, PATIENCE, "the signal")
        with contextlib.suppress(psutil.NoSuchProcess):
            trainer.resume()

    goes_on_where_it_was(untrained, undisturbed, tell)


def is_told(process: int) -> bool:
    """Whether SIGUSR1 has come to a process that has not looked at it yet."""
    with contextlib.suppress(FileNotFoundError):
        found = re.findall(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        return bool(int(found[0], 16) & 1 << (signal.SIGUSR1 - 1))
    return False


def test_a_job_past_its_time_limit_without_a_signal_is_resubmitted(untrained: SlurmSuite, undisturbed: Suite) -> None:
    process = untrained.start()
    training = untrained.training()
    job = training.job()
    trainer, saved = training.pid(), training.saved()
    untrained.cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")

    def submitted_again() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(trainer, signal.SIGSTOP)  # again and again: SLURM wakes what it signals
        return training.job() not in ("", job)

    wait_until(submitted_again, PATIENCE, "the job to be killed and submitted again")
    ends_alike(process, untrained, undisturbed)
    assert training.resumed() >= saved


def test_a_cancelled_job_is_resubmitted(untrained: SlurmSuite, undisturbed: Suite) -> None:
    goes_on_where_it_was(untrained, undisturbed, lambda training, job: untrained.cluster.call("scancel", job))


def test_three_preemptions_of_one_training(untrained: SlurmSuite, undisturbed: Suite) -> None:
    process = untrained.start()
    training = untrained.training()
    job, steps = training.job(), []
    for count in range(1, 4):
        wait_until(training.under_way, PATIENCE, "the job to train again")
        steps.append(training.saved())
        preempt(untrained.cluster, job)
        assert restarts(untrained.cluster, job) == count
    ends_alike(process, untrained, undisturbed)
    assert training.resumed() >= steps[-1] >= steps[0] > 0


def preempt(cluster: Cluster, job: str) -> None:
    """Have jobs of a partition that goes first take every node for a moment, so that the job returns to the queue unless it ends before."""
    before = restarts(cluster, job)
    words = ("sbatch", "--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    urgent = {cluster.call(*words, f"--nodelist={node}").strip() for node in cluster.nodes}
    wait_until(lambda: restarts(cluster, job) > before or job not in cluster.queue(), PATIENCE, "preemption")
    wait_until(lambda: not urgent & set(cluster.queue()), PATIENCE, "the urgent jobs to end")


def restarts(cluster: Cluster, job: str) -> int:
    """How many times SLURM has put a job back into the queue."""
    text = cluster.call("scontrol", "show", "job", job)
    return int(text.split("Restarts=")[1].split()[0])


def test_kill_nine_of_a_node_and_its_steps(untrained: SlurmSuite, undisturbed: Suite) -> None:
    cluster = untrained.cluster
    process = untrained.start()
    training = untrained.training()
    job, saved = training.job(), training.saved()
    node = cluster.call("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()
    cluster.kill_node(node)
    time.sleep(1)
    cluster.start_node(node)
    wait_until(lambda: restarts(cluster, job) > 0 or training.job() not in ("", job), PATIENCE, "the job to be put back into the queue")
    ends_alike(process, untrained, undisturbed)
    assert training.resumed() >= saved
    cluster.wait(lambda: set(cluster.states()) == {"idle"}, PATIENCE, "all nodes to be idle again")


def test_kill_nine_of_the_controller_and_its_restart(untrained: SlurmSuite, undisturbed: Suite) -> None:
    """Jobs that are running run on; what Snakemake asks in the meantime goes unanswered."""
    process = untrained.start()
    untrained.training()
    untrained.cluster.kill_controller()
    time.sleep(10)
    assert process.poll() is None
    untrained.cluster.start_controller()
    ends_alike(process, untrained, undisturbed)


def test_kill_nine_of_snakemake_then_the_same_command(untrained: SlurmSuite, undisturbed: Suite) -> None:
    process = untrained.start()
    training = untrained.training()
    shown = training.shown()
    process.kill()
    process.communicate()
    left = untrained.cluster.queue()
    assert left, "its jobs outlive it"
    output = ends_alike(untrained.start(), untrained, undisturbed)
    assert f"cancelling {len(left)} jobs that an earlier run left" in output
    assert training.resumed() >= shown
