"""wandb mirrors and never matters: off by default, offline without a key, and no failure of its own reaches the training."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.config.config_file import Tracking
from pipeline.storage.tables import read_table
from pipeline.training.signals import RESUMABLE
from pipeline.training.tracking import Tracker, has_key
from tests.training.tiny import digests, tiny_run, train_tiny
from tests.training.wandb_log import history

SPEC = {"task": {"name": "copy"}}


class FakeWandb(ModuleType):
    """Records calls; fails where it is told to."""

    def __init__(self, fail: str = "") -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.fail = fail
        self.step = 0
        self.Settings = lambda **fields: fields

    def _call(self, name: str, value: Any) -> None:
        if name == self.fail:
            raise ConnectionError(f"no network\nin {name}")
        self.calls.append((name, value))

    def init(self, **fields: Any) -> Any:
        self._call("init", fields)
        log = lambda values, step, commit: self._call("log", (values, step))  # noqa: E731
        finish = lambda exit_code: self._call("finish", exit_code)  # noqa: E731
        folder = Path(fields["dir"]) / "wandb" / f"offline-run-20260102_030405-{fields['id']}" / "files"
        folder.mkdir(parents=True)
        return SimpleNamespace(log=log, finish=finish, step=self.step, dir=str(folder))


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def track(monkeypatch: pytest.MonkeyPatch, folder: Path, mode: Any, fail: str = "") -> FakeWandb:
    fake = FakeWandb(fail)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = Tracker(Tracking(wandb=mode, tags=["a"]), "copy-lstm-s0-1", SPEC, folder)
    tracker.resume([])
    tracker.log({"step": 0, "level": None, "validation_loss": 1.5})
    tracker.log({"step": 5, "level": 3, "validation_loss": 1.0})
    tracker.close(finished=True)
    tracker.close(finished=False)
    return fake


def test_off_never_imports_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert track(monkeypatch, tmp_path, "off").calls == []


def test_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = track(monkeypatch, tmp_path, "offline").calls
    assert [name for name, _ in calls] == ["init", "log", "log", "finish"]
    fields = calls[0][1]
    assert fields["id"] == fields["name"] == "copy-lstm-s0-1" and fields["resume"] == "allow" and fields["mode"] == "offline"
    assert fields["dir"] == tmp_path and fields["group"] == "copy" and fields["tags"] == ["a"]
    assert calls[1][1] == ({"step": 0, "validation_loss": 1.5}, 0)
    assert calls[3][1] == 0


def test_online_without_a_key_is_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert track(monkeypatch, tmp_path, "online").calls[0][1]["mode"] == "offline"
    assert capfd.readouterr().err.splitlines() == [
        "wandb: online asked for, but there is no API key; offline instead: 'wandb sync' can send it after 'wandb login'"
    ]


def test_online_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert track(monkeypatch, tmp_path, "online").calls[0][1]["mode"] == "online"


def test_keys_are_found_in_netrc(tmp_path: Path) -> None:
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert has_key()
    (tmp_path / "netrc").write_text("machine")
    assert not has_key()


@pytest.mark.parametrize("fail", ["init", "log", "finish"])
def test_its_failures_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], fail: str) -> None:
    track(monkeypatch, tmp_path, "offline", fail)
    assert capfd.readouterr().err.splitlines() == [
        f"wandb: ConnectionError: no network in {fail}; tracking is off for the rest of this run"
    ]


def earlier_mirrors(folder: Path, *names: str) -> None:
    """Offline folders as earlier attempts left them."""
    for name in names:
        (folder / "wandb" / name / "files").mkdir(parents=True)


@pytest.mark.parametrize(("fail", "left"), [("", 3), ("log", 5)])
def test_a_resumed_run_takes_the_place_of_its_earlier_mirrors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fail: str, left: int
) -> None:
    """Those of other runs stay, whatever their name ends with; all stay where the history could not be logged again."""
    others = ["offline-run-20260101_000000-own-copy-lstm-s0-1", "run-20260101_000000-copy-lstm-s0-1"]
    earlier_mirrors(tmp_path, "offline-run-20260101_000000-copy-lstm-s0-1", "offline-run-20260101_000001-copy-lstm-s0-1", *others)
    fake = FakeWandb(fail)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = Tracker(Tracking(wandb="offline"), "copy-lstm-s0-1", SPEC, tmp_path)
    tracker.resume([{"step": 0, "loss": 2.0}, {"step": 5, "loss": 1.0}])
    assert [value for name, value in fake.calls if name == "log"] == (
        [] if fail else [({"step": s, "loss": v}, s) for s, v in ((0, 2.0), (5, 1.0))]
    )
    found = {path.name for path in (tmp_path / "wandb").iterdir()}
    assert len(found) == left and found >= {*others, "offline-run-20260102_030405-copy-lstm-s0-1"}


def test_online_only_what_the_server_has_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Part of a run was mirrored offline before there was a key: the server has nothing of it, or only its beginning."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    fake = FakeWandb()
    fake.step = 6
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = Tracker(Tracking(wandb="online"), "copy-lstm-s0-1", SPEC, tmp_path)
    tracker.resume([{"step": 0}, {"step": 5}, {"step": 10}])
    assert [value for name, value in fake.calls if name == "log"] == [({"step": 10}, 10)]


OFFLINE = """
import os, signal, sys
from pathlib import Path
from pipeline.learners.supervised import Supervised
from tests.training.tiny import train_tiny

results, run, last, number = sys.argv[1:]
update = Supervised.update

def interrupted(self):
    if self.steps == int(last):
        os.killpg(0, int(number)) if int(number) == 9 else os.kill(os.getpid(), int(number))
    return update(self)

Supervised.update = interrupted
sys.exit(train_tiny(Path(results), run, checkpoint_seconds=1e-9, tracking="offline"))
"""


def attempt(results: Path, run: str, last: int, number: int = 0) -> int:
    """Train tracked offline by wandb itself, saving after every step; at one step all processes of the training get a signal."""
    words = [sys.executable, "-W", "error", "-c", OFFLINE, str(results), run, str(last), str(number)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    assert "wandb" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return done.returncode


def test_the_real_one_offline(tmp_path: Path) -> None:
    """After any interruption what `wandb sync results/wandb/offline-run-*` sends is the whole history, and the results are the same bytes."""
    results = {mode: tmp_path / mode for mode in ("off", "offline")}
    runs = {mode: tiny_run(folder) for mode, folder in results.items()}
    assert train_tiny(results["off"], runs["off"]) == 0
    folder, run = results["offline"], runs["offline"]
    assert attempt(folder, run, 8, signal.SIGKILL) == -signal.SIGKILL
    assert attempt(folder, run, 13, signal.SIGTERM) == RESUMABLE
    (stopped,) = (folder / "wandb").glob("offline-run-*")
    assert [row["step"] for row in history(stopped)] == [0, 5, 10]
    assert attempt(folder, run, 18, signal.SIGKILL) == -signal.SIGKILL
    assert attempt(folder, run, -1) == 0
    (mirror,) = (folder / "wandb").glob("offline-run-*")
    rows = read_table(folder / "runs" / run / "history.parquet").to_pylist()
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20, 24]
    assert history(mirror) == [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert digests(folder, run) == digests(results["off"], runs["off"])
