"""A trained network measured on held-out rows, or by playing held-out episodes: a row of scores per example.

B: rows of a batch. T: tokens of its longest row. C: outputs. N: scored positions of the batch, row after row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from pipeline.config.catalogue import implementation
from pipeline.config.code import code_of
from pipeline.config.frozen import read_spec, revive
from pipeline.evaluation.episodes import score_episodes
from pipeline.evaluation.free_running import run_freely
from pipeline.evaluation.model import load_model
from pipeline.evaluation.scores import FIRST, LAST, OPTIONAL
from pipeline.learners.answers import Answers, answers
from pipeline.learners.sampler import Batch, sequential_batches
from pipeline.storage.console import ProgressLine
from pipeline.storage.digest import canonical_json, digest
from pipeline.storage.errors import UserError
from pipeline.storage.loader import DatasetRows, Episodes, open_episodes, open_rows
from pipeline.storage.source_code import LENGTH
from pipeline.storage.tables import write_table
from pipeline.training.device import prepare
from pipeline.training.stamp import check_data

if TYPE_CHECKING:
    from pipeline.tasks.base import TokenTask

BATCH_TOKENS = 16_384
"""Tokens of a batch at most, padding counted; a longer row is a batch of its own."""


def evaluate(
    spec_path: Path,
    datasets: list[Path],
    out: Path,
    checkpoint: str = "model",
    threads: int = 1,
    device: str = "auto",
    allow_changed_code: bool = False,
) -> None:
    """Measure the run of `results/runs/{run}/run.yaml` on sealed datasets and write a row per example to `out`, in the datasets' order.

    Columns: see `pipeline.evaluation.scores`. Raises MissingFileError or CorruptFileError, naming the file, when the run or a dataset is
    not finished or not intact, UserError when the network cannot read a dataset, and ChangedCodeError when other code trained the run or
    made a dataset. The note `code` in the table's schema says which code measured.
    """
    place = prepare(threads, device)
    tasks = [revive("task", read_spec(folder / "dataset.yaml", "dataset")["task"]) for folder in datasets]
    network, config = load_model(spec_path.parent, checkpoint, allow_changed_code, tasks[0])
    network.to(place)
    for folder, task in zip(datasets, tasks, strict=True):
        check_data(folder, task, allow_changed_code)
    table = pa.concat_tables([_measure(network, config, folder, place) for folder in datasets], promote_options="default")
    code = {name: digest(files, LENGTH) for name, files in code_of(revive("network", config["network"]), *tasks).items()}
    write_table(out, table.combine_chunks().replace_schema_metadata({"code": canonical_json(code)}))


def _measure(network: nn.Module, config: dict[str, Any], folder: Path, device: torch.device) -> pa.Table:
    spec = read_spec(folder / "dataset.yaml", "dataset")
    task = revive("task", spec["task"])
    if task.kind == "environment":
        episodes = open_episodes(folder)
        _check(config, task, episodes.name, task.longest)
        return score_episodes(network, implementation(task)(task), Episodes(spec["id"], episodes.rows), device)
    rows = open_rows(folder)
    _check(config, task, rows.name, int(rows.lengths.max(initial=0)))
    return score_rows(network, implementation(task)(task), rows, spec["id"], device)


def _check(config: dict[str, Any], task: Any, name: str, longest: int) -> None:
    """Refuse a dataset that the network cannot read."""
    made_for = config["sizes"]
    for kind in {**task.sizes, **made_for}:
        found, expected = task.sizes.get(kind, 0), made_for.get(kind, 0)
        if found != expected:
            raise UserError(f"{name}: {kind} of {found}, but the network of {config['run']} was made for {expected}")
    context = config["network"]["context"]
    if longest > context:
        unit = "steps" if task.kind == "environment" else "tokens"
        raise UserError(f"{name}: a row of {longest} {unit}, but the network of {config['run']} has a context of {context}")


def score_rows(network: Any, task: TokenTask, rows: DatasetRows, name: str, device: torch.device) -> pa.Table:
    """The scores of every row of a dataset, in its order; `name` goes into the column dataset."""
    batch = max(1, BATCH_TOKENS // max(1, int(rows.lengths.max(initial=1))))
    tables, progress, done = [], ProgressLine(name, len(rows), "rows scored"), 0
    for item in sequential_batches(rows, batch, task.config.inputs):
        tables.append(_score_batch(network, task, item, device))
        progress(done := done + len(item.tokens_BT))
    if not tables:
        raise UserError(f"{name}: no rows; expected at least one to measure")
    table = pa.concat_tables(tables)
    table = table.take(np.argsort(table.column("row").to_numpy(), kind="stable")).combine_chunks()
    sizes = {length: network.state_bytes(length) for length in np.unique(table.column("tokens").to_numpy()).tolist()}
    state = pa.array([sizes[length] for length in table.column("tokens").to_pylist()], pa.int64())
    table = table.add_column(table.column_names.index("scored"), "state_bytes", state)
    for column, values in _optional(network, task, rows, device).items():
        table = table.append_column(column, values)
    return table.add_column(0, "dataset", pa.array([name] * len(table)))


def _optional(network: Any, task: TokenTask, rows: DatasetRows, device: torch.device) -> dict[str, pa.Array]:
    """The columns that only some tasks have."""
    free = run_freely(network, task, rows, device) if task.config.decoded else {}
    bits = task.config.memory_bits
    return free if bits is None else {**free, "memory_bits": pa.array([bits] * len(rows), pa.float64())}


@torch.inference_mode()
def _score_batch(network: nn.Module, task: TokenTask, batch: Batch, device: torch.device) -> pa.Table:
    found = answers(network, batch, task.config.tolerance, device, length_B=batch.length_B.to(device))
    scores = task.score(batch.scored_BT.numpy(), *_judged(found, batch.scored_BT.numpy()))
    metadata = {key: pa.array(np.asarray(values, np.int32)) for key, values in batch.columns.items() if key != "row"}
    assert not set(FIRST + LAST + OPTIONAL) & set(metadata), "a metadata column has the name of a score"
    row = pa.array(np.asarray(batch.columns["row"], np.int32))
    return pa.table({"row": row, **metadata, "tokens": pa.array(batch.length_B.numpy().astype(np.int32)), **scores})


def _judged(found: Answers, scored_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the answer is right, and its loss, at every scored position; zero elsewhere."""
    hit_BT, loss_BT = np.zeros(scored_BT.shape, bool), np.zeros(scored_BT.shape, np.float32)
    hit_BT[scored_BT], loss_BT[scored_BT] = found.right_N.cpu().numpy(), found.loss("none").float().cpu().numpy()
    return hit_BT, loss_BT
