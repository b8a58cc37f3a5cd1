"""Write the files of a finished training: every network's weights under every label, their description, assets, history, and sidecars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from pipeline.config.base import filled
from pipeline.learners.base import Weights
from pipeline.storage.atomic import atomic, write_json
from pipeline.storage.paths import safe_join
from pipeline.storage.tables import write_table
from pipeline.training.diverged import DIVERGED
from pipeline.training.fit import Fit, Row
from pipeline.training.provenance import describe_provenance
from pipeline.training.serialization import on_host, read_tensors, write_tensors

COUNTS = ("step", "rows", "level")
"""Integer columns of the history; all others are float64."""


def write_result(folder: Path, run: str, fit: Fit, device: torch.device) -> None:
    """Write all files that a run publishes into `folder`.

    model/{name}.safetensors holds the weights of each of the learner's models that `learner.select` names; the weights of another label are in
    model/{label}/. Of a training that diverged, the weights `last` are the initial ones, and description and history say `diverged_at`.
    """
    learner = fit.learner
    models: dict[str, Any] = learner.models()
    assert set(models) == set(learner.config.models), f"models {sorted(models)}, but the config declares {learner.config.models}"
    labels = [*(["last"] if "last" in learner.config.keep else []), *fit.kept]
    steps = {"last": learner.steps, **fit.kept_steps}
    checkpoints: dict[str, Any] = {}
    for label in labels:
        prefix = "" if label == learner.config.select else f"{label}/"
        files = {name: f"{prefix}{name}.safetensors" for name in models}
        for name, file in files.items():
            write_tensors(folder / "model" / file, _weights(fit, label, name))
        checkpoints[label] = {"step": steps[label], "files": files}
    for name, content in _assets(fit).items():
        with atomic(safe_join(folder, f"model/{name}")) as temporary:
            temporary.write_bytes(content)
    networks = {name: {"network": filled(model.config), "sizes": dict(model.sizes)} for name, model in models.items()}
    note = {} if fit.diverged_at is None else {DIVERGED: fit.diverged_at}
    write_json(folder / "model" / "config.json", {"format": 1, "run": run, "networks": networks, "checkpoints": checkpoints, **note})
    history = table(fit.history)
    write_table(folder / "history.parquet", history.replace_schema_metadata({key: str(step) for key, step in note.items()} or None))
    write_table(folder / "timing.parquet", table(fit.timing))
    write_json(folder / "environment.json", {**describe_provenance(learner, device), "reproducible": fit.reproducible})


def table(rows: list[Row]) -> pa.Table:
    """Build a table from rows, null where a row lacks a column: the row before the first update has no training metrics."""
    names = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    fields = [(name, pa.int64() if name in COUNTS else pa.float64()) for name in names]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def _weights(fit: Fit, label: str, name: str) -> Weights:
    if label == "last":
        return on_host(fit.learner.models()[name].state_dict())
    kept = fit.kept[label][name]
    return read_tensors(kept) if isinstance(kept, Path) else kept


def _assets(fit: Fit) -> dict[str, bytes]:
    assets, declared = fit.learner.assets(), fit.learner.config.assets
    assert set(assets) == set(declared), f"assets {sorted(assets)}, but the config declares {declared}"
    return assets
