"""Patches of Snakemake: for a deadlock in its SIGTERM handler, and for jobs that it forgets behind `ancient` inputs."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Iterator
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


@functools.cache
def patch_snakemake_ancient_masking() -> None:
    """Examine the jobs behind an `ancient` input even when the job that makes the input has to run.

    Snakemake does not examine any job downstream of one that has to run, since it will run too. Behind an `ancient` input it does not: if the
    file already exists, the job is neither examined nor run. This happens when a checkpoint ends while the job that makes the file is still
    running.
    """
    from snakemake.dag import DAG

    update_needrun = DAG.update_needrun

    async def patched(dag: Any, **options: Any) -> None:
        dag.bfs = functools.partial(_triggered, dag)
        try:
            await update_needrun(dag, **options)
        finally:
            del dag.bfs

    DAG.update_needrun = patched  # pyright: ignore[reportAttributeAccessIssue]


def _triggered(_dag: Any, direction: Any, *jobs: Any) -> Iterator[Any]:
    """Traverse the graph as `DAG.bfs` does, without following edges whose files are all `ancient`."""
    queue = deque(jobs)
    visited = set(jobs)
    while queue:
        job = queue.popleft()
        yield job
        for next_job, files in direction[job].items():
            if next_job not in visited and not all(file.is_ancient for file in files):
                visited.add(next_job)
                queue.append(next_job)
