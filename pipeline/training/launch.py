"""Starting a training in several processes: torchrun's launcher on each node, and on several nodes one launcher each, by srun.

    pipeline train SPEC             runtime.gpus: 4                starts four, and waits for them
    srun pipeline train SPEC        runtime.nodes: 2, gpus: 4      on each node the same, and the eight find each other
    torchrun --nproc-per-node 4 --no-python pipeline train SPEC    by hand: the four that are started find each other

torchrun's own command stops at the first signal for its children, prints a trace, and forgets their exit codes. Called as a function it leaves
signals to us: each goes to all processes, which save after the same step and leave with code 75, and so does the launcher.
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

from pipeline.config.experiment import Runtime
from pipeline.job_settings import pipeline_command
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.training.processes import LOST, check_division
from pipeline.training.signals import NOTED, RESUMABLE
from pipeline.training.spec import RunSpec, read_run

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CONF", "SLURM_CLUSTER_NAME")
"""What a step is told of the job it belongs to. The rest describes the step that starts it."""
PORTS = range(20_000, 30_000)
"""Where launchers on several nodes meet: a port for each job."""


def is_member() -> bool:
    """Whether this process was started as one of those that share a training."""
    return "RANK" in os.environ


def launch(spec: Path, runtime: Runtime, arguments: list[str]) -> int:
    """Train a run in several processes: `pipeline` with these arguments in each. Returns their exit code.

    Raises UserError, before anything is started, where the run cannot be shared among so many.
    """
    run, processes = read_run(spec), runtime.nodes * runtime.per_node
    check_division(run, spec, processes)
    if int(os.environ.get("SLURM_STEP_NUM_NODES", "1")) < runtime.nodes:
        return _on_every_node(runtime.nodes, arguments)
    return _launch(run, runtime, arguments)


def _on_every_node(nodes: int, arguments: list[str]) -> int:
    """Start this very command on each node of the job, beside the step that this process may be in."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise UserError(f"runtime.nodes: {nodes} asked for, but this is no SLURM job; expected 1 here")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in KEPT}
    words = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    for number in NOTED:
        signal.signal(number, signal.SIG_IGN)  # SLURM tells the step itself
    return subprocess.run([*words, *pipeline_command(), *arguments], env=environment, check=False).returncode


def _launch(run: RunSpec, runtime: Runtime, arguments: list[str]) -> int:
    """Start this node's processes, hand signals on to them, and wait for them."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    config = _config(run, runtime)
    logging.disable(logging.ERROR)  # the launcher's; each process has its own say
    for number in NOTED:
        signal.signal(number, _hand_on)
    try:
        program, *words = pipeline_command()
        elastic_launch(config, program)(*words, *arguments)
    except ChildFailedError as error:
        return verdict(run, [(place, failure.exitcode) for place, failure in error.failures.items()])
    except RendezvousError as error:
        raise UserError(f"runtime.nodes: {runtime.nodes} nodes do not find each other at {config.rdzv_endpoint} ({error})") from error
    return 0


def _config(run: RunSpec, runtime: Runtime) -> LaunchConfig:
    from torch.distributed.launcher.api import LaunchConfig

    job = os.environ.get("SLURM_JOB_ID", "0")
    shared: dict[str, Any] = {"rdzv_backend": "c10d", "max_restarts": 0, "signals_to_handle": "", "run_id": f"{run.id}-{job}"}
    nodes = {"min_nodes": runtime.nodes, "max_nodes": runtime.nodes, "nproc_per_node": runtime.per_node}
    return LaunchConfig(**nodes, rdzv_endpoint=_meeting_place(runtime.nodes, int(job)), **shared)


def _meeting_place(nodes: int, job: int) -> str:
    """Host and port: of one node any free port, of several one on the first node of the job's list."""
    if nodes == 1:
        return "localhost:0"
    first = _scontrol("hostnames", os.environ["SLURM_STEP_NODELIST"]).split()[0]
    facts = dict(fact.split("=", 1) for fact in _scontrol("node", first).split() if "=" in fact)
    return f"{facts.get('NodeAddr', first)}:{PORTS[job % len(PORTS)]}"


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", "show", *words], capture_output=True, text=True, check=True).stdout


def _hand_on(number: int, _: Any) -> None:
    """Tell every process of this node what this one was told. One that has ended, and a second signal in here, do no harm."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.send_signal(number)


def verdict(run: RunSpec, ends: Iterable[tuple[int, int]]) -> int:
    """The exit code of a training whose processes ended with these, by number; a death that left no word of its own is put into one."""
    codes = {place: code for place, code in ends if code not in (LOST, -signal.SIGTERM)}
    for place, code in codes.items():
        if code < 0:
            print0(
                f"{run.id}: process {place} was killed by {signal.Signals(-code).name}; the same command goes on from the newest checkpoint"
            )
    if not codes:
        print0(f"{run.id}: the processes of another node have ended; the same command goes on from the newest checkpoint")
    found = set(codes.values())
    return 2 if 2 in found else RESUMABLE if found == {RESUMABLE} else 1
