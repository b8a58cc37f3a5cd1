"""Generating a dataset from its frozen specification: each shard separately, then the seal over all of them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.config.catalogue import implementation
from pipeline.config.code import code_of, mixed
from pipeline.config.spec_files import dump, load_component, read_spec
from pipeline.storage.allocator import keep_freed_memory
from pipeline.storage.arrow import to_numpy
from pipeline.storage.card import CardFields, card
from pipeline.storage.console import ProgressLine
from pipeline.storage.digest import digest, file_sha256
from pipeline.storage.errors import ChangedCodeError, CorruptFileError, MissingFileError, UserError
from pipeline.storage.manifest import seal
from pipeline.storage.rng import derive_key
from pipeline.storage.seals import write_sealed
from pipeline.storage.shards import ShardInfo, shard_info, shard_name, shard_rows, write_shard
from pipeline.storage.source_code import LENGTH
from pipeline.tasks.base import BUCKETS, TokenTask

if TYPE_CHECKING:
    from pipeline.config.tasks.base import Column
    from pipeline.tasks.environment import EnvironmentTask

SPECIFICATION = "dataset.yaml"

COLUMNS = {
    "tokens": "input tokens, uint16",
    "role": "one byte per token: 0 prompt, 1 target, 2 injected, 3 answer; positions with role 1 or 3 are scored",
    "target": "label of each scored position, in order; without this column it is the token there, predicted one position before",
}


def generate_shard(folder: Path, index: int) -> Path:
    """Write shard `index` of the dataset that `folder`/dataset.yaml describes, and return its path.

    Its rows depend only on the dataset's specification and the index. Raises UserError for an index the dataset does not have.
    """
    keep_freed_memory()
    spec, task = _read(folder)
    if not 0 <= index < spec["shards"]:
        raise UserError(f"{folder / SPECIFICATION}: no shard {index}; expected 0..{spec['shards'] - 1}")
    rows = shard_rows(spec["rows"], spec["shards"], index)
    key = derive_key("rows", spec["id"], index)
    if isinstance(task, TokenTask):
        start = sum(shard_rows(spec["rows"], spec["shards"], before) for before in range(index))
        batch = task.rows_from(start, rows, key, spec["split"])
    else:
        batch = task.episodes(rows, key, spec["split"])
    path = folder / shard_name(index)
    _refuse_wrong(batch, task.config, path)
    write_shard(path, batch, {**_notes(spec, index), "code": _code(task)})
    return path


def _refuse_wrong(batch: pa.RecordBatch, config: Any, path: Path) -> None:
    """Raise UserError for a real number that is not finite, or a token or label out of range: signs of a faulty generator."""
    bounds = {"tokens": config.vocabulary, "target": config.classes} if config.kind == "tokens" else {}
    for name in batch.schema.names:
        column = batch.column(name)
        nested = isinstance(column, pa.ListArray | pa.FixedSizeListArray)
        value_type = column.type.value_type if nested else column.type
        if not (pa.types.is_floating(value_type) or name in bounds):
            continue
        values = to_numpy(column.flatten() if nested else column)
        wrong = ~np.isfinite(values) if values.dtype.kind == "f" else values >= bounds[name]
        if wrong.any():
            place = int(wrong.argmax())
            sizes = column.value_lengths().to_numpy(zero_copy_only=False) if nested else np.ones(len(column), int)
            row = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
            expected = "finite numbers" if values.dtype.kind == "f" else f"0..{bounds[name] - 1}"
            raise UserError(f"{path}: row {row}: {config.name} made {name} {values[place]}; expected {expected}")


def seal_dataset(folder: Path, allow_changed_code: bool = False) -> None:
    """Check that all shards of the dataset exist and belong to it, then write card.md and, last, manifest.json.

    Raises MissingFileError or CorruptFileError, naming the shard, and ChangedCodeError for a shard made by other code of the task.
    """
    spec, task = _read(folder)
    facts: dict[str, ShardInfo] = {}
    progress = ProgressLine(spec["id"], spec["shards"], "shards checked")
    for index in range(spec["shards"]):
        facts[shard_name(index)] = _check(folder / shard_name(index), spec, index)
        progress(index + 1)
    code = code_of(task.config)
    foreign = [folder / name for name, fact in facts.items() if fact.metadata.get("code") != _code(task)]
    if foreign and not allow_changed_code:
        raise ChangedCodeError(f"{foreign[0]}: made by other code of task {task.config.name}, changed since; delete it and run again")
    tokens = sum(fact.tokens for fact in facts.values()) if isinstance(task, TokenTask) else None
    write_sealed(folder / "card.md", card(_card_facts(folder, spec, task, list(facts), tokens)))
    counted = {} if tokens is None else {"tokens": tokens}
    seal(folder, facts, {"dataset": spec["id"], "rows": spec["rows"], "code": mixed(code) if foreign else code, **counted})


def _code(task: TokenTask | EnvironmentTask) -> str:
    return digest(code_of(task.config), LENGTH)


def _read(folder: Path) -> tuple[dict[str, Any], TokenTask | EnvironmentTask]:
    path = folder / SPECIFICATION
    spec = read_spec(path, "dataset")
    config = load_component("task", spec["task"])
    return spec, implementation(config)(config)


def _notes(spec: dict[str, Any], index: int) -> dict[str, str]:
    return {"dataset": spec["id"], "shard": str(index), "task": spec["task"]["name"], "version": str(spec["task"]["version"])}


def _check(path: Path, spec: dict[str, Any], index: int) -> ShardInfo:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected shard {index} of {spec['shards']}; run again to regenerate it")
    facts, notes = shard_info(path), _notes(spec, index)
    if any(facts.metadata.get(key) != value for key, value in notes.items()):
        raise CorruptFileError(f"{path}: not shard {index} of {spec['id']}; delete it and run again")
    rows = shard_rows(spec["rows"], spec["shards"], index)
    if facts.rows != rows:
        raise CorruptFileError(f"{path}: {facts.rows} rows, expected {rows}; delete it and run again")
    return facts


def _columns(task: TokenTask | EnvironmentTask) -> dict[str, str]:
    """Return the description of each column of a shard."""
    metadata = {name: _meaning(column) for name, column in task.config.columns.items()}
    if not isinstance(task, TokenTask):
        return {**metadata, **task.meanings}
    features = task.config.features
    values = {"values": f"real numbers, {features} per token in the order of the tokens, float32"} if features else {}
    return {**COLUMNS, **values, **metadata}


def _meaning(column: Column) -> str:
    names = ", ".join(f"{value} {name}" for value, name in enumerate(column.categories))
    return f"{column.meaning}: {names}" if names else column.meaning


def _card_facts(folder: Path, spec: dict[str, Any], task: TokenTask | EnvironmentTask, names: list[str], tokens: int | None) -> CardFields:
    low, high = BUCKETS[spec["split"]]
    config_class = type(task.config)
    return CardFields(
        name=spec["id"],
        about=inspect.getdoc(config_class) or config_class.__name__,
        source=config_class.source,
        specification=dump(spec),
        split=f"{spec['split']} (buckets {low}..{high - 1} of 100 of a hash of each row)",
        overlap=task.overlap(),
        rows=spec["rows"],
        tokens=tokens,
        files={name: ((folder / name).stat().st_size, file_sha256(folder / name)) for name in names},
        columns=_columns(task),
        origin=task.config.published,
    )
