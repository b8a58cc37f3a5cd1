"""Processes that share a training, forked from the tests and found by each other as torchrun's are."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.slurm.cluster import free_ports
from tests.training.deaths import ended, spawn


def start(processes: int, body: Callable[[], int]) -> list[int]:
    """Run `body` in so many processes that share a training; returns their ids by number."""
    (port,) = free_ports(1)
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def member(rank: int) -> int:
        os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
        try:
            return body()
        except SystemExit as leaving:
            return int(leaving.code or 0)

    return [spawn(lambda rank=rank: member(rank)) for rank in range(processes)]


def run(processes: int, body: Callable[[], int]) -> list[int]:
    """The exit codes of such processes, by number."""
    return [ended(member) for member in start(processes, body)]
