"""What SLURM and Apptainer need before any job is started, and what a job needs when SLURM signals it.

A wrong partition, a silent controller or a missing image would otherwise fail every job one by one, each with pages of output. Jobs that an
earlier pipeline left in the queue would write beside the new ones, so the new owner of a results folder cancels them first.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.storage.atomic import write_json
from pipeline.storage.errors import UserError

JOBS = "recurlab_"
"""What the names of this pipeline's jobs begin with: `slurm-jobname-prefix` of profiles/slurm."""
LOGS = Path("logs", "slurm")
"""Below results/, where profiles/slurm keeps SLURM's logs: there only where jobs were submitted from."""
PROGRAMS = ("apptainer", "singularity")
"""What runs an image; the first that is there."""
PATIENCE = 30.0
"""Seconds a client command of SLURM may take."""
LEAVING = 180.0
"""Seconds to wait for cancelled jobs to end: they save a checkpoint first."""


@dataclass(frozen=True)
class Launch:
    """How Snakemake was asked to run the jobs: partitions are empty without SLURM, the image is None without Apptainer.

    held: processes that hold the image open, each until its standard input is closed.
    """

    partitions: list[str] = field(default_factory=list)
    image: str | None = None
    held: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False)

    @property
    def shell(self) -> str:
        """What the shell of every job does first, so that `pipeline` is this very package, in a container the image's own.

        Neither depends on PATH, the working folder or, in a container, on the host's PYTHONPATH. Braces are doubled: Snakemake formats it.
        """
        if self.image is not None:
            return "unset PYTHONPATH PYTHONHOME"
        command = shlex.join(own_command()).replace("{", "{{").replace("}", "}}")
        return f'pipeline() ( exec {command} "$@" )'

    @classmethod
    def of(cls, workflow: Any, container: str) -> Launch:
        """What the profile and the command line say. `workflow` is Snakemake's own object, `container` is runtime.container."""
        settings = workflow.resource_settings
        blocks: list[Mapping[str, Any]] = [settings.default_resources or {}, *settings.overwrite_resources.values()]
        names = [str(block["slurm_partition"].raw) for block in blocks if "slurm_partition" in block]
        methods = {method.name for method in workflow.deployment_settings.deployment_method}
        return cls(list(dict.fromkeys(name.strip("'\"") for name in names)), container if "APPTAINER" in methods else None)

    def check(self) -> None:
        """Raise UserError, one line, where no job could start."""
        if self.partitions:
            self._check_partitions()
        if self.image is not None:
            _check_image(self.image)

    def name_image(self, results: Path) -> None:
        """Tell all jobs the digest of the image they run in, which an image cannot hold itself: trainings write it down."""
        if self.image is not None and "://" not in self.image:
            os.environ["APPTAINERENV_RECURLAB_IMAGE"] = image_digest(Path(self.image), results / ".pipeline" / "image.json")

    def keep_mounted(self) -> None:
        """Hold the image of jobs on this host open until this process ends, however it does.

        Where Apptainer shares loop devices, jobs then find what others have read unpacked in memory; elsewhere this changes nothing.
        """
        if self.image is not None and not self.partitions and Path(self.image).is_file():
            program = next(name for name in PROGRAMS if shutil.which(name))
            words, nowhere = [program, "--quiet", "exec", self.image, "cat"], subprocess.DEVNULL
            # cat reads until the other end of the pipe is closed, which no other process inherits.
            self.held.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True))

    def _check_partitions(self) -> None:
        if not shutil.which("sbatch"):
            raise UserError("slurm: sbatch is not on the path; start Snakemake on a host of the cluster, or without profiles/slurm")
        known = _call("sinfo", "--noheader", "--format=%R").split()
        for name in self.partitions:
            if name not in known:
                raise UserError(f"profiles/slurm/config.yaml: slurm_partition: got {name}, expected one of {', '.join(sorted(set(known)))}")


