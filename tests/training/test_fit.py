"""The loop with a learner that is nothing like a supervised one: figures that come and go, generators and data of its own, rows that are not
batches, more than one set of weights. What it does for this one it does for reinforcement learning and for deep supervision."""

from __future__ import annotations

import time
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
from pipeline.storage.errors import UserError
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.device import seed_everything
from pipeline.training.fit import Fit
from pipeline.training.lease import Lease
from pipeline.training.reporter import Reporter
from pipeline.training.signals import StopRequest
from pipeline.training.stamp import Stamp
from pipeline.training.tracking import Tracker


class WalkerConfig(Config):
    """A row a step."""

    models = ("model", "critic")
    rows: int | None = None
    steps: int | None = None

    @property
    def rows_per_step(self) -> int:
        return 1


class Walker(Learner):
    """Collects a random number of rows per update, and trains its critic on every second one only."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), critic=nn.Linear(3, 1))
        self.rng = np.random.Generator(np.random.Philox(7))
        self.carry: dict[str, Any] = {"halted": np.ones(3, bool), "replay": [(0, torch.zeros(3))]}
        self.broken = False

    def collect(self) -> int:
        return int(self.rng.integers(1, 5))

    def learn_from(self, fresh: int, /) -> dict[str, Tensor | float]:
        value = self.network(torch.ones(3)) + self.carry["replay"][-1][1]
        self.carry = {"halted": self.rng.random(3) > 0.5, "replay": [(self.steps, value.detach() / 2)]}
        with torch.no_grad():
            for parameter in [*self.network.parameters(), *self.networks["critic"].parameters()]:
                parameter.add_(0.01 * value.mean())
        self.steps += 1
        self.examples_seen += fresh
        figures: dict[str, Tensor | float] = {"train_return": value.detach().sum(), "train_rows": float(fresh)}
        if self.steps % 2 == 0:
            figures["train_critic"] = torch.tensor(float("nan") if self.broken else 1.0 * self.steps)
        return figures

    def validate(self) -> dict[str, float]:
        return {"return": float(self.network[0].weight.detach().sum())}  # pyright: ignore[reportArgumentType, reportIndexIssue]

    def score(self, validation: dict[str, float]) -> float:
        return validation["return"]

    def progress(self, seconds: float) -> float:
        assert isinstance(self.config, WalkerConfig) and self.config.rows
        return self.examples_seen / self.config.rows

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rng": self.rng.bit_generator.state, "carry": self.carry}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.carry = state["carry"]
        self.rng.bit_generator.state = state["rng"]


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    with Lease(tmp_path / "run") as lease:
        assert lease.acquire()
        yield lease


def make_fit(lease: Lease, checkpoint_seconds: float = 1e9, **fields: Any) -> Fit:
    seed_everything(0)
    torch.manual_seed(1)
    config = WalkerConfig(**{"name": "walker", "rows": 60, "evaluate_every": 4, "keep": ["last", "best", 5], **fields})
    checkpoints = Checkpoints(lease.folder, Stamp("0" * 64), lease)
    reporter = Reporter("walker", lease.folder / "progress.json", terminal=False)
    tracker = Tracker(Tracking(), "walker", {}, lease.folder)
    return Fit(Walker(config), checkpoints, reporter, tracker, StopRequest(), torch.device("cpu"), checkpoint_seconds)


def weights_of(fit: Fit) -> list[float]:
    return [float(value) for model in fit.learner.models().values() for tensor in model.state_dict().values() for value in tensor.flatten()]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Fit:
    with Lease(tmp_path / "undisturbed") as lease:
        assert lease.acquire()
        fit = make_fit(lease)
        assert fit.run()
        return fit


@pytest.mark.parametrize("stops", [(1,), (4,), (3, 7, 8, 13), tuple(range(1, 20))])
def test_any_learner_resumes_bit_by_bit(lease: Lease, undisturbed: Fit, stops: tuple[int, ...]) -> None:
    for stop in stops:
        fit = make_fit(lease)
        update = fit.learner.update

        def counted(fit: Fit = fit, update: Any = update, stop: int = stop) -> Any:
            figures = update()
            if fit.learner.steps >= stop:
                fit.stop.received = "SIGTERM"
            return figures

        fit.learner.update = counted  # pyright: ignore[reportAttributeAccessIssue]
        assert not fit.run()
        assert fit.learner.steps == stop
        torch.manual_seed(99)
    fit = make_fit(lease)
    assert fit.run()
    assert fit.history == undisturbed.history
    assert weights_of(fit) == weights_of(undisturbed)
    assert fit.kept_steps == undisturbed.kept_steps and fit.kept.keys() == undisturbed.kept.keys()


def test_rows_are_written_when_due_and_at_both_ends(undisturbed: Fit) -> None:
    steps = [row["step"] for row in undisturbed.history]
    last = undisturbed.learner.steps
    assert steps == [*range(0, last, 4), last]
    assert undisturbed.learner.examples_seen >= 60
    assert [row["step"] for row in undisturbed.timing] == steps


def test_means_cover_what_was_reported_since_the_row_before(undisturbed: Fit) -> None:
    assert "train_critic" not in undisturbed.history[0]
    assert undisturbed.history[1]["train_critic"] == (2 + 4) / 2
    assert undisturbed.history[2]["train_critic"] == (6 + 8) / 2
    assert undisturbed.history[1]["train_rows"] == undisturbed.history[1]["rows"] / 4


def test_labels(undisturbed: Fit) -> None:
    scores = {row["step"]: row["validation_return"] for row in undisturbed.history}
    assert scores[undisturbed.kept_steps["best"]] == max(scores.values())
    assert {step for label, step in undisturbed.kept_steps.items() if label != "best"} == set(range(5, undisturbed.learner.steps + 1, 5))


def test_checkpoints_come_by_the_clock(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = make_fit(lease, checkpoint_seconds=3.0)
    saved: list[int] = []
    save = fit.checkpoints.save
    fit.checkpoints.save = lambda step, state, kept: saved.append(step) or save(step, state, kept)
    monkeypatch.setattr(time, "monotonic", lambda: float(fit.learner.steps))
    assert fit.run()
    assert saved == list(range(3, fit.learner.steps + 1, 3))


def test_figures_that_are_not_numbers_stop_it(lease: Lease) -> None:
    fit = make_fit(lease)
    assert isinstance(fit.learner, Walker)
    fit.learner.broken = True
    with pytest.raises(UserError, match=r"^walker: step 4: train_critic is nan: training has diverged; lower learner.learning_rate"):
        fit.run()
