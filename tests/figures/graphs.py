"""A made-up experiment with free runs: networks that judge graphs, in several layouts, with plausible numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.spec_files import write_spec
from pipeline.evaluation.collect import collect
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.schemas import with_kind
from pipeline.storage.tables import write_table

COLUMNS = ("nodes", "family")
SKILL = {"attention": (0.6, 0.97, 0.99), "mamba": (0.5, 0.8, 0.98), "lstm": (0.3, 0.5, 0.9), "none": (0.0, 0.0, 0.0)}
"""How well a network does in each layout."""
LAYOUTS = ("direct", "cot", "icr")
LENGTHS = {"direct": (3, 1), "cot": (5, 2), "icr": (40, 37)}
"""Tokens of a row and of its continuation, per node."""


def make_graphs(
    results: Path,
    labels: Sequence[str] = tuple(SKILL),
    layouts: Sequence[str] = LAYOUTS,
    seeds: Sequence[int] = (0, 1, 2),
    nodes: Sequence[int] = (16, 32, 64),
    families: Sequence[int] = (0,),
    widths: Sequence[int] = (),
    trained: int = 16,
    rows: int = 60,
    columns: Sequence[str] = COLUMNS,
) -> Path:
    """Write every input of `collect` below `results`, collect them, and return the experiment's folder. widths: `network.width` is swept."""
    swept = ["network.mixer", *(["network.width"] if widths else []), *(["task.layout"] if len(layouts) > 1 else [])]
    entries = []
    for place, (name, width, layout) in enumerate(product(labels, widths or [64], layouts)):
        coordinates = {key: {"network.mixer": name, "network.width": width, "task.layout": layout}[key] for key in swept}
        label = ", ".join(str(value) if key == "network.mixer" else f"{key.split('.')[1]} {value}" for key, value in coordinates.items())
        write_table(results / "profiles" / f"net-{place}.parquet", pa.table({"context": [128], "parameters": [500 * width]}))
        for seed in seeds:
            run, rng = f"graphs-{place}-s{seed}", np.random.default_rng([place, seed])
            skill = SKILL[name][LAYOUTS.index(layout)] * (width / max(widths or [64])) ** 0.5
            parts = [_evaluation(name, width, layout, size, family, skill, trained, rows, rng) for family, size in product(families, nodes)]
            write_table(
                results / "evaluations" / run / "test.parquet", with_kind(pa.concat_tables(parts), measurement_named("free_running"))
            )
            task = {"name": "is_tree", "nodes": trained, "family": "double_star", "layout": layout}
            write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": task})
            _history(results / "runs" / run)
            made_of = {key: [str(value), ""] for key, value in coordinates.items()}
            shared = {
                "run": run,
                "label": label,
                "parts": made_of,
                "variant": None,
                "seed": seed,
                "coordinates": coordinates,
                "evaluation": "test",
            }
            entries.append({**shared, "network": f"net-{place}", "task": "is_tree", "chance": 0.5, "baseline": math.log(2), "batch": 32})
    folder = results / "experiments" / "graphs"
    entries.sort(key=lambda entry: (entry["label"], entry["seed"]))
    write_spec(folder / "experiment.yaml", {"name": "graphs", "columns": swept, "runs": entries})
    collect(folder / "experiment.yaml", results, folder)
    return folder


def _evaluation(
    name: str, width: int, layout: str, nodes: int, family: int, skill: float, trained: int, rows: int, rng: np.random.Generator
) -> pa.Table:
    skill = skill / (1 + (nodes / trained / 4) ** 3) * (0.8 if family else 1.0)
    length, after = (max(1, per * nodes if layout != "direct" or place == 0 else 1) for place, per in enumerate(LENGTHS[layout]))
    first = np.where(rng.random(rows) < skill, after, (after * rng.beta(2, 1 + 2 * skill, rows)).astype(int))
    exact, right = first >= after, (first >= after) | (rng.random(rows) < 0.4)
    outcome = np.where(right, "correct", np.where(rng.random(rows) < 0.3, "no answer", "wrong"))
    queries = np.full(rows, after // 6 if layout == "icr" else 0)
    state = {"none": 0, "attention": 512 * length}.get(name, 40) * width // 64
    columns: dict[str, Any] = {
        "dataset": [f"graphs-{nodes}-{family}"] * rows,
        "row": pa.array(range(rows), pa.int32()),
        "nodes": pa.array([nodes] * rows, pa.int32()),
        "family": pa.array([family] * rows, pa.int32()),
        "tokens": pa.array([length] * rows, pa.int32()),
        "state_bytes": pa.array([state] * rows, pa.int64()),
        "scored": pa.array([after] * rows, pa.int32()),
        "correct": pa.array(np.where(exact, after, after - 1), pa.int32()),
        "loss": pa.array((after * (1 - skill)) * np.ones(rows), pa.float32()),
        "hits": pa.array([[int(good), *[1] * (after - 1)] for good in exact], pa.list_(pa.uint8())),
        "outcome": outcome.tolist(),
        "exact": exact,
        "first_error": pa.array([None if good else int(place) for good, place in zip(exact, first, strict=True)], pa.int32()),
        "continuation": pa.array([after] * rows, pa.int32()),
        "queries": pa.array(queries, pa.int32()),
        "valid_queries": pa.array((queries * (0.5 + 0.5 * skill)).astype(int), pa.int32()),
        "memory_bits": pa.array([nodes * math.log2(nodes)] * rows, pa.float64()),
    }
    return pa.table(columns)


def _history(run: Path) -> None:
    step = np.arange(1, 5) * 100
    columns = {"step": step, "rows": step * 32, "train_loss": 1 / step, "validation_loss": 1 / step, "validation_accuracy": step / 500}
    write_table(run / "history.parquet", pa.table(columns))
    write_table(run / "timing.parquet", pa.table({"step": step, "cpu_seconds": step * 0.01, "wall_seconds": step * 0.01}))
