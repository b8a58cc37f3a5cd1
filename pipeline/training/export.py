"""The files that a finished training leaves: weights, their description, history, and the sidecars."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch

from pipeline.config.base import filled
from pipeline.config.networks import Network
from pipeline.learners.base import Weights
from pipeline.storage.atomic import write_json
from pipeline.storage.tables import write_table
from pipeline.training.environment import describe_environment
from pipeline.training.fit import Fit, Row
from pipeline.training.spec import RunSpec
from pipeline.training.state import host_copy, read_tensors, write_tensors

COUNTS = ("step", "rows", "level")
"""History columns that are whole numbers; all others are float64."""


def write_result(folder: Path, run: RunSpec, network: Network, fit: Fit, device: torch.device) -> None:
    """Write everything a run publishes into `folder`. `network` is the config that was built, its width known.

    model.safetensors holds the weights that `learner.select` names; every other kept label has a file of its own.
    """
    learner = fit.learner
    last = ["last"] if "last" in learner.config.keep else []
    labelled = {label: _weights(fit, label) for label in (*last, *fit.kept)}
    files = {label: "model" if label == learner.config.select else label for label in labelled}
    for label, stem in files.items():
        write_tensors(folder / "model" / f"{stem}.safetensors", labelled[label])
    for stem, weights in learner.further_files().items():
        write_tensors(folder / "model" / f"{stem}.safetensors", _on_host(weights))
    steps = {"last": learner.steps, **fit.kept_steps}
    config = {
        "format": 1,
        "run": run.id,
        "network": filled(network),
        "sizes": run.task.sizes,
        "checkpoints": {label: {"file": f"{stem}.safetensors", "step": steps[label]} for label, stem in files.items()},
    }
    write_json(folder / "model" / "config.json", config)
    write_table(folder / "history.parquet", table(fit.history))
    write_table(folder / "timing.parquet", table(fit.timing))
    write_json(folder / "environment.json", {**describe_environment(learner, device), "reproducible": fit.reproducible})


def table(rows: list[Row]) -> pa.Table:
    """Rows as a table. A row may lack a column, as the one before the first update lacks training figures: null there."""
    names = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    fields = [(name, pa.int64() if name in COUNTS else pa.float64()) for name in names]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def _weights(fit: Fit, label: str) -> Weights:
    if label == "last":
        return _on_host(fit.learner.weights())
    kept = fit.kept[label]
    return read_tensors(kept) if isinstance(kept, Path) else kept


def _on_host(weights: Weights) -> Weights:
    return {name: host_copy(tensor) for name, tensor in weights.items()}
