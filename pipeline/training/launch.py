"""Launch a training in several processes: with torchrun's launcher on one node; on several nodes, srun starts one launcher on each.

    pipeline train SPEC             runtime.gpus: 4                starts four processes and waits for them
    srun pipeline train SPEC        runtime.nodes: 2, gpus: 4      the same on each node; the eight form one group
    torchrun --nproc-per-node 4 --no-python pipeline train SPEC    by hand

The `torchrun` command itself kills its children at the first signal, prints a traceback, and loses their exit codes. Its launcher, called as a
function, leaves signals to us: each is forwarded to all workers, which save after the same step and exit with code 75, as does the launcher.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.config.config_file import Runtime
from pipeline.job_settings import pipeline_command
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.training.processes import LOST, check_division
from pipeline.training.run_spec import RunSpec, read_run
from pipeline.training.signals import HANDLED, RESUMABLE

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CONF", "SLURM_CLUSTER_NAME")
"""SLURM variables of the job, which a new step needs. The others describe the current step."""
PORTS = range(20_000, 30_000)
"""Ports for the rendezvous of launchers on several nodes; one per job."""


def is_rank() -> bool:
    """Whether this process is a rank of a distributed training."""
    return "RANK" in os.environ


def launch(spec: Path, runtime: Runtime, arguments: list[str]) -> int:
    """Train a run in several processes, each running `pipeline` with these arguments; return their combined exit code.

    Raises UserError, before any process starts, if the run cannot be divided among that many.
    """
    run, processes = read_run(spec), runtime.nodes * runtime.per_node
    check_division(run, spec, processes)
    if int(os.environ.get("SLURM_STEP_NUM_NODES", "1")) < runtime.nodes:
        return _on_every_node(runtime.nodes, arguments)
    return _launch(run, runtime, arguments)


def _on_every_node(nodes: int, arguments: list[str]) -> int:
    """Start this command on each node of the job, in a new step."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise UserError(f"runtime.nodes: {nodes} asked for, but this is no SLURM job; expected 1 here")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in KEPT}
    words = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)  # SLURM signals the new step itself
    return subprocess.run([*words, *pipeline_command(), *arguments], env=environment, check=False).returncode


def _launch(run: RunSpec, runtime: Runtime, arguments: list[str]) -> int:
    """Start this node's processes, forward signals to them, and wait for them."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    config = _config(run, runtime)
    logging.disable(logging.ERROR)  # of the launcher; each process reports its own errors
    for number in HANDLED:
        signal.signal(number, _forward)
    try:
        program, *words = pipeline_command()
        elastic_launch(config, program)(*words, *arguments)
    except ChildFailedError as error:
        return combined_exit_code(run, [(rank, failure.exitcode) for rank, failure in error.failures.items()])
    except RendezvousError as error:
        raise UserError(f"runtime.nodes: {runtime.nodes} nodes did not reach each other at {config.rdzv_endpoint} ({error})") from error
    return 0


def _config(run: RunSpec, runtime: Runtime) -> LaunchConfig:
    from torch.distributed.launcher.api import LaunchConfig

    job = os.environ.get("SLURM_JOB_ID", "0")
    shared: dict[str, Any] = {"rdzv_backend": "c10d", "max_restarts": 0, "signals_to_handle": "", "run_id": f"{run.id}-{job}"}
    nodes = {"min_nodes": runtime.nodes, "max_nodes": runtime.nodes, "nproc_per_node": runtime.per_node}
    return LaunchConfig(**nodes, rdzv_endpoint=_rendezvous_endpoint(runtime.nodes, int(job)), **shared)


def _rendezvous_endpoint(nodes: int, job: int) -> str:
    """Return the rendezvous endpoint: any free port on a single node, else a port of the job's first node."""
    if nodes == 1:
        return "localhost:0"
    first = _scontrol("hostnames", os.environ["SLURM_STEP_NODELIST"]).split()[0]
    fields = dict(field.split("=", 1) for field in _scontrol("node", first).split() if "=" in field)
    return f"{fields.get('NodeAddr', first)}:{PORTS[job % len(PORTS)]}"


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", "show", *words], capture_output=True, text=True, check=True).stdout


def _forward(number: int, _: Any) -> None:
    """Forward the signal to all local workers; workers that have exited are skipped."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.send_signal(number)


def combined_exit_code(run: RunSpec, exits: Iterable[tuple[int, int]]) -> int:
    """Combine the ranks' exit codes; report ranks killed by a signal."""
    codes = {rank: code for rank, code in exits if code not in (LOST, -signal.SIGTERM)}
    for rank, code in codes.items():
        if code < 0:
            print0(f"{run.id}: rank {rank} was killed by {signal.Signals(-code).name}; the same command resumes from the newest checkpoint")
    if not codes:
        print0(f"{run.id}: the ranks of another node have exited; the same command resumes from the newest checkpoint")
    distinct = set(codes.values())
    return 2 if 2 in distinct else RESUMABLE if distinct == {RESUMABLE} else 1
