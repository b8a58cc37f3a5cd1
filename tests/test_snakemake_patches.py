"""The patches of Snakemake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = """
import signal, threading
from snakemake.scheduling.job_scheduler import JobScheduler
from pipeline.snakemake_patches import patch_snakemake_sigterm_deadlock
patch_snakemake_sigterm_deadlock()
patch_snakemake_sigterm_deadlock()
scheduler = JobScheduler.__new__(JobScheduler)
scheduler._lock, scheduler._open_jobs, scheduler._user_kill = threading.Lock(), threading.Semaphore(0), None
signal.signal(signal.SIGTERM, scheduler.exit_gracefully)
with scheduler._lock, scheduler._open_jobs._cond:
    signal.raise_signal(signal.SIGTERM)
assert scheduler._open_jobs.acquire(timeout=30)
print(scheduler._user_kill)
"""


def test_sigterm_while_snakemake_holds_its_locks_does_not_deadlock() -> None:
    """Snakemake's own handler would wait for the locks in the thread that holds them."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("graceful\n", 0), done.stderr


# `seal` writes its file and ends two seconds after the checkpoint: Snakemake examines the graph again while `seal` is still running.
FORGETFUL = """
from pipeline.snakemake_patches import patch_snakemake_ancient_masking

if int(config["patched"]):
    patch_snakemake_ancient_masking()
VERSION = config["version"]

def scores(wildcards):
    checkpoints.choose.get()
    return f"scores_{VERSION}"

rule all:
    input: "table", f"data_{VERSION}"

rule spec:
    output: "spec"
    params: VERSION
    shell: "echo {params} > {output}"

rule seal:
    output: f"data_{VERSION}"
    params: f"chosen_{VERSION}"
    shell: "touch {output}; until [ -e {params} ]; do sleep 0.05; done; sleep 2"

checkpoint choose:
    input: "spec"
    output: f"chosen_{VERSION}"
    params: f"data_{VERSION}"
    shell: "until [ -e {params} ]; do sleep 0.05; done; touch {output}"

rule evaluate:
    input: ancient(f"data_{VERSION}")
    output: f"scores_{VERSION}"
    params: VERSION
    shell: "echo {params} > {output}"

rule collect:
    input: "spec", scores
    output: "table"
    shell: "cp {input[1]} {output}"
"""


@pytest.mark.parametrize(("patched", "table"), [(1, "2\n"), (0, "1\n")])
def test_jobs_behind_an_ancient_input_run_after_a_checkpoint(tmp_path: Path, patched: int, table: str) -> None:
    """Snakemake alone forgets them while the job that makes the input is running. Once it no longer does, the patch can go."""
    (tmp_path / "Snakefile").write_text(FORGETFUL)
    for version in (1, 2):
        settings = [f"patched={patched}", f"version={version}"]
        command = [sys.executable, "-m", "snakemake", "--cores", "3", "--config", *settings]
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "table").read_text() == table
