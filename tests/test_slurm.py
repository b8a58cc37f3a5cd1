"""Signals inside a SLURM step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

LEADER = """
import signal, subprocess, sys
from pipeline.slurm import forward_signals
forward_signals()
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
    """The first process of a SLURM step (None: outside any step) whose child is ready and exits when its standard input closes."""
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_STEP_ID"} | ({"SLURM_STEP_ID": step} if step else {})
    command = [sys.executable, "-c", LEADER]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_the_first_process_of_a_step_forwards_signals() -> None:
    process = leader("0")
    assert process.stdout
    for number in (signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
        assert process.stdout.readline() == f"{number:d}\n"
    assert process.communicate()[0] == "0\n"


def test_a_process_outside_a_step_forwards_nothing() -> None:
    process = leader(None)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # in case the signal is forwarded after all
    assert process.communicate()[0] == "0\n"