def own_command() -> list[str]:
    """What runs the `pipeline` command of the package that this process has loaded, with the same Python; its arguments follow."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pipeline.__main__ import main; main()"
    return [sys.executable, "-P", "-c", code, str(Path(__file__).resolve().parents[1])]


def _check_image(image: str) -> None:
    if not any(shutil.which(name) for name in PROGRAMS):
        raise UserError("apptainer: not on the path; install it, or run without --sdm apptainer")
    if "://" not in image and not Path(image).exists():
        raise UserError(f"runtime.container: {image}: no such image; 'make sif' builds containers/recurlab.sif")


def image_digest(image: Path, known: Path) -> str:
    """SHA-256 of an image. It is long to read, so the answer is kept in the file `known` until size or time of the image change."""
    status = image.stat()
    stamp = [str(image.resolve()), status.st_size, status.st_mtime_ns]
    with contextlib.suppress(OSError, ValueError, KeyError):
        kept = json.loads(known.read_text(encoding="utf-8"))
        if kept["stamp"] == stamp:
            return str(kept["digest"])
    if image.is_dir():
        return "sandbox"
    with image.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    write_json(known, {"stamp": stamp, "digest": digest})
    return digest


def cancel_left(results: Path, before: Mapping[str, Any] | None) -> None:
    """Cancel the jobs that an earlier owner of this folder left in the queue, and wait until they have saved and ended.

    before: that owner, whose process is known to be gone only where it ran on this host. Raises UserError where it ran on another one.
    """
    if not (results / LOGS).exists() or not shutil.which("squeue"):
        return
    left = list(_ours())
    if not left:
        return
    host = (before or {}).get("host")
    if host != socket.gethostname():
        raise UserError(
            f"{results}: {len(left)} jobs of a pipeline on {host} are in SLURM's queue; wait for it, or stop it there, "
            f"or if it is dead: scancel {' '.join(left)}"
        )
    print(f"{results}: cancelling {len(left)} jobs that an earlier run left in SLURM's queue", file=sys.stderr)
    _call("scancel", *left)
    end = time.monotonic() + LEAVING
    while left := list(_ours()):
        if time.monotonic() > end:
            raise UserError(f"{results}: jobs {', '.join(left)} were cancelled and have not ended after {LEAVING:.0f} s; run again later")
        time.sleep(0.5)


def _ours() -> Iterator[str]:
    """Identifiers of this user's jobs that were submitted from this folder by this pipeline and have not ended."""
    for line in _call("squeue", "--me", "--noheader", "--array", "--format=%i|%j|%Z").splitlines():
        job, name, folder = line.split("|", 2)
        if name.startswith(JOBS) and Path(folder).resolve() == Path.cwd():
            yield job


def _call(*words: str) -> str:
    """What a client command of SLURM prints. Raises UserError where the controller does not answer."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"slurm: {words[0]} got no answer from the controller in {PATIENCE:.0f} s; try again when it is back") from None
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"slurm: the controller does not answer ({message}); try again when it is back")
    return done.stdout


def relay_signals() -> None:
    """Pass SIGTERM and SIGUSR1 on to what this job runs, where this process is the first one of a SLURM step.

    SLURM tells some clusters' every process of a step, on most (proctrack/cgroup) the first one alone, which is Snakemake: the trainer
    below it would never hear of its end. Snakemake sets its own handler of SIGTERM later, so what is read here is Python's wake-up pipe,
    which every signal reaches that has a handler.
    """
    leads = os.getpid() == os.getpgrp() and "SLURM_STEP_ID" in os.environ
    if not leads or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    threading.Thread(target=_relay, args=(reader,), name="relay", daemon=True).start()


def _relay(reader: int) -> None:
    """Send each signal to the process group once: this process is in the group, and would hear its own call for ever."""
    waiting = {int(signal.SIGTERM), int(signal.SIGUSR1)}
    while waiting:
        for number in os.read(reader, 64):
            if number in waiting:
                waiting.remove(number)
                os.killpg(0, number)


@functools.cache
def hear_apart() -> None:
    """From now on have Snakemake's handler of SIGTERM do its work in a thread of its own.

    It takes locks that the thread it interrupts may be holding, Snakemake's own and that of a semaphore: it would wait for itself for ever.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    handler = JobScheduler.exit_gracefully

    def exit_gracefully(scheduler: JobScheduler, *arguments: Any) -> None:
        threading.Thread(target=handler, args=(scheduler, *arguments), name="exit", daemon=True).start()

    JobScheduler.exit_gracefully = exit_gracefully  # pyright: ignore[reportAttributeAccessIssue]
