"""A training with a replay buffer: each row is written once, whatever the buffer's size, and a kill at any write loses nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.config_file import Tracking
from pipeline.config.learners import Learner as Config
from pipeline.learners.base import Learner
from pipeline.learners.replay import Replay
from pipeline.storage.rng import generator
from pipeline.training.checkpoint import Checkpoints, Kept
from pipeline.training.device import seed_everything
from pipeline.training.fit import Fit
from pipeline.training.lease import Lease
from pipeline.training.reporter import Reporter
from pipeline.training.signals import StopRequest
from pipeline.training.stamp import Stamp
from pipeline.training.tracking import Tracker
from tests.training.deaths import arm, ended, spawn

ROWS, CAPACITY, UPDATES = 6, 40, 10
POINTS = 12
"""File operations, spread over a whole training, at which it is killed."""


class RegressionConfig(Config):
    """A few fresh rows an update."""

    rows: int | None = None
    steps: int | None = None

    @property
    def rows_per_step(self) -> int:
        return ROWS


class Regression(Learner):
    """Collects rows x, y = sum(x) into a buffer that overflows, and fits rows drawn from it."""

    def __init__(self) -> None:
        super().__init__(RegressionConfig(name="regression", steps=UPDATES, evaluate_every=4), nn.Linear(64, 1))
        self.replay = Replay(CAPACITY)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.002)

    def collect(self) -> None:
        x_ND = torch.randn(ROWS, 64)
        self.replay.append({"x": x_ND, "y": x_ND.sum(-1)})

    def learn_from(self, collected: None, /) -> dict[str, Tensor | float]:
        drawn = self.replay.sample(16, generator((self.steps,)))
        loss = (self.network(drawn["x"]).squeeze(-1) - drawn["y"]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps, self.examples_seen = self.steps + 1, self.examples_seen + ROWS
        return {"train_loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        return {"loss": float((self.network.weight.detach() - 1).square().mean())}

    def score(self, validation: dict[str, float]) -> float:
        return -validation["loss"]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "replay": self.replay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.replay = state["replay"]


def train(folder: Path, at: int = -1, log: Path | None = None) -> tuple[Regression, list[int]]:
    """Train with a checkpoint after every update; dies at file operation `at`. The learner, and the bytes that each checkpoint wrote."""
    with Lease(folder) as lease:
        assert lease.acquire()
        seed_everything(0)
        torch.manual_seed(0)
        learner, written = Regression(), list[int]()
        checkpoints = Checkpoints(folder, Stamp("0" * 64), lease)
        save = checkpoints.save

        def counted(step: int, state: dict[str, Any], kept: Kept) -> Kept:
            kept = save(step, state, kept)
            written.append(checkpoints.bytes_written)
            return kept

        checkpoints.save = counted
        reporter, tracker = Reporter("regression", folder / "progress.json", terminal=False), Tracker(Tracking(), "regression", {}, folder)
        fit = Fit(learner, checkpoints, reporter, tracker, StopRequest(), torch.device("cpu"), 1e-9)
        if at > 0 or log:
            arm(at, log)
        assert fit.run()
        return learner, written


def result(learner: Regression) -> list[Any]:
    """All that must be the same."""
    held = learner.replay.rows(np.arange(learner.replay.first, learner.replay.count))
    return [learner.replay.count, held["x"].tolist(), held["y"].tolist(), learner.network.weight.tolist()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return result(train(tmp_path_factory.mktemp("undisturbed") / "run")[0])


def operations(folder: Path) -> list[str]:
    """The names of the file operations of a training."""

    def body() -> int:
        train(folder / "run", log=folder / "log")
        return 0

    assert ended(spawn(body)) == 0
    return (folder / "log").read_text().splitlines()


def test_killed_at_any_write(tmp_path: Path, expected: list[Any]) -> None:
    names = operations(tmp_path)
    segments = [index for index, name in enumerate(names) if "replay/" in name]
    assert any(names[index].startswith("link") for index in segments) and any(names[index].startswith("write") for index in segments)
    spread = range(0, len(names), len(names) // POINTS)
    for index in sorted({*spread, *segments[:: len(segments) // POINTS]}):
        folder = tmp_path / str(index)

        def body(folder: Path = folder, index: int = index) -> int:
            train(folder / "run", at=index + 1)
            return 0

        assert ended(spawn(body)) == -signal.SIGKILL, names[index]
        assert result(train(folder / "run")[0]) == expected, names[index]


def test_bytes_per_checkpoint_do_not_grow_with_the_buffer(tmp_path: Path) -> None:
    _, written = train(tmp_path / "run")
    print("bytes written per checkpoint:", written)
    rows = ROWS * 65 * 4  # 64 numbers of x and one of y
    assert len(written) >= UPDATES - 1
    assert max(written) - min(written) < 2 * rows, "but for the manifest's lines, the same, though the buffer grows from 6 rows to 40"
    newest = sorted((tmp_path / "run").glob("step-*"))[-1]
    files = sorted(newest.glob("state/learner/replay/*.safetensors"))
    assert sum(file.stat().st_size for file in files) > 6 * rows and [file.stat().st_nlink for file in files][:2] == [2, 2]
    first = int(files[0].stem.split("-")[1])
    assert first > ROWS * len(written) - CAPACITY, "files that hold none of its rows are left out"


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Checkpoints]:
    with Lease(tmp_path / "run") as lease:
        assert lease.acquire()
        yield Checkpoints(tmp_path / "run", Stamp("0" * 64), lease)


def test_a_damaged_segment_is_noticed(saved: Checkpoints, capfd: pytest.CaptureFixture[str]) -> None:
    replay = Replay(10)
    for step in range(1, 4):
        replay.append({"x": torch.full((4,), float(step))})
        saved.save(step, {"replay": replay}, {})
    fresh = Checkpoints(saved.folder, saved.stamp, saved.lease).load()
    assert fresh and fresh.state["replay"].rows(np.arange(2, 12))["x"].tolist() == [1, 1, *[2] * 4, *[3] * 4]
    newest = next(saved.folder.glob("step-*3/state/replay/*8-*12.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"!")
    older = Checkpoints(saved.folder, saved.stamp, saved.lease).load()
    assert older and older.state["replay"].count == 8
    shared = next(saved.folder.glob("step-*2/state/replay/*0-*4.safetensors"))
    shared.write_bytes(shared.read_bytes()[:-1] + b"!")
    assert Checkpoints(saved.folder, saved.stamp, saved.lease).load() is None, "all checkpoints link it"
    assert capfd.readouterr().err.count("SHA-256") == 3


def test_a_resumed_buffer_goes_on_without_writing_old_rows(saved: Checkpoints) -> None:
    replay = Replay(1000)
    replay.append({"x": torch.zeros(900, 10)})
    saved.save(1, {"replay": replay}, {})
    fresh = Checkpoints(saved.folder, saved.stamp, saved.lease)
    loaded = fresh.load()
    assert loaded
    loaded.state["replay"].append({"x": torch.ones(2, 10)})
    fresh.save(2, loaded.state, {})
    assert fresh.bytes_written < 3000 < saved.bytes_written
    loaded.state["replay"].append({"x": torch.ones(2000, 10)})
    fresh.save(3, loaded.state, {})
    again = Checkpoints(saved.folder, saved.stamp, saved.lease).load()
    assert again and again.state["replay"].count == 2902 and bool(again.state["replay"].rows(np.arange(1902, 2902))["x"].all())
