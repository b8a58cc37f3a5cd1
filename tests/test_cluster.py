"""What is looked at before jobs are submitted, with stand-ins for the commands of SLURM and Apptainer. tests/slurm has the real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import cluster
from pipeline.cluster import Launch, cancel_left
from pipeline.storage.errors import UserError
from tests.training.deaths import wait_for


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that is all there is on the path; the current folder is an empty one with traces of SLURM jobs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    work = tmp_path / "work"
    (work / "results" / "logs" / "slurm").mkdir(parents=True)
    monkeypatch.chdir(work)
    return folder


def command(folder: Path, name: str, script: str) -> None:
    """A command that is a shell script."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


class Method(Enum):
    """Snakemake's DeploymentMethod."""

    APPTAINER = 1


def workflow(methods: tuple[Method, ...] = (), default: str | None = None, train: str | None = None) -> SimpleNamespace:
    """What Launch reads of Snakemake's object."""
    blocks = [{"slurm_partition": SimpleNamespace(raw=name)} if name else {} for name in (default, train)]
    resources = SimpleNamespace(default_resources=blocks[0], overwrite_resources={"train": blocks[1]})
    deployment = SimpleNamespace(deployment_method=set(methods))
    return SimpleNamespace(resource_settings=resources, deployment_settings=deployment)


def test_a_launch_is_what_the_profile_and_the_command_line_say() -> None:
    plain = workflow()
    plain.resource_settings.default_resources = None
    assert Launch.of(plain, "x.sif") == Launch([], None)
    asked = workflow((Method.APPTAINER,), default="'main'", train="gpu")
    assert Launch.of(asked, "x.sif") == Launch(["main", "gpu"], "x.sif")


def test_nothing_is_asked_where_jobs_run_here(commands: Path) -> None:
    Launch().check()
    cancel_left(Path("results"), None)


def test_partitions_are_looked_up(commands: Path) -> None:
    with pytest.raises(UserError, match=r"^slurm: sbatch is not on the path; start Snakemake on a host of the cluster"):
        Launch(["main"]).check()
    command(commands, "sbatch", "")
    command(commands, "sinfo", "echo main; echo gpu")
    Launch(["main", "gpu"]).check()
    with pytest.raises(UserError, match=r"^profiles/slurm/config\.yaml: slurm_partition: got big, expected one of gpu, main$"):
        Launch(["main", "big"]).check()


def test_a_controller_that_fails_or_is_silent_is_one_line(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(commands, "sbatch", "")
    command(commands, "sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match=r"^slurm: the controller does not answer \(slurm_load_partitions: Unable to contact"):
        Launch(["main"]).check()
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    command(commands, "sinfo", "exec /bin/sleep 5")
    with pytest.raises(UserError, match=r"^slurm: sinfo got no answer from the controller"):
        Launch(["main"]).check()


def test_an_image_has_to_be_there(commands: Path) -> None:
    with pytest.raises(UserError, match=r"^apptainer: not on the path"):
        Launch(image="x.sif").check()
    command(commands, "apptainer", "")
    with pytest.raises(UserError, match=r"^runtime\.container: x\.sif: no such image; 'make sif' builds"):
        Launch(image="x.sif").check()
    Path("x.sif").touch()
    Launch(image="x.sif").check()
    Launch(image="docker://somewhere/recurlab:cpu").check()


def test_an_image_is_held_open_until_this_process_ends(commands: Path) -> None:
    """On this host only: jobs of a cluster run elsewhere."""
    command(commands, "apptainer", 'echo "$@" > words; while read -r line; do :; done; echo closed > ended')
    Path("x.sif").touch()
    for elsewhere in (Launch(), Launch(["main"], "x.sif"), Launch(image="docker://somewhere/recurlab:cpu")):
        elsewhere.keep_mounted()
        assert not elsewhere.held
    launch = Launch(image="x.sif")
    launch.keep_mounted()
    wait_for(lambda: Path("words").exists() and Path("words").read_text())
    assert Path("words").read_text() == "--quiet exec x.sif cat\n"
    assert not Path("ended").exists()
    launch.held[0].communicate()  # closes its standard input, as the end of this process does
    assert Path("ended").exists()


def test_jobs_left_behind_are_cancelled_and_waited_for(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path.cwd()
    command(commands, "scancel", 'echo "$@" > cancelled')
    command(commands, "squeue", f"[ -e cancelled ] || printf '7|recurlab_a|{here}\\n8|recurlab_a|/elsewhere\\n9|mine|{here}\\n'")
    cancel_left(Path("results"), {"host": socket.gethostname()})
    assert Path("cancelled").read_text() == "7\n"
    assert capsys.readouterr().err == "results: cancelling 1 jobs that an earlier run left in SLURM's queue\n"


def test_jobs_that_do_not_end_and_those_of_another_host_are_one_line(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LEAVING", 0.1)
    command(commands, "scancel", "")
    command(commands, "squeue", f"echo '7|recurlab_a|{Path.cwd()}'")
    with pytest.raises(UserError, match=r"^results: jobs 7 were cancelled and have not ended after 0 s; run again later$"):
        cancel_left(Path("results"), {"host": socket.gethostname()})
    with pytest.raises(UserError, match=r"^results: 1 jobs of a pipeline on elsewhere are in SLURM's queue; .* scancel 7$"):
        cancel_left(Path("results"), {"host": "elsewhere"})


LEADER = """
import signal, subprocess, sys
from pipeline.cluster import relay_signals
relay_signals()
signal.signal(signal.SIGTERM, lambda number, frame: None)
child = subprocess.Popen([sys.executable, "-c", '''
import signal, sys
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: print(number, flush=True))
print("ready", flush=True)
sys.stdin.read()
'''])
print(child.wait())
"""


def leader(step: str | None) -> subprocess.Popen[str]:
    """The first process of a job's step, or of none, whose child has said that it is ready and ends when its standard input does."""
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_STEP_ID"} | ({"SLURM_STEP_ID": step} if step else {})
    command = [sys.executable, "-c", LEADER]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_the_first_process_of_a_step_passes_signals_on() -> None:
    process = leader("0")
    assert process.stdout
    for number in (signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
        assert process.stdout.readline() == f"{number:d}\n"
    assert process.communicate()[0] == "0\n"


def test_a_process_that_is_not_of_a_step_keeps_signals_to_itself() -> None:
    process = leader(None)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # for a signal that is passed on after all
    assert process.communicate()[0] == "0\n"


INTERRUPTED = """
import signal, threading
from snakemake.scheduling.job_scheduler import JobScheduler
from pipeline.cluster import hear_apart
hear_apart()
hear_apart()
scheduler = JobScheduler.__new__(JobScheduler)
scheduler._lock, scheduler._open_jobs, scheduler._user_kill = threading.Lock(), threading.Semaphore(0), None
signal.signal(signal.SIGTERM, scheduler.exit_gracefully)
with scheduler._lock, scheduler._open_jobs._cond:
    signal.raise_signal(signal.SIGTERM)
assert scheduler._open_jobs.acquire(timeout=30)
print(scheduler._user_kill)
"""


def test_a_signal_while_snakemake_holds_its_locks_is_heard_when_it_lets_go() -> None:
    """Its own handler would wait for the locks in the thread that holds them."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("graceful\n", 0), done.stderr
