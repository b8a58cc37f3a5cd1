"""A finished run in a notebook: its specification, curve, weights and measurements.

from pipeline import load_run
run = load_run("copy-lstm-s0-7f3a9c2e")
run.history.plot(x="rows", y="validation_accuracy")
logits, state = run.network()(tokens)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.spec_files import read_spec
from pipeline.evaluation.schemas import read_evaluation, read_history
from pipeline.storage.errors import MissingFileError, UserError
from pipeline.training.diverged import diverged_at, refuse_diverged

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True, eq=False)
class Run:
    """A run's folder; its tables and weights are read on first use."""

    folder: Path
    spec: dict[str, Any] = field(repr=False)
    """The frozen specification, every field filled in: id, task, network, learner, seed, data."""

    @property
    def id(self) -> str:
        """The run's identifier."""
        return self.folder.name

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per validation: step, rows, train_* and validation_* metrics."""
        return read_history(self.folder / "history.parquet").to_pandas()

    @cached_property
    def evaluations(self) -> dict[str, pd.DataFrame]:
        """Every evaluation of this run by its identifier: a row per held-out example."""
        files = sorted((self.folder.parents[1] / "evaluations" / self.id).glob("*.parquet"))
        return {file.stem: read_evaluation(file)[0].to_pandas() for file in files}

    def network(self, checkpoint: str = "model", allow_changed_code: bool = False, name: str = "model") -> nn.Module:
        """Load the trained network with verified weights, in evaluation mode on the CPU; `checkpoint` may name another kept label.

        name: which network, if the learner trains several, for example a critic.

        Raises ChangedCodeError if its code has changed since it was trained, unless that is allowed, and UserError if its training diverged.
        """
        from pipeline.evaluation.model import load_model

        if (step := diverged_at(self.folder)) is not None:
            refuse_diverged(self.folder, step)
        return load_model(self.folder, checkpoint, allow_changed_code, name=name)[0]

    def __repr__(self) -> str:
        network = self.spec["network"]
        known = [f"{self.spec['task']['name']} by {network.get('mixer', network)['name']}, seed {self.spec['seed']}"]
        if (self.folder / "history.parquet").exists():
            last = self.history.iloc[-1]
            step = diverged_at(self.folder)
            ended = f"diverged at step {step}" if step is not None else f"validation accuracy {last['validation_accuracy']:.3f}"
            known.append(f"{int(last['step']):,} steps, {ended}")
        else:
            known.append("not trained yet")
        known.append(f"evaluations: {', '.join(self.evaluations) or 'none'}")
        return f"Run {self.id}: " + "; ".join(known)


def load_run(run: str | Path, results: str | Path = "results") -> Run:
    """Load the run of this name below `results`, or of this folder. Raises MissingFileError, with the nearest names, if there is none."""
    folder = run if isinstance(run, Path) else Path(results) / "runs" / run
    if not (folder / "run.yaml").exists():
        raise MissingFileError(f"{folder}: no such run{_nearest(folder)}")
    spec = read_spec(folder / "run.yaml", "run")
    if "id" not in spec:
        raise UserError(f"{folder / 'run.yaml'}: no id; expected a specification written by 'pipeline describe'")
    return Run(folder.resolve(), spec)


def _nearest(folder: Path) -> str:
    import difflib

    known = sorted(path.name for path in folder.parent.glob("*") if (path / "run.yaml").exists())
    near = difflib.get_close_matches(folder.name, known, n=3, cutoff=0.3)
    return f"; did you mean {', '.join(near)}?" if near else "; expected a folder that holds run.yaml"
