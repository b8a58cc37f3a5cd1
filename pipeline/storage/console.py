"""How far a long piece of work is: a line on standard error now and then, so that nobody takes it for hung."""

from __future__ import annotations

import contextlib
import os
import sys
import time

INTERVAL = 10.0
"""Seconds before the first line, and between two."""


def print0(line: str) -> None:
    """One line on standard error now. A closed terminal stops nothing; of several processes that share a training, process 0 speaks."""
    if os.environ.get("RANK", "0") != "0":
        return
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class ProgressLine:
    """Says how many of `total` units are done; calling it costs no more than a look at the clock."""

    def __init__(self, what: str, total: int, unit: str, interval: float | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.interval = INTERVAL if interval is None else interval
        self._spoken = time.monotonic()

    def __call__(self, done: int, further: str = "") -> None:
        """So many are done; `further` is put behind that."""
        now = time.monotonic()
        if now - self._spoken >= self.interval:
            self._spoken = now
            print0(f"{self.what}: {done:,} of {self.total:,} {self.unit}{further and f', {further}'}")
