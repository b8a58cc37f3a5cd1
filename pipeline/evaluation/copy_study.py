"""Export a collected experiment in formats that other studies' scripts read. Never imports torch.

copy-study: experiment_results.json of https://github.com/hunglongtrangithub/rnn-copy-task,

    {size: {network: {mean_test_acc, std_test_acc, mean_train_time, mean_epochs, trial_results: [{test_acc, train_time, epochs,
                      final_train_acc, final_val_acc, best_val_loss, train_losses, val_losses, train_accs, val_accs}]}}}

with a trial per seed. Definitions: std is the population's (ddof 0); an epoch is the time from one validation to the next, not counting the
validation before the first update. Accuracies are shares, losses nats per symbol, times wall seconds of training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.document import suggestion
from pipeline.config.labels import label_of
from pipeline.evaluation.schemas import read_collected, read_results
from pipeline.evaluation.series import line_labels, trained_sizes
from pipeline.storage.errors import MissingFileError, UserError
from pipeline.storage.paths import safe_join

Row = dict[str, Any]
NAMES = {
    "lstm": "LSTM",
    "input_multiplicative_lstm": "MultiplicativeLSTM",
    "gru_v1": "GRU",
    "input_multiplicative_gru": "MultiplicativeGRU",
}
"""That study's names for its four networks; any other keeps its label."""


def copy_study(experiment: str, results: Path) -> str:
    """Return the JSON of an experiment in the folder `results` that trains at several sizes. Each run counts at the size it was trained at.

    Raises UserError if the experiment is missing or not collected, trains at one size only, or was not measured at a trained size.
    """
    folder = _folder(experiment, results)
    table, note = read_results(folder / "results.parquet")
    sizes = trained_sizes(table, note.points)
    if not sizes:
        raise UserError(f"experiment {experiment}: its runs were trained at one size; expected a sweep over a size, such as task.symbols")
    size = f"{sizes[0]}_most_trained"
    runs = [_at_trained_size(experiment, rows, sizes[0]) for rows in _by_run(table).values()]
    lines = line_labels(runs, note.labels, f"task.{sizes[0]}", size)
    labels = {run["run"]: label_of(lines[run["label"]]) for run in runs}
    curves, timing = (_by_run(read_collected(folder / f"{name}.parquet")) for name in ("curves", "timing"))
    trials: dict[int, dict[str, list[Row]]] = {}
    for run in sorted(runs, key=lambda run: (run[size], labels[run["run"]], run["seed"])):
        name = NAMES.get(labels[run["run"]], labels[run["run"]])
        trial = _trial(run, curves[run["run"]], timing[run["run"]][0])
        trials.setdefault(run[size], {}).setdefault(name, []).append(trial)
    study = {str(value): {name: _summary(found) for name, found in networks.items()} for value, networks in trials.items()}
    return json.dumps(study, indent=2, allow_nan=False) + "\n"


def _folder(experiment: str, results: Path) -> Path:
    folder = safe_join(results, "experiments", experiment)
    if not (folder / "experiment.yaml").exists():
        known = [path.parent.name for path in (results / "experiments").glob("*/experiment.yaml")]
        where = suggestion(experiment, known) or "; run the workflow first"
        raise UserError(f"experiment {experiment}: not in {results / 'experiments'}{where}")
    missing = [name for name in ("results", "curves", "timing") if not (folder / f"{name}.parquet").exists()]
    if missing:
        raise MissingFileError(
            f"experiment {experiment}: not collected yet, {folder / missing[0]}.parquet is missing; run the workflow first"
        )
    return folder


def _by_run(table: pa.Table) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in table.to_pylist():
        found.setdefault(row["run"], []).append(row)
    return found


def _at_trained_size(experiment: str, rows: list[Row], size: str) -> Row:
    """Return a run's row at the size it was trained at; the last of them, if other metadata varies."""
    trained = rows[0][f"{size}_most_trained"]
    own = [row for row in rows if row[size] == trained and row["accuracy"] is not None]
    if not own:
        measured = ", ".join(str(row[size]) for row in rows)
        raise UserError(
            f"experiment {experiment}: {rows[0]['run']} was measured at {size} {measured}; expected also {trained}, as it was trained"
        )
    return own[-1]


def _trial(run: Row, curve: list[Row], timing: Row) -> Row:
    epochs = [row for row in curve if row["step"] > 0 and row.get("validation_loss") is not None]
    names = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
    train_losses, val_losses, train_accs, val_accs = ([row.get(name) for row in epochs] for name in names)
    return {
        "test_acc": run["accuracy"],
        "train_time": timing["wall_seconds"],
        "epochs": len(epochs),
        "final_train_acc": train_accs[-1] if epochs else None,
        "final_val_acc": val_accs[-1] if epochs else None,
        "best_val_loss": min((row["validation_loss"] for row in epochs), default=None),
        "train_losses": train_losses,
        "val_losses": val_losses,
        "train_accs": train_accs,
        "val_accs": val_accs,
    }


def _summary(trials: list[Row]) -> Row:
    accuracies, times, epochs = ([trial[key] for trial in trials] for key in ("test_acc", "train_time", "epochs"))
    return {
        "mean_test_acc": float(np.mean(accuracies)),
        "std_test_acc": float(np.std(accuracies)),
        "mean_train_time": float(np.mean(times)),
        "mean_epochs": float(np.mean(epochs)),
        "trial_results": trials,
    }
