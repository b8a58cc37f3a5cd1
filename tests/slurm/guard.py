"""Takes a test cluster down, when it is told to or when the process that started it has ended, however it ended.

    python -m tests.slurm.guard FOLDER      waits for the end of standard input, then ends what belongs to the cluster in FOLDER

What belongs to it is known by SLURM_CONF, which daemons, clients and pipelines of a test cluster get from it, and by descent from those.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from pathlib import Path

import psutil

ROUNDS = 100
"""Looks at all processes: one that starts while others are ended is found by a later look."""


def belonging(folder: Path) -> list[psutil.Process]:
    """Living processes of the cluster in a folder, and their descendants."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_CONF") == str(folder / "slurm.conf"):
                found |= {process, *process.children(recursive=True)}
    return [process for process in found if _lives(process)]


def take_down(folder: Path) -> None:
    """kill -9 of everything that belongs to the cluster; then its folder goes. There is nothing of it to be saved."""
    for _ in range(ROUNDS):
        left = belonging(folder)
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.stdin.read()
    take_down(Path(sys.argv[1]))
