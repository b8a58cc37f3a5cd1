"""Measure a trained network on held-out data: a table with a row per example, whose schema names the measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from pipeline.config.catalogue import implementation
from pipeline.config.code import code_of
from pipeline.config.spec_files import load_component, read_spec
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.measurements.base import Measurement
from pipeline.evaluation.model import load_model
from pipeline.evaluation.schemas import with_kind
from pipeline.frozen_plan import is_candidate, untuned_evaluations
from pipeline.storage.digest import canonical_json, digest
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, Episodes, open_episodes, open_rows
from pipeline.storage.source_code import LENGTH
from pipeline.storage.tables import write_table
from pipeline.training.device import prepare
from pipeline.training.diverged import diverged_at, refuse_diverged
from pipeline.training.stamp import check_data


def evaluate(
    spec_path: Path,
    datasets: list[Path],
    out: Path,
    checkpoint: str = "model",
    threads: int = 1,
    device: str = "auto",
    allow_changed_code: bool = False,
    measurement: Measurement | None = None,
) -> None:
    """Measure the run of `results/runs/{run}/run.yaml` on sealed datasets and write a row per example to `out`, in the datasets' order.

    measurement: by default the task's. Raises MissingFileError or CorruptFileError, naming the file, if the run or a dataset is not finished
    or not intact, UserError if the network cannot read a dataset or has diverged, and ChangedCodeError if other code trained the run or made
    a dataset. The metadata of the table's schema records the measurement and the digests of its code.
    """
    _check_diverged(spec_path.absolute().parent, out)
    place = prepare(threads, device)
    specs = [read_spec(folder / "dataset.yaml", "dataset") for folder in datasets]
    tasks = [load_component("task", spec["task"]) for spec in specs]
    kind = measurement or measurement_named(tasks[0].measurement)
    for task in tasks:
        if refusal := kind.refusal(task):
            raise UserError(f"{spec_path}: {refusal}")
    network, config = load_model(spec_path.parent, checkpoint, allow_changed_code, tasks[0])
    network.to(place)
    for folder, task in zip(datasets, tasks, strict=True):
        check_data(folder, task, allow_changed_code)
    tables = [
        _measure(network, config, folder, spec["id"], task, kind, place) for folder, spec, task in zip(datasets, specs, tasks, strict=True)
    ]
    table = pa.concat_tables(tables, promote_options="default")
    describing = sorted({name for task in tasks for name, column in task.columns.items() if not column.point})
    code = {name: digest(files, LENGTH) for name, files in code_of(load_component("network", config["network"]), *tasks, kind).items()}
    write_table(out, with_kind(table.combine_chunks(), kind, {"code": canonical_json(code), "describing": canonical_json(describing)}))


def _check_diverged(run: Path, out: Path) -> None:
    """Raise UserError if the run diverged, unless the evaluation is of a candidate of a tuned experiment only."""
    step, results = diverged_at(run), run.parents[1]
    if step is not None and (not is_candidate(results, run.name) or out.stem in untuned_evaluations(results, run.name)):
        refuse_diverged(run, step)


def _measure(
    network: nn.Module, config: dict[str, Any], folder: Path, name: str, task: Any, kind: Measurement, device: torch.device
) -> pa.Table:
    if task.kind == "environment":
        data = open_episodes(folder)._replace(name=name)
        check_fits(config, task, data.name, task.longest)
    else:
        data = open_rows(folder)
        check_fits(config, task, data.name, int(data.lengths.max(initial=0)))
    return measured(network, implementation(task)(task), data, name, kind, device)


def check_fits(config: dict[str, Any], task: Any, name: str, longest: int) -> None:
    """Raise UserError if the network cannot read a dataset."""
    made_for = config["sizes"]
    any_length = not load_component("network", config["network"]).fixed_length
    for kind in {**task.sizes, **made_for}:
        if kind == "cells" and any_length:
            continue
        found, expected = task.sizes.get(kind, 0), made_for.get(kind, 0)
        if found != expected:
            raise UserError(f"{name}: {kind} of {found}, but the network of {config['run']} was made for {expected}")
    context = config["network"]["context"]
    if longest > context:
        unit = "steps" if task.kind == "environment" else "tokens"
        raise UserError(f"{name}: a row of {longest} {unit}, but the network of {config['run']} has a context of {context}")


def measured(network: Any, task: Any, data: DatasetRows | Episodes, name: str, kind: Measurement, device: torch.device) -> pa.Table:
    """Measure every example of a dataset, in its order; `name` fills the column dataset."""
    metadata, examples = _metadata(task, data)
    if not examples:
        raise UserError(f"{name}: no {kind.example}s; expected at least one to measure")
    found = kind.measure(network, task, data, device)
    row = np.repeat(np.arange(examples, dtype=np.int32), kind.per_example)
    metadata, count = {column: values.take(pa.array(row)) for column, values in metadata.items()}, len(row)
    assert not (set(found) | {"state_bytes"}) & set(metadata), "a metadata column has the name of a score"
    lengths = found[kind.length].to_numpy()
    sizes = {length: network.state_bytes(length) for length in np.unique(lengths).tolist()}
    bits = task.config.memory_bits
    return pa.table(
        {
            "dataset": pa.array([name] * count),
            "row": pa.array(row),
            **metadata,
            **found,
            "state_bytes": pa.array([sizes[length] for length in lengths.tolist()], pa.int64()),
            **({} if bits is None else {"memory_bits": pa.array([bits] * count, pa.float64())}),
        }
    )


def _metadata(task: Any, data: DatasetRows | Episodes) -> tuple[dict[str, Any], int]:
    """Return the metadata columns of a dataset, and its number of examples."""
    if isinstance(data, Episodes):
        return {name: data.rows.column(name) for name in task.config.columns if name in data.rows.column_names}, data.rows.num_rows
    return {name: pa.array(np.asarray(values, np.int32)) for name, values in data.columns.items()}, len(data)
