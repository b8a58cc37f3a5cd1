"""How far a training is: a bar on a terminal, a line now and then elsewhere, and a heartbeat file for `pipeline status`."""

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
"""Seconds between lines; a bar moves twenty times as often."""


@dataclass(frozen=True)
class Standing:
    """A moment of a training: steps done and to do, training rows seen, share of the budget used up, wall seconds of updates, figures."""

    step: int
    total: int | None
    rows: int
    share: float
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)


class Reporter:
    """Tells of one run. `file` is the heartbeat, written anew at most once an interval."""

    def __init__(self, run: str, file: Path, interval: float = INTERVAL, terminal: bool | None = None) -> None:
        self.run, self.file = run, file
        self.interval = interval
        self._bar = _bar(run) if (sys.stderr.isatty() if terminal is None else terminal) else None
        self._validated: dict[str, Any] = {}
        self._spoken = self._written = -math.inf
        self._before = Standing(0, None, 0, 0.0, 0.0)

    def note(self, row: dict[str, Any]) -> None:
        """Remember the validation of a new history row for the next reports."""
        self._validated = {name: value for name, value in row.items() if name.startswith("validation_")}

    def due(self) -> bool:
        """Whether it is time for the next report."""
        return time.monotonic() - self._spoken >= (self.interval / 20 if self._bar is not None else self.interval)

    def show(self, standing: Standing) -> None:
        """Report a standing."""
        self._spoken = time.monotonic()
        before, self._before = self._before, standing
        rate = (standing.rows - before.rows) / max(standing.seconds - before.seconds, 1e-9)
        standing.figures.update(self._validated)
        line = _line(standing, rate)
        if self._bar is None:
            print0(f"{self.run}: {line}")
        else:
            self._bar.n = 100 * standing.share
            self._bar.set_postfix_str(line)
        if self._spoken - self._written >= self.interval:
            self._written = self._spoken
            self._write(standing, rate)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def _write(self, standing: Standing, rate: float) -> None:
        # A heartbeat is not worth a training: where it matters, the next checkpoint says what is wrong.
        with contextlib.suppress(UserError, OSError, ValueError):
            write_json(self.file, {**asdict(standing), "run": self.run, "rows_per_second": rate, "written": time.time()})


def _bar(run: str) -> tqdm[Any]:
    return tqdm(desc=run, total=100, bar_format="{desc} {percentage:3.0f}%|{bar:20}| {postfix}", leave=False, file=sys.stderr)


def _line(standing: Standing, rate: float) -> str:
    total = f"/{standing.total}" if standing.total else ""
    words = [f"step {standing.step}{total}", f"{rate:.0f} rows/s"]
    shown = {"train_loss": "loss", "train_accuracy": "accuracy", "level": "level", "validation_accuracy": "validation accuracy"}
    words += [f"{word} {standing.figures[name]:.4g}" for name, word in shown.items() if standing.figures.get(name) is not None]
    if 0 < standing.share < 1:
        words.append(f"{_duration(standing.seconds * (1 / standing.share - 1))} left")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
