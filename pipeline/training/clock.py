"""CPU and wall time spent on updates, over all attempts at a run, excluding validation and saving."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """A stopwatch that can be read while it runs, saved and restored."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cpu = self._wall = 0.0
        self._since: tuple[float, float] | None = None

    def read(self) -> tuple[float, float]:
        """Return CPU and wall seconds so far."""
        if self._since is None:
            return self._cpu, self._wall
        return self._cpu + time.process_time() - self._since[0], self._wall + time.perf_counter() - self._since[1]

    def start(self) -> None:
        """Start, or start again."""
        self._since = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """Stop, after synchronizing the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._cpu, self._wall = self.read()
        self._since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause inside the block."""
        self.stop()
        yield
        self.start()

    def state_dict(self) -> dict[str, float]:
        """Return the seconds so far."""
        cpu, wall = self.read()
        return {"cpu": cpu, "wall": wall}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from saved seconds."""
        self._cpu, self._wall = state["cpu"], state["wall"]
