"""One trainer per run: between processes by flock, between machines by heartbeat."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.storage.errors import BusyError
from pipeline.training.lease import Heartbeats, Lease, Owner, heartbeat_age, read_owner
from pipeline.training.run_status import is_running

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.training.lease import Lease
with Lease(Path(sys.argv[1])) as lease:
    lease.acquire()
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that has the lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def after(seconds: float) -> Callable[[], bool]:
    """A condition that comes true after some time."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def foreign_lease(folder: Path, age: float) -> Owner:
    """A lease as a trainer on another machine would have left it, its last heartbeat so many seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = replace(Owner.me(), host="node7", pid=4711, job="99", boot="another-kernel")
    (folder / "lease.json").write_text(json.dumps(asdict(owner)))
    then = time.time() - age
    os.utime(folder / "lease.json", (then, then))
    return owner


def test_a_lease_names_its_owner_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    with Lease(tmp_path / "run") as lease:
        assert lease.acquire()
        lease.check()
        owner = read_owner(tmp_path / "run")
        assert owner and owner.pid == os.getpid() and str(owner).endswith(", job 123")
        assert is_running(tmp_path / "run")
    assert read_owner(tmp_path / "run") is None and not is_running(tmp_path / "run")


def test_a_second_one_waits_and_says_so_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert first.acquire()
    assert not second.acquire(give_up=after(1.0), poll=0.1)
    said = capfd.readouterr().err.splitlines()
    assert said == [f"{tmp_path}: being trained by {read_owner(tmp_path)}; waiting for it to end"]
    threading.Timer(0.3, first.release).start()
    assert second.acquire(poll=0.05)
    second.release()


def test_a_killed_holder_frees_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert is_running(tmp_path)
    with Lease(tmp_path) as lease:
        assert not lease.acquire(give_up=after(0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not is_running(tmp_path)
        assert lease.acquire(give_up=after(20))
        lease.check()


def test_another_machine_counts_by_its_heartbeat(tmp_path: Path) -> None:
    foreign_lease(tmp_path, age=5)
    with Lease(tmp_path, stale=10, settle=0.05) as lease:
        assert is_running(tmp_path)
        assert not lease.acquire(give_up=after(0.2))
    foreign_lease(tmp_path, age=200)
    assert not is_running(tmp_path)
    with Lease(tmp_path, stale=10, settle=0.05) as lease:
        assert lease.acquire()
        owner = read_owner(tmp_path)
        assert owner and owner.pid == os.getpid()


@pytest.mark.parametrize("ahead", [0.0, 3600.0, 1e9])
def test_a_dead_machine_is_waited_for_as_long_whatever_its_clock_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ahead: float
) -> None:
    """A heartbeat in the future counts from when it was first seen; the one line says until when."""
    owner = foreign_lease(tmp_path, age=-ahead)
    begun = time.monotonic()
    until = datetime.now().astimezone() + timedelta(seconds=1)
    with Lease(tmp_path, stale=1.0, settle=0.05) as lease:
        assert lease.acquire(give_up=after(60), poll=0.05)
        waited = time.monotonic() - begun
    assert 1.0 <= waited < 30
    (said,) = capfd.readouterr().err.splitlines()
    ending = r"waiting for it to end, or until (?P<until>\d\d:\d\d:\d\d) if no further heartbeat comes"
    kind = r"its clock is (?P<seconds>\d+) s ahead" if ahead else r"last heartbeat (?P<seconds>\d+) s ago"
    named = re.fullmatch(rf"{re.escape(str(tmp_path))}: being trained by {owner}; {kind}; {ending}", said)
    assert named and abs(int(named["seconds"]) - ahead) < 10
    assert named["until"] in {f"{until + timedelta(seconds=late):%H:%M:%S}" for late in range(-1, 10)}


def test_each_heartbeat_in_the_future_counts_from_when_it_was_first_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A living machine whose clock is ahead is not taken for dead; the age of one whose clock is right is what its time says."""
    now = 1000.0
    monkeypatch.setattr("pipeline.training.lease.time", SimpleNamespace(monotonic=lambda: now))
    heartbeats = Heartbeats(tmp_path)
    assert heartbeats.age() == float("inf")
    for ahead in (3600, 3615, 3630):
        foreign_lease(tmp_path, age=-ahead)
        assert heartbeats.age() == 0
        now += 15
        assert heartbeats.age() == 15
    now += 1000
    assert heartbeats.age() == 1015
    foreign_lease(tmp_path, age=300)
    assert heartbeats.age() == pytest.approx(300, abs=60)


def test_of_two_that_take_over_the_last_to_write_has_it(tmp_path: Path) -> None:
    foreign_lease(tmp_path, age=200)
    with Lease(tmp_path, stale=10, settle=1.0) as lease:
        threading.Timer(0.2, foreign_lease, (tmp_path, 0)).start()
        assert not lease.acquire(give_up=after(0.5))


def test_an_unreadable_lease_counts_until_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text("")
    with Lease(tmp_path, settle=0.05) as lease:
        assert not lease.acquire(give_up=after(0.1))
        os.utime(tmp_path / "lease.json", (0, 0))
        assert lease.acquire(give_up=after(10))


def test_the_heart_beats(tmp_path: Path) -> None:
    with Lease(tmp_path, beat=0.05) as lease:
        assert lease.acquire()
        os.utime(tmp_path / "lease.json", (0, 0))
        beating = after(10)
        while heartbeat_age(tmp_path) > 60 and not beating():
            time.sleep(0.01)
        assert heartbeat_age(tmp_path) < 60


@pytest.mark.parametrize("deleted", [True, False])
def test_a_lost_lease_is_noticed(tmp_path: Path, deleted: bool) -> None:
    with Lease(tmp_path, beat=0.05) as lease:
        assert lease.acquire()
        if deleted:
            (tmp_path / "lease.json").unlink()
        else:
            foreign_lease(tmp_path, age=0)
        with pytest.raises(BusyError, match="its lease was deleted" if deleted else "pid 4711 on node7, job 99 took it over"):
            lease.check()
    assert (tmp_path / "lease.json").exists() != deleted


def test_two_machines_that_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flock does not reach, only one of two can write a lease that was not there."""
    one, other = Lease(tmp_path, settle=0.05), Lease(tmp_path, settle=0.05)
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    monkeypatch.setattr(other, "_owner", replace(other._owner, boot="another-kernel"))
    assert one.acquire() and not other._claim()
    assert not other.acquire(give_up=after(0.2))
    one.release()
    assert other.acquire(give_up=after(2))
    other.release()
