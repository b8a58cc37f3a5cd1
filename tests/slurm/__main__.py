"""Snakemake as a user calls it, but for one thing: it asks SLURM every second how its jobs are doing.

The executor adds ten seconds to its interval whenever nothing has ended: right for a cluster, minutes for jobs that last seconds.
"""

from __future__ import annotations

from typing import Any

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor


def _keep(executor: Any, seconds: float) -> None:
    """Keep the interval unchanged."""


if __name__ == "__main__":
    Executor.next_seconds_between_status_checks = property(lambda executor: 1.0, _keep)  # pyright: ignore[reportAttributeAccessIssue]
    main()
