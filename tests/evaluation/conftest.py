"""A tiny experiment, made by hand: two networks, two seeds, three points, a few rows each, and everything about them as plain Python."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from pipeline.config.spec_files import write_spec
from pipeline.config.tasks.base import NATS
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.points import score_points
from pipeline.evaluation.schemas import with_kind
from pipeline.storage.tables import write_table

FLOOR, CHANCE = math.log(4), 0.25
POINTS = [(20, 2), (20, 3), (50, 3)]
HISTORIES = {
    "lstm-s0": [0.25, 0.6, 0.92, 0.995, 0.993],
    "lstm-s1": [0.25, 0.5, 0.9, 0.99, 0.98],
    "none-s0": [0.25, 0.24, None, 0.26, 0.25],
    "none-s1": [0.25, 0.25, 0.25, 0.26, 0.25],
}


def points_of(table: pa.Table, kind: str = "tokens", baseline: float = 1.0, **run: Any) -> list[dict[str, Any]]:
    """The points of an evaluation of a kind; `run`: what its experiment says besides."""
    about = {"run": "run", "chance": CHANCE, "baseline": baseline, "unit": NATS, **run}
    return score_points(table, measurement_named(kind), about)


class Tiny(NamedTuple):
    """Where the files are, and the rows that were written into each run's evaluation."""

    results: Path
    experiment: Path
    rows: dict[str, list[dict[str, Any]]]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """All inputs of `collect` for an experiment called tiny."""
    results, rng = tmp_path / "results", random.Random(3)
    rows: dict[str, list[dict[str, Any]]] = {}
    entries = []
    for label in ("lstm", "none"):
        profile = pa.table({"context": [16], "parameters": [{"lstm": 120, "none": 40}[label]]})
        write_table(results / "profiles" / f"net-{label}.parquet", profile)
        for seed in (0, 1):
            run = f"{label}-s{seed}"
            rows[run] = [_row(index, point, label, rng) for index, point in enumerate(POINTS * 4)]
            _write_run(results, run, rows[run])
            entries.append(_entry(run, label, seed))
    folder = results / "experiments" / "tiny"
    write_spec(folder / "experiment.yaml", {"name": "tiny", "columns": ["learner.betas", "network.mixer", "task.delay"], "runs": entries})
    return Tiny(results, folder / "experiment.yaml", rows)


def _row(index: int, point: tuple[int, int], label: str, rng: random.Random) -> dict[str, Any]:
    delay, symbols = point
    hits = [int(rng.random() < (0.9 if label == "lstm" else CHANCE)) for _ in range(symbols)]
    length = delay + 2 * symbols
    return {
        "dataset": f"copy-test-{delay}",
        "row": index,
        "delay": delay,
        "symbols": symbols,
        "tokens": length,
        "state_bytes": 64 if label == "lstm" else 0,
        "scored": symbols,
        "correct": sum(hits),
        "loss": round(rng.uniform(0.1, 1.5) * symbols * 1024) / 1024,  # exact in float32
        "hits": hits,
    }


def _write_run(results: Path, run: str, rows: list[dict[str, Any]]) -> None:
    kinds = {name: pa.int32() for name in ("row", "delay", "symbols", "tokens", "scored", "correct")}
    kinds |= {"dataset": pa.string(), "state_bytes": pa.int64(), "loss": pa.float32(), "hits": pa.list_(pa.uint8())}
    evaluation = pa.Table.from_pylist(rows, pa.schema([(name, kinds[name]) for name in rows[0]]))
    write_table(results / "evaluations" / run / "test-1.parquet", with_kind(evaluation, measurement_named("tokens")))
    step = [0, 100, 200, 300, 400]
    columns = {"step": step, "rows": [32 * value for value in step], "level": [3, 3, 6, 12, 12], "learning_rate": [0.01] * 5}
    columns |= {"train_loss": [None, 1.2, 1.0, 0.6, 0.4], "validation_loss": [1.4, 1.1, 0.9, 0.5, 0.3]}
    columns |= {"validation_accuracy": HISTORIES[run]}
    write_table(results / "runs" / run / "history.parquet", pa.table(columns))
    seconds = [0.0, 1.5, 3.0, 4.5, 6.25]
    timing = pa.table({"step": step, "cpu_seconds": seconds, "wall_seconds": [2 * value for value in seconds]})
    write_table(results / "runs" / run / "timing.parquet", timing)
    task = {"name": "copy", "delay": {"uniform": [1, 40], "log_uniform": None}, "symbols": 3}
    write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": task})


def _entry(run: str, label: str, seed: int) -> dict[str, Any]:
    variant = "control" if label == "none" else None
    coordinates: dict[str, Any] = {"network.mixer": label, "task.delay": {"uniform": [1, 40]} if seed else 40}
    coordinates["learner.betas"] = None if seed else [0.9, 0.99]
    shared = {
        "run": run,
        "label": label,
        "parts": {"network.mixer": [label, ""]},
        "variant": variant,
        "seed": seed,
        "coordinates": coordinates,
        "evaluation": "test-1",
    }
    return {**shared, "network": f"net-{label}", "task": "copy", "chance": CHANCE, "baseline": FLOOR, "batch": 32}
