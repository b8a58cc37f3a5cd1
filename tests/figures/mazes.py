"""A made-up experiment with played episodes: networks in corridors of several lengths, with plausible numbers and pictures."""

from __future__ import annotations

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

COLUMNS = ("corridor",)
SKILL = {"gru": 60.0, "lstm": 120.0, "attention": 25.0, "none": 0.0}
"""How long a corridor a network carries the cue through."""
STATE = {"gru": 128, "lstm": 256, "attention": 8192, "none": 0}


def make_mazes(
    results: Path,
    labels: Sequence[str] = tuple(SKILL),
    seeds: Sequence[int] = (0, 1, 2),
    corridors: Sequence[int] = (10, 20, 40, 80),
    swept: bool = False,
    chance: float = 0.5,
    trained: int = 20,
    rows: int = 40,
    pictures: bool = True,
    columns: Sequence[str] = COLUMNS,
) -> Path:
    """Write every input of `collect` below `results`, collect them, and return the experiment's folder.

    swept: each run was trained and measured at one corridor. columns: none where the environment has no corridor.
    """
    entries = []
    keys = ["network.mixer", *(["task.corridor"] if swept else [])]
    for place, (name, size) in enumerate(product(labels, corridors if swept else [trained])):
        coordinates: dict[str, Any] = {"network.mixer": name, **({"task.corridor": size} if swept else {})}
        label = f"{name}, corridor {size}" if swept else name
        _profile(results / "profiles" / f"net-{place}.parquet", name)
        for seed in seeds:
            run, rng = f"maze-{place}-s{seed}", np.random.default_rng([place, seed])
            measured = [size] if swept else corridors if columns else [trained]
            parts = [_evaluation(name, corridor, rows, pictures, columns, rng) for corridor in measured]
            write_table(results / "evaluations" / run / "test.parquet", with_kind(pa.concat_tables(parts), measurement_named("episodes")))
            write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": {"name": "t_maze", "corridor": size}})
            _history(results / "runs" / run, _skill(name, size), rng)
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
            entries.append({**shared, "network": f"net-{place}", "task": "t_maze", "chance": chance, "baseline": 0.0, "batch": 2048})
    folder = results / "experiments" / "maze"
    entries.sort(key=lambda entry: (entry["label"], entry["seed"]))
    write_spec(folder / "experiment.yaml", {"name": "maze", "columns": keys, "runs": entries})
    collect(folder / "experiment.yaml", results, folder)
    return folder


def _skill(name: str, corridor: int) -> float:
    reach = SKILL.get(name, 60.0)
    return 0.5 + 0.5 / (1 + (corridor / reach) ** 4) if reach else 0.5


def _evaluation(name: str, corridor: int, rows: int, pictures: bool, columns: Sequence[str], rng: np.random.Generator) -> pa.Table:
    success = (rng.random(rows) < _skill(name, corridor)).astype(np.int32)
    length = corridor + rng.integers(3, size=rows).astype(np.int32)
    shown = [rng.integers(256, size=(8, 18, 6 * corridor, 3), dtype=np.uint8) for _ in range(2)]
    found: dict[str, Any] = {
        "dataset": [f"maze-{corridor}"] * rows,
        "row": pa.array(range(rows), pa.int32()),
        **{column: pa.array([corridor] * rows, pa.int32()) for column in columns},
        "state_bytes": pa.array([STATE.get(name, 128)] * rows, pa.int64()),
        "success": success,
        "return": 5.0 * success - 1 - 0.1 * (length - 1),
        "episode_length": length,
        "best": np.full(rows, 4 - 0.1 * (corridor - 1)),
    }
    if pictures:
        missing = [None] * (rows - 2)
        found["frames"] = pa.array([*(frames.tobytes() for frames in shown), *missing], pa.binary())
        found["frames_shape"] = pa.array([*(list(frames.shape) for frames in shown), *missing], pa.list_(pa.int32()))
    return pa.table(found)


def _history(run: Path, skill: float, rng: np.random.Generator) -> None:
    step = np.arange(0, 60, 5)
    accuracy = np.clip(0.5 + (skill - 0.5) / (1 + np.exp(-(step - 25 - rng.integers(9)) / 4)), 0, 1)
    returns = -20 * np.exp(-step / 6) + 5 * accuracy - 2.5
    columns = {"step": step, "rows": step * 2048, "train_return": returns - 0.3, "train_accuracy": accuracy}
    columns |= {"validation_return": returns, "validation_accuracy": accuracy, "validation_episode_length": 10 + 90 * np.exp(-step / 6)}
    write_table(run / "history.parquet", pa.table(columns))
    write_table(run / "timing.parquet", pa.table({"step": step, "cpu_seconds": step * 0.15, "wall_seconds": step * 0.2}))


def _profile(path: Path, name: str) -> None:
    context = [128, 512, 2048, 8192]
    grows = name == "attention"
    columns = {
        "context": context,
        "parameters": [11_429] * 4,
        "state_bytes": [64 * size if grows else STATE.get(name, 128) for size in context],
        "step_seconds": [1e-4 * (1 + size / 2000) if grows else 7e-5 for size in context],
        "step_macs": [4_000 + (64 * size if grows else 0) for size in context],
    }
    write_table(path, pa.table(columns))
