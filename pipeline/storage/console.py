"""Messages and progress lines on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import time

INTERVAL = 10.0
"""Seconds before the first line and between lines."""


def print0(line: str) -> None:
    """Print a line to standard error, on rank 0 only. A closed terminal is ignored."""
    if os.environ.get("RANK", "0") != "0":
        return
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class ProgressLine:
    """Prints every `interval` seconds how many of `total` units are done; in between, a call only reads the clock."""

    def __init__(self, what: str, total: int, unit: str, interval: float | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.interval = INTERVAL if interval is None else interval
        self._printed = time.monotonic()

    def __call__(self, done: int, further: str = "") -> None:
        """Print the progress, followed by `further`, if the interval has passed."""
        now = time.monotonic()
        if now - self._printed >= self.interval:
            self._printed = now
            print0(f"{self.what}: {done:,} of {self.total:,} {self.unit}{further and f', {further}'}")
