"""The trainer's own voice: single lines on standard error, which the workflow keeps in the run's log."""

from __future__ import annotations

from pipeline.storage.progress import say


def notice(line: str) -> None:
    """Say one line now. A closed terminal never stops a training; of several processes that share one, process 0 speaks."""
    say(line)
