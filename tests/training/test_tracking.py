"""wandb mirrors and never matters: off by default, offline without a key, and no failure of its own reaches the training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.config.experiment import Tracking
from pipeline.training.tracking import Tracker, has_key
from tests.training.tiny import digests, tiny_run, train_tiny

SPEC = {"task": {"name": "copy"}}


class FakeWandb(ModuleType):
    """Records calls; fails where it is told to."""

    def __init__(self, fail: str = "") -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.fail = fail
        self.Settings = lambda **fields: fields

    def _call(self, name: str, value: Any) -> None:
        if name == self.fail:
            raise ConnectionError(f"no network\nin {name}")
        self.calls.append((name, value))

    def init(self, **fields: Any) -> Any:
        self._call("init", fields)
        log = lambda values, step: self._call("log", (values, step))  # noqa: E731
        return SimpleNamespace(log=log, finish=lambda exit_code: self._call("finish", exit_code))


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def track(monkeypatch: pytest.MonkeyPatch, folder: Path, mode: Any, fail: str = "") -> FakeWandb:
    fake = FakeWandb(fail)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = Tracker(Tracking(wandb=mode, tags=["a"]), "copy-lstm-s0-1", SPEC, folder)
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


def test_the_real_one_offline(tmp_path: Path) -> None:
    """A training tracked offline by wandb itself: nothing is asked, nothing is sent, and the results are the same bytes."""
    results = {mode: tmp_path / mode for mode in ("off", "offline")}
    runs = {mode: tiny_run(folder, steps=6) for mode, folder in results.items()}
    assert train_tiny(results["off"], runs["off"]) == 0
    code = (
        "import sys, pathlib; from tests.training import tiny; tiny.train_tiny(pathlib.Path(sys.argv[1]), sys.argv[2], tracking='offline')"
    )
    words = [sys.executable, "-W", "error", "-c", code, str(results["offline"]), runs["offline"]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stderr
    assert len(list((results["offline"] / "wandb").glob("offline-run-*"))) == 1
    assert digests(results["offline"], runs["offline"]) == digests(results["off"], runs["off"])
