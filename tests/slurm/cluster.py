"""A real SLURM of several nodes on this one machine, each with a fake GPU, in a folder of its own.

It touches nothing of the system's: its own munge key and socket, its own ports, and wrappers of the client commands that name its
slurm.conf, since job steps of Snakemake drop every SLURM_* variable, SLURM_CONF with them. A guard ends what it started, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
CPUS = 4
MEMORY = 8000
KILL_WAIT = 30
"""Seconds between SIGTERM and SIGKILL: SLURM's own default."""
WRITING = 6
"""Seconds after which the controller has written down what has happened."""
CONFIG = """\
ClusterName=recurlab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait={kill_wait}
OverTimeLimit=0
MinJobAge=300
GresTypes=gpu
DefMemPerCPU=500
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 DefaultTime=10 State=UP PriorityTier=1
PartitionName=gpu Nodes=ALL MaxTime=1-0 DefaultTime=10 State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=1-0 DefaultTime=10 State=UP PriorityTier=9 PreemptMode=OFF
"""

SACCT = """\
#!/bin/sh
for name; do :; done
exec {squeue} --states=all --noheader --format='%i|%T' --name "$name"
"""
"""What jobs with the name in the last word have come to. Accounting needs a database, which is not here; the controller knows as much for a while."""


def missing() -> str | None:
    """Why no cluster can be had on this machine; None where one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "SLURM's daemons are started as root on Linux"
    absent = [name for name in (*DAEMONS, *CLIENTS) if not _program(name)]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


class Cluster:
    """The daemons and their folder. `environment` is what a user of the cluster has."""

    def __init__(self, nodes: int = 3) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.ports = dict(zip(["control", *self.nodes], free_ports(nodes + 1), strict=True))
        self.environment = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.pids: dict[str, int] = {}
        # It sees the end of this process by the end of its standard input: what a kill -9 of the tests leaves behind ends as well.
        self.guard = subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.guard", str(self.folder)], cwd=REPOSITORY, stdin=subprocess.PIPE, start_new_session=True
        )

    def up(self) -> None:
        """Start everything and wait until all nodes are idle."""
        for name in ("bin", "dev", "log", "run", "spool", "state"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        self._write()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        (self.folder / "log").chmod(0o700)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "run/munged.pid", "log-file": "log/munged.log"}
        self._daemon("munged", "--force", *(f"--{name}={self.folder / file}" for name, file in {**files, "seed-file": "seed"}.items()))
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait(lambda: set(self.states()) == {"idle"}, 20, "all nodes to be idle")

    def down(self) -> None:
        """End everything that belongs to the cluster by its process numbers, and remove the folder."""
        assert self.guard.stdin
        self.guard.stdin.close()
        self.guard.wait(60)

    def start_controller(self) -> None:
        """Start the controller, with what the last one wrote down."""
        self._daemon("slurmctld")

    def kill_controller(self) -> None:
        """kill -9 of the controller: jobs run on, and nobody answers the client commands.

        It writes down what it knows every five seconds at the latest. A job that it forgot to have started it would start again, and then hold.
        """
        time.sleep(WRITING)
        psutil.Process(self.pids["slurmctld"]).kill()

    def start_node(self, node: str) -> None:
        """Start one node's slurmd."""
        self._daemon("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """kill -9 of a node: its slurmd, the steps it started, and all of their processes. As a power cut would."""
        doomed = [psutil.Process(self.pids[f"slurmd-{node}"])]
        for step in self.steps(node):
            doomed += [step, *step.children(recursive=True)]
        for process in doomed:
            if process.is_running():
                process.kill()

    def steps(self, node: str = "") -> list[psutil.Process]:
        """The slurmstepd processes of this cluster, or of one node."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.name() == "slurmstepd" and any(
                    str(self.folder) in file.path and f"slurmd-{node}" in file.path for file in process.open_files()
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def states(self) -> list[str]:
        """The state of each node; none while the controller does not answer."""
        answer = self.call("sinfo", "--noheader", "--Node", "--partition=main", "--format=%t", check=False)
        return answer.split() if answer else ["unknown"]

    def queue(self, form: str = "%i") -> list[str]:
        """Jobs that wait or run, a line each."""
        return self.call("squeue", "--noheader", f"--format={form}").splitlines()

    def call(self, *words: str, check: bool = True) -> str:
        """The output of a client command."""
        done = subprocess.run(list(words), env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Poll until the condition holds; fail with the controller's log."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what}\n{(self.folder / 'log' / 'slurmctld.log').read_text()[-3000:]}"
            time.sleep(0.1)

    def _write(self) -> None:
        """slurm.conf, gres.conf and the wrappers of the clients."""
        host = socket.gethostname().split(".")[0]
        lines = [CONFIG.format(host=host, port=self.ports["control"], folder=self.folder, kill_wait=KILL_WAIT)]
        for node in self.nodes:
            os.mknod(self.folder / "dev" / f"gpu-{node}", 0o20666, os.makedev(1, 3))
            shape = f"CPUs={CPUS} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory={MEMORY}"
            place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={self.ports[node]}"
            lines.append(f"NodeName={node} {place} {shape} Gres=gpu:fake:1 State=UNKNOWN")
        # Nodes have to come before the partitions that name ALL of them.
        text = "\n".join(lines)
        partitions = "".join(line + "\n" for line in text.splitlines() if line.startswith("PartitionName"))
        rest = "".join(line + "\n" for line in text.splitlines() if line and not line.startswith("PartitionName"))
        (self.folder / "slurm.conf").write_text(rest + partitions)
        gres = [f"NodeName={node} Name=gpu Type=fake File={self.folder}/dev/gpu-{node}" for node in self.nodes]
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        for name in CLIENTS:
            wrapper = self.folder / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {_program(name)} "$@"\n')
            wrapper.chmod(0o755)
        sacct = self.folder / "bin" / "sacct"
        sacct.write_text(SACCT.format(squeue=self.folder / "bin" / "squeue"))
        sacct.chmod(0o755)

    def _daemon(self, *words: str) -> None:
        """Start a daemon, which goes to the background by itself, and remember its process number."""
        name = words[0] if words[0] != "slurmd" else f"slurmd-{words[2]}"
        pid_file = self.folder / "run" / f"{name}.pid"
        pid_file.unlink(missing_ok=True)
        program = str(_program(words[0]))
        done = subprocess.run(
            [program, *words[1:]], env={**os.environ, **self.environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        assert done.returncode == 0, f"{name}: {done.stdout.decode()}"
        self.wait(lambda: pid_file.exists() and pid_file.read_text().strip().isdigit(), 10, f"{name} to start")
        self.pids[name] = int(pid_file.read_text())
