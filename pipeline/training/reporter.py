"""Progress reports of a training: a bar on a terminal, periodic lines elsewhere, and the progress file that `pipeline status` reads."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.storage.atomic import write_json
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError

INTERVAL = 10.0
"""Seconds between lines; a bar is updated twenty times as often."""


@dataclass(frozen=True)
class Status:
    """Status of a training: steps done and planned, training rows seen, fraction of the budget spent, wall seconds of updates, metrics."""

    step: int
    total: int | None
    rows: int
    budget_spent: float
    seconds: float
    metrics: dict[str, Any] = field(default_factory=dict)


class Reporter:
    """Reports on one run. file: the progress file, rewritten at most once per interval."""

    def __init__(self, run: str, file: Path, interval: float = INTERVAL, terminal: bool | None = None) -> None:
        self.run, self.file = run, file
        self.interval = interval
        self._bar = _bar(run) if (sys.stderr.isatty() if terminal is None else terminal) else None
        self._validated: dict[str, Any] = {}
        self._reported = self._written = -math.inf
        self._before = Status(0, None, 0, 0.0, 0.0)

    def set_validation(self, row: dict[str, Any]) -> None:
        """Show the validation metrics of this history row in the next reports."""
        self._validated = {name: value for name, value in row.items() if name.startswith("validation_")}

    def due(self) -> bool:
        """Whether it is time for the next report."""
        return time.monotonic() - self._reported >= (self.interval / 20 if self._bar is not None else self.interval)

    def show(self, status: Status) -> None:
        """Report a status."""
        self._reported = time.monotonic()
        before, self._before = self._before, status
        rate = (status.rows - before.rows) / max(status.seconds - before.seconds, 1e-9)
        status.metrics.update(self._validated)
        line = _line(status, rate)
        if self._bar is None:
            print0(f"{self.run}: {line}")
        else:
            self._bar.n = 100 * status.budget_spent
            self._bar.set_postfix_str(line)
        if self._reported - self._written >= self.interval:
            self._written = self._reported
            self._write(status, rate)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _write(self, status: Status, rate: float) -> None:
        # Failing to write progress must not stop a training; if the disk is at fault, the next checkpoint reports it.
        with contextlib.suppress(UserError, OSError, ValueError):
            write_json(self.file, {**asdict(status), "run": self.run, "rows_per_second": rate, "written": time.time()})


def _bar(run: str) -> tqdm[Any]:
    return tqdm(desc=run, total=100, bar_format="{desc} {percentage:3.0f}%|{bar:20}| {postfix}", leave=False, file=sys.stderr)


def _line(status: Status, rate: float) -> str:
    total = f"/{status.total}" if status.total else ""
    words = [f"step {status.step}{total}", f"{rate:.0f} rows/s"]
    names = {"train_loss": "loss", "train_accuracy": "accuracy", "level": "level", "validation_accuracy": "validation accuracy"}
    words += [f"{word} {status.metrics[name]:.4g}" for name, word in names.items() if status.metrics.get(name) is not None]
    if 0 < status.budget_spent < 1:
        words.append(f"{_duration(status.seconds * (1 / status.budget_spent - 1))} left")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
