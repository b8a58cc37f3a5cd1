"""SLURM: check the partitions, cancel leftover jobs, forward signals inside a job.

A wrong partition or an unreachable controller would otherwise fail every job one by one, each with pages of output. Jobs that an
earlier pipeline left in the queue would write beside the new ones, so the new owner of a results folder cancels them first.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.storage.errors import UserError

JOB_NAME_PREFIX = "recurlab_"
"""Prefix of the names of this pipeline's jobs: `slurm-jobname-prefix` of profiles/slurm."""
LOG_FOLDER = Path("logs", "slurm")
"""Below results/, where profiles/slurm keeps SLURM's logs: it exists only where jobs were submitted from."""
COMMAND_TIMEOUT = 30.0
"""Seconds a client command of SLURM may take."""
CANCEL_TIMEOUT = 180.0
"""Seconds to wait for cancelled jobs to end: they save a checkpoint first."""


def check_partitions(partitions: Sequence[str]) -> None:
    """Raise UserError if SLURM is not installed, does not answer, or has no partition of one of these names."""
    if not shutil.which("sbatch"):
        raise UserError("slurm: sbatch is not on PATH; start Snakemake on a login node of the cluster, or without profiles/slurm")
    known = _call("sinfo", "--noheader", "--format=%R").split()
    for name in partitions:
        if name not in known:
            raise UserError(f"profiles/slurm/config.yaml: slurm_partition: got {name}, expected one of {', '.join(sorted(set(known)))}")


def cancel_leftover_jobs(results: Path, previous_owner: Mapping[str, Any] | None) -> None:
    """Cancel the jobs that an earlier owner of this folder left in the queue, and wait until they have saved and ended.

    Raises UserError if that owner ran on another host: whether its process is still alive can only be told on the same host.
    """
    if not (results / LOG_FOLDER).exists() or not shutil.which("squeue"):
        return
    jobs = list(_queued_jobs())
    if not jobs:
        return
    host = (previous_owner or {}).get("host")
    if host != socket.gethostname():
        raise UserError(
            f"{results}: {len(jobs)} jobs of a pipeline on {host} are in SLURM's queue; wait for it, stop it there, "
            f"or if it is dead run: scancel {' '.join(jobs)}"
        )
    print(f"{results}: cancelling {len(jobs)} jobs that an earlier run left in SLURM's queue", file=sys.stderr)
    _call("scancel", *jobs)
    end = time.monotonic() + CANCEL_TIMEOUT
    while jobs := list(_queued_jobs()):
        if time.monotonic() > end:
            raise UserError(f"{results}: cancelled jobs {', '.join(jobs)} have not ended after {CANCEL_TIMEOUT:.0f} s; try again later")
        time.sleep(0.5)


def _queued_jobs() -> Iterator[str]:
    """Yield identifiers of this user's queued or running jobs that this pipeline submitted from the current folder."""
    for line in _call("squeue", "--me", "--noheader", "--array", "--format=%i|%j|%Z").splitlines():
        job, name, folder = line.split("|", 2)
        if name.startswith(JOB_NAME_PREFIX) and Path(folder).resolve() == Path.cwd():
            yield job


def _call(*command: str) -> str:
    """Return the standard output of a client command of SLURM. Raises UserError if the controller does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"slurm: {command[0]} timed out after {COMMAND_TIMEOUT:.0f} s; try again when the controller is back") from None
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"slurm: the controller does not answer ({message}); try again when it is back")
    return done.stdout


def forward_signals() -> None:
    """Forward SIGTERM and SIGUSR1 to this process's children if it is the first process of a SLURM step.

    On some clusters SLURM signals every process of a step, on most (proctrack/cgroup) only the first one, which is Snakemake: the trainer
    below it would never receive the signal. Snakemake installs its own SIGTERM handler later, so this reads Python's wake-up file
    descriptor, which receives every signal that has a handler.
    """
    leads = os.getpid() == os.getpgrp() and "SLURM_STEP_ID" in os.environ
    if not leads or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    threading.Thread(target=_forward, args=(reader,), name="forward-signals", daemon=True).start()


def _forward(reader: int) -> None:
    """Send each signal to the process group once: this process is in the group too, and would otherwise forward its own signal forever."""
    waiting = {int(signal.SIGTERM), int(signal.SIGUSR1)}
    while waiting:
        for number in os.read(reader, 64):
            if number in waiting:
                waiting.remove(number)
                os.killpg(0, number)
