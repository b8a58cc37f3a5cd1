"""A made-up experiment: the files that five networks with three seeds would leave, with plausible numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.frozen import write_spec
from pipeline.evaluation.collect import collect
from pipeline.storage.tables import write_table

ALPHABET = 8
SKILL = {"lstm": 0.99, "gru": 0.95, "lru": 0.6, "attention": 0.999, "none": 0.0}
LONG = [f"{mixer}, learning_rate {rate}" for mixer in ("lstm", "gru", "lru", "matrix_lstm") for rate in (0.01, 0.001, 0.0001)]
CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "one": {"labels": ["lstm"], "seeds": [0], "delays": [100], "trained": 100},
    "twelve": {"labels": LONG, "seeds": [0, 1], "delays": [20, 50, 100, 200], "trained": 10},
    "many_delays": {"labels": ["attention", "none"], "seeds": [0, 1], "delays": range(10, 210, 10), "trained": (300, 400)},
    "grid": {"delays": [20, 50, 100], "symbols": [5, 10, 20], "seeds": [0, 1]},
    "memoryless": {"labels": ["none"], "seeds": [0, 1]},
    "missing": {"labels": ["lstm", "gru", "none"], "missing": True},
}
STATE = {"lstm": 512, "gru": 256, "lru": 512, "none": 0}


def make_experiment(
    results: Path,
    labels: Sequence[str] = tuple(SKILL),
    seeds: Sequence[int] = (0, 1, 2),
    delays: Sequence[int] = (20, 50, 100, 150, 200),
    symbols: Sequence[int] = (10,),
    rows: int = 30,
    trained: Any = (1, 100),
    missing: bool = False,
) -> Path:
    """Write every input of `collect` below `results`, collect them, and return the experiment's folder.

    missing: the last seed of the first network was never validated, and the second network was not measured at the last delay.
    """
    entries = []
    for place, label in enumerate(labels):
        _profile(results / "profiles" / f"net-{place}.parquet", label)
        for seed in seeds:
            run = f"copy-{place}-s{seed}"
            rng = np.random.default_rng([place, seed])
            skill = SKILL.get(label, 0.4 + 0.05 * place) - (0.02 * rng.random() if label != "none" else 0)
            task = {"name": "copy", "delay": {"log_uniform": list(trained)} if isinstance(trained, tuple) else trained, "symbols": 10}
            write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": task})
            _history(results / "runs" / run, skill, rng, validated=not (missing and place == 0 and seed == seeds[-1]))
            measured = delays[:-1] if missing and place == 1 else delays
            table = pa.concat_tables([_evaluation(label, delay, count, skill, rows, rng) for count in symbols for delay in measured])
            write_table(results / "evaluations" / run / "test.parquet", table)
            entries.append(_entry(run, label, seed, f"net-{place}"))
    folder = results / "experiments" / "copy"
    write_spec(folder / "experiment.yaml", {"name": "copy", "columns": ["network.mixer"], "runs": entries})
    collect(folder / "experiment.yaml", results, folder)
    return folder


def _entry(run: str, label: str, seed: int, network: str) -> dict[str, Any]:
    shared = {"run": run, "label": label, "variant": None, "seed": seed, "coordinates": {"network.mixer": label}, "evaluation": "test"}
    return {**shared, "network": network, "task": "copy", "chance": 1 / ALPHABET, "floor": math.log(ALPHABET), "batch": 32}


def _evaluation(label: str, delay: int, symbols: int, skill: float, rows: int, rng: np.random.Generator) -> pa.Table:
    fade = 1 / (1 + (delay / 400) ** 3) if label != "attention" else 1 / (1 + (delay / 130) ** 8)
    chance = np.clip(1 / ALPHABET + (1 - 1 / ALPHABET) * skill * fade * np.linspace(1, 0.96, symbols), 0, 1)
    hits = (rng.random((rows, symbols)) < chance).astype(np.uint8)
    length = 2 * symbols + delay
    loss = (math.log(ALPHABET) * (1 - 0.97 * skill * fade) * symbols * rng.uniform(0.95, 1.05, rows)).astype(np.float32)
    columns = {
        "dataset": pa.array([f"copy-test-{delay}"] * rows),
        "row": pa.array(range(rows), pa.int32()),
        "delay": pa.array([delay] * rows, pa.int32()),
        "symbols": pa.array([symbols] * rows, pa.int32()),
        "tokens": pa.array([length] * rows, pa.int32()),
        "state_bytes": pa.array([STATE.get(label, 512 * length)] * rows, pa.int64()),
        "scored": pa.array([symbols] * rows, pa.int32()),
        "correct": pa.array(hits.sum(1), pa.int32()),
        "loss": pa.array(loss),
        "hits": pa.array(hits.tolist(), pa.list_(pa.uint8())),
    }
    return pa.table(columns)


def _history(run: Path, skill: float, rng: np.random.Generator, validated: bool = True, validations: int = 40) -> None:
    step = np.arange(1, validations + 1) * 200
    speed = step[-1] * (0.3 + 0.1 * rng.random())
    learned = skill / (1 + np.exp(-(step - speed) / (0.06 * step[-1])))
    noise = 1 + 0.02 * rng.standard_normal(validations)
    accuracy = np.clip((1 / ALPHABET + (1 - 1 / ALPHABET) * learned) * noise, 0, 1)
    loss = math.log(ALPHABET) * (1 - 0.985 * learned) * noise
    if not validated:
        loss, accuracy = np.full(validations, np.nan), np.full(validations, np.nan)
    columns = {"step": step, "rows": step * 32, "train_loss": loss * 1.02, "validation_loss": loss, "validation_accuracy": accuracy}
    write_table(run / "history.parquet", pa.table(columns))
    seconds = step * (0.006 + 0.003 * rng.random())
    write_table(run / "timing.parquet", pa.table({"step": step, "cpu_seconds": seconds, "wall_seconds": seconds * 1.1}))


def _profile(path: Path, label: str) -> None:
    write_table(path, pa.table({"context": [128, 1024], "parameters": [17_512, 17_512], "state_bytes": [512, 512]}))


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of each experiment in CASES, made when first asked for."""
    made: dict[str, Path] = {}

    def folder(case: str) -> Path:
        if case not in made:
            made[case] = make_experiment(tmp_path_factory.mktemp(case) / "results", **CASES[case])
        return made[case]

    return folder
