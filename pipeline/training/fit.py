"""The training loop of all learners: budget, validation, history, checkpoints, labelled weights, stopping.

`Fit.state_dict()` is the state of loop and learner: a run interrupted at any point resumes from its newest checkpoint and ends with the same
bits as an uninterrupted one.

In a distributed training every rank runs this loop in lockstep: after every step the ranks agree on clocks and signals. Only rank 0 validates,
writes and reports.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.learners import parallel
from pipeline.learners.base import DivergedError, Learner, NotFiniteError
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.training.checkpoint import Checkpoints, Kept
from pipeline.training.clock import Clock
from pipeline.training.device import generator_state, restore_generators
from pipeline.training.means import Means
from pipeline.training.processes import barrier, from_rank_0, gather
from pipeline.training.reporter import Reporter, Status
from pipeline.training.serialization import is_finite, on_host, read_tensors
from pipeline.training.signals import Stopped, StopRequest
from pipeline.training.tracking import Tracker

Row = dict[str, Any]


class Fit:
    """Trains one learner until its budget is spent.

    history: a row per validation: step, rows, the learner's metrics, means of its update metrics since the previous row, `validation_*`.
    timing: CPU and wall seconds of the same steps, separate because they differ between attempts.
    kept: the weights under each label, and kept_steps their steps.
    reproducible: whether the same specification gives the same bits again; false if any rank says no.
    diverged_at: the step at which it diverged, if that was accepted as its end.
    """

    def __init__(
        self,
        learner: Learner,
        checkpoints: Checkpoints,
        reporter: Reporter,
        tracker: Tracker,
        stop: StopRequest,
        device: torch.device,
        checkpoint_seconds: float,
    ) -> None:
        self.learner = learner
        self.checkpoints = checkpoints
        self.reporter, self.tracker, self.stop = reporter, tracker, stop
        self.checkpoint_seconds = checkpoint_seconds
        self.history: list[Row] = []
        self.timing: list[Row] = []
        self.kept: Kept = {}
        self.kept_steps: dict[str, int] = {}
        self.reproducible = learner.reproducible
        self.diverged_at: int | None = None
        self._best: float | None = None
        self._good_enough = False
        self._means = Means()
        self._clock = Clock(device)
        self._seconds = 0.0
        self._signal = 0
        self._save_is_due = False
        self._saved_at = 0.0
        self._saved: int | None = None

    def run(self) -> bool:
        """Train until the budget is spent or validation is good enough, and return True; after a signal, save and return False.

        Raises DivergedError, on all ranks, if a metric is not finite after an update, UserError if it is before any or a checkpoint cannot
        be written, and Stopped if an update takes too long after a signal: training then resumes from the newest checkpoint.
        """
        self._resume()
        self.tracker.resume(self.history)
        self._report()
        self._saved_at = time.monotonic()
        self._clock.start()
        while True:
            if self._row_is_due():
                with self._clock.paused():
                    self._add_row()
                self._agree()
            if self._has_ended() and not self._row_is_due():
                self._clock.stop()
                self._report()
                return True
            if not self._signal:
                self._step()
                self._agree()
            if self._signal:
                self._save()
                barrier()
                print0(f"{signal.Signals(self._signal).name}: saved step {self.learner.steps}; the same command resumes from there")
                return False
            if self._save_is_due:
                self._save()

    def end_diverged(self, step: int, learner: Learner) -> None:
        """End a training that diverged at this step: `learner`, just built, replaces its own; labels stay if their weights are finite."""
        self.learner, self.diverged_at = learner, step
        self.kept = {label: models for label, models in self.kept.items() if all(map(_kept_finite, models.values()))}

    def state_dict(self) -> dict[str, Any]:
        """Return the contents of a checkpoint except labelled weights. `others`: the state that ranks other than 0 have of their own."""
        ranks = gather({"generators": generator_state(), "learner": self.learner.rank_state()})
        return {
            "learner": self.learner.state_dict(),
            "generators": generator_state(),
            "others": ranks[1:],
            "history": self.history,
            "timing": self.timing,
            "means": self._means.state_dict(),
            "clock": self._clock.state_dict(),
            "kept_steps": self.kept_steps,
            "best": self._best,
            "good_enough": self._good_enough,
        }

    def _resume(self) -> None:
        state = from_rank_0(self._load)
        if not state:
            return
        others = state.get("others", [])
        self._check_world_size(1 + len(others))
        self.history, self.timing, self.kept_steps = state["history"], state["timing"], state["kept_steps"]
        self._best, self._good_enough = state["best"], state["good_enough"]
        self.learner.load_state_dict(state["learner"])
        self._means.load_state_dict(state["means"])
        self._clock.load_state_dict(state["clock"])
        restore_generators(state["generators"])
        if 0 < parallel.rank() <= len(others):
            own = others[parallel.rank() - 1]
            restore_generators(own["generators"])
            self.learner.load_rank_state(own["learner"])
        self.reproducible = not parallel.all_reduce_max([float(not self.learner.reproducible)])[0]
        self._saved = self.learner.steps
        self._seconds = self._clock.read()[1]
        print0(f"resuming from step {self.learner.steps}")

    def _load(self) -> dict[str, Any] | None:
        saved = self.checkpoints.load()
        if not saved:
            return None
        self.kept = saved.kept
        return saved.state

    def _check_world_size(self, before: int) -> None:
        """Raise UserError if ranks have state of their own and the number of ranks has changed."""
        now = parallel.world_size()
        if before != now and self.learner.rank_state():
            message = f"saved by {before} processes, expected {now}; train it with {before} again, or delete the folder"
            raise UserError(f"{self.checkpoints.folder}: {message}")

    def _step(self) -> None:
        with self._named():
            self._means.add(self.learner.update())
        step = self.learner.steps
        if any(isinstance(every, int) and step % every == 0 for every in self.learner.config.keep):
            self._keep(f"step-{step}")
        if self.reporter.due():
            self._report()

    def _agree(self) -> None:
        """Agree across ranks: a signal to one rank stops all, the slowest clock counts, and one that is due to save makes all save."""
        received = signal.Signals[self.stop.received] if self.stop.received else 0
        due = time.monotonic() - self._saved_at >= self.checkpoint_seconds
        number, self._seconds, save = parallel.all_reduce_max([float(received), self._clock.read()[1], float(due)])
        self._signal, self._save_is_due = int(number), bool(save)

    def _row_is_due(self) -> bool:
        step = self.learner.steps
        if self.history and self.history[-1]["step"] == step:
            return False
        return step % self.learner.config.evaluate_every == 0 or self._budget_is_spent()

    def _budget_is_spent(self) -> bool:
        return self.learner.progress(self._seconds) >= 1

    def _has_ended(self) -> bool:
        return self._good_enough or self._budget_is_spent()

    def _validate(self) -> dict[str, float] | None:
        """Validate; None if interrupted by a signal. Validation changes no state, so nothing is lost."""
        try:
            with self.stop.immediate():
                return self.learner.validate()
        except Stopped:
            return None

    def _add_row(self) -> None:
        step = self.learner.steps
        validation = from_rank_0(self._validate)
        if validation is None:
            return
        row: Row = {"step": step, "rows": self.learner.examples_seen, **self.learner.metrics(), **self._means.read()}
        row |= {f"validation_{name}": value for name, value in validation.items()}
        self._check_finite(row)
        cpu, wall = self._clock.read()
        self.history.append(row)
        self.timing.append({"step": step, "cpu_seconds": cpu, "wall_seconds": wall})
        self._means.clear()
        self._update_best(validation)
        self.reporter.set_validation(row)
        self.tracker.log(row)

    def _check_finite(self, row: Row) -> None:
        """Raise DivergedError or UserError, in the same words on all ranks, if a metric of any rank is not finite."""
        bad = [f"{name} is {value}" for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if parallel.all_reduce_max([float(bool(bad))])[0]:
            found = from_rank_0(lambda: ", ".join(bad)) or "a metric of another rank is not finite"
            with self._named():
                self.learner.raise_not_finite(found)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DivergedError as error:
            raise DivergedError(f"{self.reporter.run}: {error}", error.step) from None
        except NotFiniteError as error:
            raise UserError(f"{self.reporter.run}: {error}") from None

    def _update_best(self, validation: dict[str, float]) -> None:
        self._good_enough = self.learner.is_good_enough(validation)
        score = self.learner.score(validation)
        if "best" in self.learner.config.keep and (self._best is None or score > self._best):
            self._best = score
            self._keep("best")

    def _keep(self, label: str) -> None:
        if parallel.rank() == 0:
            self.kept[label] = {name: on_host(network.state_dict()) for name, network in self.learner.models().items()}
        self.kept_steps[label] = self.learner.steps

    def _save(self) -> None:
        if self._saved != self.learner.steps:
            with self._clock.paused(), self.stop.shielded():
                state = self.state_dict()
                if parallel.rank() == 0:
                    self.kept = self.checkpoints.save(self.learner.steps, state, self.kept)
            self._saved = self.learner.steps
        self._saved_at = time.monotonic()

    def _report(self) -> None:
        if parallel.rank() == 0:
            self.reporter.show(self._status())

    def _status(self) -> Status:
        wall = self._clock.read()[1]
        return Status(
            step=self.learner.steps,
            total=self.learner.config.total_steps,
            rows=self.learner.examples_seen,
            budget_spent=min(self.learner.progress(wall), 1.0),
            seconds=wall,
            metrics={**self._means.read(), **self.learner.metrics()},
        )


def _kept_finite(weights: dict[str, torch.Tensor] | Path) -> bool:
    return is_finite(read_tensors(weights) if isinstance(weights, Path) else weights)
