"""Patches of Snakemake: one, for a deadlock in its SIGTERM handler."""

from __future__ import annotations

import functools
import threading
from typing import Any


@functools.cache
def patch_snakemake_sigterm_deadlock() -> None:
    """Run Snakemake's SIGTERM handler in a thread of its own.

    The handler takes locks that the thread it interrupts may hold (the scheduler's and a semaphore's), and would wait for itself forever.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    handler = JobScheduler.exit_gracefully

    def exit_gracefully(scheduler: JobScheduler, *arguments: Any) -> None:
        threading.Thread(target=handler, args=(scheduler, *arguments), name="exit", daemon=True).start()

    JobScheduler.exit_gracefully = exit_gracefully  # pyright: ignore[reportAttributeAccessIssue]
