"""The patches of Snakemake."""

from __future__ import annotations

import subprocess
import sys

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
