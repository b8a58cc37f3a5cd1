"""The lease that keeps two trainers off one run, even if the workflow died and its trainer did not.

    results/checkpoints/{run}/lock         flock: between processes of one machine; the kernel releases it when its holder dies
    results/checkpoints/{run}/lease.json   who trains: host, pid, job; its modification time is the heartbeat, for other machines

On a shared file system whose flock does not reach across machines, a lease is valid while its heartbeat is younger than `STALE` seconds.
The age of a heartbeat in the future, from a machine whose clock is ahead, is the time since it was first seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from pipeline.storage.atomic import explain_write_errors, write_json
from pipeline.storage.console import print0
from pipeline.storage.errors import BusyError

STALE = 120.0
"""Seconds without a heartbeat after which a trainer on another machine is presumed dead."""
BEAT = 15.0
SETTLE = 2.0
"""Seconds to wait after taking over a stale lease: if several do, the last to write has it."""
CLOCK = ".clock"
AHEAD = 5.0
"""Seconds by which the clocks of two machines may differ without being reported."""
PATIENCE = 0.5
"""Seconds before a wait is reported: `pipeline status` holds the lock for a moment too."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease. `boot` identifies the machine (host names repeat), `token` the holder."""

    host: str
    pid: int
    job: str | None
    boot: str
    token: str
    since: str

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"pid {self.pid} on {self.host}{job}"

    @classmethod
    def me(cls) -> Owner:
        """Return the owner for this process."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), os.environ.get("SLURM_JOB_ID"), boot(), secrets.token_hex(8), since)


def boot() -> str:
    """Return an identifier of the running kernel; the host name if there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def read_owner(folder: Path) -> Owner | None:
    """Read the owner in the lease of a run's checkpoint folder; None if there is no readable lease."""
    try:
        block: dict[str, Any] = json.loads((folder / "lease.json").read_text(encoding="utf-8"))
        return Owner(**block)
    except (OSError, ValueError, TypeError):
        return None


def lock(folder: Path, operation: int) -> IO[str] | None:
    """Take the flock of a run's checkpoint folder without waiting; None if another process of this machine holds it."""
    file = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def heartbeat_age(folder: Path) -> float:
    """Return seconds since the last heartbeat by the file system's clock, as clocks of machines differ. Negative: it is in the future."""
    probe = folder / f"{CLOCK}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        probe.touch()
        return probe.stat().st_mtime - (folder / "lease.json").stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    finally:
        probe.unlink(missing_ok=True)


def ahead(age: float) -> str:
    """Describe how far a heartbeat is in the future; empty if by no more than clocks usually differ."""
    return f"its clock is {-age:.0f} s ahead" if age < -AHEAD else ""


class Heartbeats:
    """Watches another machine's heartbeats while waiting for them to end; a wrong clock does not prolong the wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = (float("nan"), 0.0)

    def age(self) -> float:
        """Return seconds since the last heartbeat: since its timestamp or since it was first seen here, whichever is longer."""
        try:
            beat = (self.folder / "lease.json").stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        now = time.monotonic()
        if beat != self._seen[0]:
            self._seen = (beat, now)
        return max(heartbeat_age(self.folder), now - self._seen[1])


class Lease:
    """The right to train one run. A context manager that releases it on exit."""

    def __init__(self, folder: Path, stale: float = STALE, beat: float = BEAT, settle: float = SETTLE) -> None:
        self.folder = folder
        self.stale, self.beat, self.settle = stale, beat, settle
        self._owner = Owner.me()
        self._heartbeats = Heartbeats(folder)
        self._lock: IO[str] | None = None
        self._stop = threading.Event()
        self._lost = False
        self._thread: threading.Thread | None = None

    def acquire(self, give_up: Callable[[], bool] = lambda: False, poll: float = 1.0) -> bool:
        """Wait until nobody else trains the run, reporting the wait in one line; False if `give_up` becomes true first.

        Raises UserError if the folder cannot be written.
        """
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            begun, announced = time.monotonic(), False
            while not self._try():
                if give_up():
                    return False
                if not announced and time.monotonic() - begun > PATIENCE:
                    print0(f"{self.folder}: being trained by {read_owner(self.folder) or 'another process'}; {self._awaited()}")
                    announced = True
                time.sleep(poll if announced else PATIENCE / 10)
        self._sweep()
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)
        self._thread.start()
        return True

    def check(self) -> None:
        """Raise BusyError if the lease is no longer ours, for example after the machine slept: nothing may be written then."""
        if self._lost or not self._is_ours():
            owner = read_owner(self.folder)
            raise BusyError(f"{self.folder}: no longer ours to train: {f'{owner} took it over' if owner else 'its lease was deleted'}")

    def release(self) -> None:
        """Release the lease. Safe to call twice."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self._lock:
            if self._is_ours():
                (self.folder / "lease.json").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _sweep(self) -> None:
        """Remove partial files of killed trainers, but not clock probes: a waiting trainer may be using one."""
        for leftover in self.folder.glob(".*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            elif not leftover.name.startswith(CLOCK):
                leftover.unlink(missing_ok=True)

    def _awaited(self) -> str:
        """Describe what ends the wait, and when."""
        if not self._lock:
            return "waiting for it to end"
        age = self._heartbeats.age()
        until = datetime.now().astimezone() + timedelta(seconds=self.stale - age)
        beat = ahead(heartbeat_age(self.folder)) or f"last heartbeat {age:.0f} s ago"
        return f"{beat}; waiting for it to end, or until {until:%H:%M:%S} if no further heartbeat comes"

    def _try(self) -> bool:
        self._lock = self._lock or lock(self.folder, fcntl.LOCK_EX)
        if not self._lock:
            return False
        if not (self.folder / "lease.json").exists():
            return self._claim()
        owner = read_owner(self.folder)
        if owner and owner.boot == self._owner.boot:
            # Same kernel, and its lock is ours: whoever wrote this lease is dead.
            write_json(self.folder / "lease.json", asdict(self._owner))
            return True
        return self._heartbeats.age() >= self.stale and self._take_over()

    def _claim(self) -> bool:
        """Write a lease where there is none; if two machines try, one succeeds."""
        draft = self.folder / f".lease.{self._owner.token}"
        try:
            draft.write_text(json.dumps(asdict(self._owner)), encoding="utf-8")
            os.link(draft, self.folder / "lease.json")
            return True
        except FileExistsError:
            return False
        except PermissionError:
            return self._take_over()  # a file system without hard links
        finally:
            draft.unlink(missing_ok=True)

    def _take_over(self) -> bool:
        write_json(self.folder / "lease.json", asdict(self._owner))
        time.sleep(self.settle)
        return self._is_ours()

    def _is_ours(self) -> bool:
        owner = read_owner(self.folder)
        return owner is not None and owner.token == self._owner.token

    def _keep_alive(self) -> None:
        while not self._stop.wait(self.beat):
            try:
                if not self._is_ours():
                    self._lost = True
                    return
                os.utime(self.folder / "lease.json")
            except OSError:
                continue  # the file server is away for a moment; the next beat tries again
