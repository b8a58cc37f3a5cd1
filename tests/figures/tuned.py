"""A made-up tuned experiment: copy, trained with every value that was tried, and measured on every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.spec_files import write_spec
from pipeline.evaluation.collect import collect
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.schemas import with_kind
from pipeline.evaluation.tuning import choose
from pipeline.storage.tables import write_table

RATE = "learner.learning_rate"
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01)
DRAWS = tuple(float(f"{1e-4 * 100 ** (k / 19):.3g}") for k in range(20))
BEST = {"lstm": 0.003, "gru": 0.02, "lru": 0.001, "attention": 0.0005, "none": 0.001}
"""The learning rate at which a network would learn best."""
DELAYS, SYMBOLS, ROWS, CHANCE = (20, 50), 10, 30, 0.125


def make_tuned(
    results: Path,
    labels: Sequence[str] = tuple(BEST),
    tune: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    tried: int = 3,
    diverged: float = 0.01,
    accuracy: bool = True,
) -> Path:
    """Write every input of `choose` and `collect` below `results`, run both, and return the experiment's folder.

    tune: key -> values. tried: seeds that each candidate is tried on. diverged: the rate at which the last seed of `lru` diverged.
    accuracy: whether the task has one.
    """
    tune = tune or {RATE: RATES}
    entries = []
    for place, label in enumerate(labels):
        write_table(results / "profiles" / f"net-{place}.parquet", _profile())
        for number, values in enumerate(product(*tune.values())):
            tuned = dict(sorted(zip(tune, values, strict=True)))
            for seed in seeds:
                run, rng = f"copy-{place}-{number}-s{seed}", np.random.default_rng([place, number, seed])
                lost = label == "lru" and tuned.get(RATE) == diverged and seed == seeds[tried - 1]
                _write_run(results, run, _skill(label, tuned, rng), rng, lost, accuracy)
                entries.append(_entry(run, label, seed, f"net-{place}", tuned))
    folder = results / "experiments" / "copy"
    objective = ["validation_loss", "lower"]
    about = {"tune": {"keys": sorted(tune), "seeds": list(seeds[:tried]), "objective": objective}}
    write_spec(folder / "experiment.yaml", {"name": "copy", "columns": ["network.mixer"], "runs": entries, **about})
    choose(folder / "experiment.yaml", results, folder)
    collect(folder / "experiment.yaml", results, folder)
    return folder


def _skill(label: str, tuned: Mapping[str, Any], rng: np.random.Generator) -> float:
    rate = tuned.get(RATE, 0.001)
    off = 0.0 if isinstance(rate, str) else math.log10(rate / BEST.get(label, 0.001))
    top = 0.0 if label == "none" else 0.97
    return float(np.clip(top * math.exp(-(off**2)) - 0.3 * tuned.get("network.dropout", 0) - 0.05 * rng.random(), 0, 1))


def _entry(run: str, label: str, seed: int, network: str, tuned: dict[str, Any]) -> dict[str, Any]:
    shared = {"run": run, "label": label, "parts": {"network.mixer": [label, ""]}, "variant": None, "seed": seed, "evaluation": "test"}
    shared |= {"coordinates": {"network.mixer": label}, "tuned": tuned, "network": network, "task": "copy", "batch": 32}
    return {**shared, "chance": CHANCE, "baseline": math.log(1 / CHANCE)}


def _write_run(results: Path, run: str, skill: float, rng: np.random.Generator, diverged: bool, accuracy: bool) -> None:
    task = {"name": "copy", "delay": {"log_uniform": [1, 100]}, "symbols": SYMBOLS}
    write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": task, "learner": {"name": "supervised", "select": "best"}})
    step = np.arange(1, 11) * 200
    learned = CHANCE + (1 - CHANCE) * skill / (1 + np.exp(-(step - 800) / 150))
    loss = math.log(1 / CHANCE) * (1.02 - learned)
    columns = {"step": step, "rows": 32 * step, "train_loss": loss, "validation_loss": loss}
    history = pa.table({**columns, "validation_accuracy": pa.array(learned if accuracy else [None] * 10, pa.float64())})
    write_table(results / "runs" / run / "history.parquet", history.replace_schema_metadata({"diverged_at": "2100"} if diverged else {}))
    write_table(
        results / "runs" / run / "timing.parquet", pa.table({"step": step, "cpu_seconds": 0.01 * step, "wall_seconds": 0.02 * step})
    )
    parts = pa.concat_tables([_evaluation(delay, learned[-1], rng) for delay in DELAYS])
    write_table(results / "evaluations" / run / "test.parquet", with_kind(parts, measurement_named("tokens")))


def _evaluation(delay: int, share: float, rng: np.random.Generator) -> pa.Table:
    hits = (rng.random((ROWS, SYMBOLS)) < share).astype(np.uint8)
    whole = {"row": range(ROWS), "delay": [delay] * ROWS, "symbols": [SYMBOLS] * ROWS, "tokens": [delay + 2 * SYMBOLS] * ROWS}
    whole |= {"scored": [SYMBOLS] * ROWS, "correct": hits.sum(1)}
    return pa.table(
        {
            "dataset": pa.array([f"copy-test-{delay}"] * ROWS),
            **{name: pa.array(values, pa.int32()) for name, values in whole.items()},
            "state_bytes": pa.array([512] * ROWS, pa.int64()),
            "loss": pa.array((SYMBOLS * (1.02 - share) * rng.uniform(1.9, 2.1, ROWS)).astype(np.float32)),
            "hits": pa.array(hits.tolist(), pa.list_(pa.uint8())),
        }
    )


def _profile() -> pa.Table:
    columns = {"context": [128, 1024], "parameters": [17_512, 17_512], "state_bytes": [512, 512]}
    return pa.table({**columns, "step_seconds": [1e-4, 1.1e-4], "step_macs": [9_000, 9_000]})
