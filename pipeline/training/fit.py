"""The one training loop, for every learner: budget, validation, history, checkpoints, labelled weights, stopping.

What the loop has gathered besides the learner's own state is in `Fit.state_dict()`, so that a run that was cut anywhere goes on from its
newest checkpoint and ends in the same bits as one that was not.

Where several processes share a training, each has a loop, and all loops do the same at the same step: what their clocks and signals say is
agreed upon after every step. Process 0 validates, and it alone writes and reports.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.learners import parallel
from pipeline.learners.base import Learner, NotFiniteError
from pipeline.storage.console import print0
from pipeline.storage.errors import UserError
from pipeline.training.checkpoint import Checkpoints, Labelled
from pipeline.training.clock import Clock
from pipeline.training.device import generator_state, restore_generators
from pipeline.training.means import Means
from pipeline.training.processes import agreed, gathered, wait_for_all
from pipeline.training.progress import Reporter, Standing
from pipeline.training.signals import Stopped, StopRequest
from pipeline.training.state import host_copy
from pipeline.training.tracking import Tracker

Row = dict[str, Any]


class Fit:
    """A learner on its way to the end of its budget.

    `history` has a row per validation: step, rows, the learner's gauges, means of its figures since the row before, `validation_*`.
    `timing` has the CPU and wall seconds of the same steps: these differ from attempt to attempt, so they are kept apart.
    `reproducible`: whether the same specification gives the same bits again, as far as any process knows.
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
        self.kept: Labelled = {}
        self.kept_steps: dict[str, int] = {}
        self.reproducible = learner.reproducible
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
        """Learn until the budget is used up or validation is good enough: True. After a signal: save and return False.

        Raises UserError when a figure is no longer finite, or a checkpoint cannot be written; Stopped where an update took too long after a
        signal: the newest checkpoint is what counts then.
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
                wait_for_all()
                print0(f"{signal.Signals(self._signal).name}: saved step {self.learner.steps}; the same command goes on from there")
                return False
            if self._save_is_due:
                self._save()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds besides labelled weights. `others`: what processes besides the first have of their own."""
        own = gathered({"generators": generator_state(), "learner": self.learner.own_state()})
        return {
            "learner": self.learner.state_dict(),
            "generators": generator_state(),
            "others": own[1:],
            "history": self.history,
            "timing": self.timing,
            "means": self._means.state_dict(),
            "clock": self._clock.state_dict(),
            "kept_steps": self.kept_steps,
            "best": self._best,
            "good_enough": self._good_enough,
        }

    def _resume(self) -> None:
        state = agreed(self._load)
        if not state:
            return
        others = state.get("others", [])
        self._refuse_another_number(1 + len(others))
        self.history, self.timing, self.kept_steps = state["history"], state["timing"], state["kept_steps"]
        self._best, self._good_enough = state["best"], state["good_enough"]
        self.learner.load_state_dict(state["learner"])
        self._means.load_state_dict(state["means"])
        self._clock.load_state_dict(state["clock"])
        restore_generators(state["generators"])
        if 0 < parallel.rank() <= len(others):
            own = others[parallel.rank() - 1]
            restore_generators(own["generators"])
            self.learner.load_own_state(own["learner"])
        self.reproducible = not parallel.largest([float(not self.learner.reproducible)])[0]
        self._saved = self.learner.steps
        self._seconds = self._clock.read()[1]
        print0(f"going on from step {self.learner.steps}")

    def _load(self) -> dict[str, Any] | None:
        saved = self.checkpoints.load()
        if not saved:
            return None
        self.kept = saved.weights
        return saved.state

    def _refuse_another_number(self, before: int) -> None:
        """Raise UserError where each process has something of its own to go on from, and there were more of them before, or fewer."""
        now = parallel.size()
        if before != now and self.learner.own_state():
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
        """What processes may see differently: a signal to any of them stops all, the slowest clock counts."""
        heard = signal.Signals[self.stop.received] if self.stop.received else 0
        due = time.monotonic() - self._saved_at >= self.checkpoint_seconds
        number, self._seconds, save = parallel.largest([float(heard), self._clock.read()[1], float(due)])
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
        """None where a signal came first: validation changes nothing, so that nothing is lost."""
        try:
            with self.stop.at_once():
                return self.learner.validate()
        except Stopped:
            return None

    def _add_row(self) -> None:
        step = self.learner.steps
        validation = agreed(self._validate)
        if validation is None:
            return
        row: Row = {"step": step, "rows": self.learner.examples_seen, **self.learner.gauges(), **self._means.read()}
        row |= {f"validation_{name}": value for name, value in validation.items()}
        self._refuse_infinite(row)
        cpu, wall = self._clock.read()
        self.history.append(row)
        self.timing.append({"step": step, "cpu_seconds": cpu, "wall_seconds": wall})
        self._means.clear()
        self._judge(validation)
        self.reporter.note(row)
        self.tracker.log(row)

    def _refuse_infinite(self, row: Row) -> None:
        found = [f"{name} is {value}" for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if found:
            with self._named():
                self.learner.refuse(", ".join(found))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except NotFiniteError as error:
            raise UserError(f"{self.reporter.run}: {error}") from None

    def _judge(self, validation: dict[str, float]) -> None:
        self._good_enough = self.learner.reached(validation)
        merit = self.learner.merit(validation)
        if "best" in self.learner.config.keep and (self._best is None or merit > self._best):
            self._best = merit
            self._keep("best")

    def _keep(self, label: str) -> None:
        if parallel.rank() == 0:
            self.kept[label] = {name: host_copy(tensor) for name, tensor in self.learner.weights().items()}
        self.kept_steps[label] = self.learner.steps

    def _save(self) -> None:
        if self._saved != self.learner.steps:
            with self._clock.paused(), self.stop.unhurried():
                state = self.state_dict()
                if parallel.rank() == 0:
                    self.kept = self.checkpoints.save(self.learner.steps, state, self.kept)
            self._saved = self.learner.steps
        self._saved_at = time.monotonic()

    def _report(self) -> None:
        if parallel.rank() == 0:
            self.reporter.show(self._standing())

    def _standing(self) -> Standing:
        wall = self._clock.read()[1]
        return Standing(
            step=self.learner.steps,
            total=self.learner.config.total_steps,
            rows=self.learner.examples_seen,
            share=min(self.learner.progress(wall), 1.0),
            seconds=wall,
            figures={**self._means.read(), **self.learner.gauges()},
        )
