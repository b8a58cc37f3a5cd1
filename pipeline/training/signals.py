"""Being asked to stop: the request is noted, and the loop saves after its current step.

SIGTERM is what clusters send before they kill, SIGUSR1 what they send when asked for an early warning, SIGINT is Ctrl-C. After the first
Ctrl-C the second one acts at once, as usual.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

RESUMABLE = 75
"""Exit code of a training that saved its state and stopped on request: EX_TEMPFAIL, the same command goes on."""
NOTED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """A context in which the signals above set `received` instead of ending the process. Has no effect outside the main thread."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in NOTED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
