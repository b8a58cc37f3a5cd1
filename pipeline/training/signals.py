"""Stop on a signal: SIGTERM, which clusters send before SIGKILL, SIGUSR1, their optional early warning, and Ctrl-C.

    immediate      setup, validation, every command except training      raises `Stopped` at once
    deferred       an update of a training                               the loop saves after it; raises `Stopped` if the update takes longer than
                                                                         `GRACE_SECONDS`, and training resumes from the newest checkpoint
    shielded       writing a checkpoint                                  deferred, without a limit

A second Ctrl-C interrupts at once, as usual.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

RESUMABLE = 75
"""Exit code after a signal: EX_TEMPFAIL, the same command resumes."""
HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
GRACE_SECONDS = 10.0
"""Seconds that the current update may take to finish."""


class Stopped(BaseException):
    """This process was asked to stop; the message is the signal's name. A BaseException, so that error handlers let it pass."""


class StopRequest:
    """A context in which signals set `received` instead of ending the process. Has no effect outside the main thread."""

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.received: str | None = None
        self.grace = grace
        self._immediate = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in HANDLED}
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Raise Stopped at once on a signal inside the block, or if one was received before it."""
        if self.received:
            raise Stopped(self.received)
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Raise nothing inside the block, however long it takes."""
        self._wait(0)
        try:
            yield
        finally:
            self._wait(self.grace if self.received else 0)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._immediate:
            raise Stopped(self.received)
        self._wait(self.grace)

    def _give_up(self, *_: object) -> None:
        raise Stopped(self.received)

    def _wait(self, seconds: float) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped on SIGTERM and SIGUSR1 inside the block, so that clean-up code runs. An ignored signal stays ignored, as under nohup."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    main = threading.current_thread() is threading.main_thread()
    handled = [number for number in (signal.SIGTERM, signal.SIGUSR1) if main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
