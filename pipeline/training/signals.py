"""Being asked to stop: by SIGTERM, which clusters send before they kill, SIGUSR1, their early warning where one asks for it, and Ctrl-C.

    at once        setting up, validation, every command but a training      the signal raises `Stopped` where the process is
    noted          the update of a training                                  the loop saves after it; `Stopped` where that takes longer
                                                                             than `PATIENCE`, and the newest checkpoint counts
    unhurried      writing a checkpoint                                      noted, and never cut short

After the first Ctrl-C the second one acts at once, as usual.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

RESUMABLE = 75
"""Exit code after a signal: EX_TEMPFAIL, the same command goes on."""
NOTED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
PATIENCE = 10.0
"""Seconds that an update under way may take to its end."""


class Stopped(BaseException):
    """A signal, whose name is the message, asked this process to stop. No Exception: whoever handles errors lets it pass."""


class StopRequest:
    """A context in which the signals above set `received` instead of ending the process. Has no effect outside the main thread."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.received: str | None = None
        self.patience = patience
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in NOTED}
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._lose_patience)
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises Stopped; so does one that came before."""
        if self.received:
            raise Stopped(self.received)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Inside, nothing is raised, however long it takes."""
        self._wait(0)
        try:
            yield
        finally:
            self._wait(self.patience if self.received else 0)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._at_once:
            raise Stopped(self.received)
        self._wait(self.patience)

    def _lose_patience(self, *_: object) -> None:
        raise Stopped(self.received)

    def _wait(self, seconds: float) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGUSR1 raise Stopped, so that what was begun is tidied up. One that was ignored before stays so, as under nohup."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in (signal.SIGTERM, signal.SIGUSR1) if main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
