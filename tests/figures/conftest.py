"""A made-up experiment: the files that five networks with three seeds would leave, with plausible numbers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from pipeline.config.figures import FIGURES
from pipeline.config.spec_files import write_spec
from pipeline.evaluation.collect import collect
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.schemas import with_kind
from pipeline.figures import style
from pipeline.storage.tables import read_table, write_table
from tests.figures import mazes, puzzles
from tests.figures.graphs import COLUMNS, make_graphs
from tests.figures.tuned import DRAWS, RATE, make_tuned

ALPHABET = 8
SKILL = {"lstm": 0.99, "gru": 0.95, "lru": 0.6, "attention": 0.999, "none": 0.0}
LONG = [f"{mixer}, learning_rate {rate}" for mixer in ("lstm", "gru", "lru", "matrix_lstm") for rate in (0.01, 0.001, 0.0001)]
QUESTION = "Which networks carry ten symbols across a long gap, and does it matter how many symbols there are or how wide the gap becomes?"
SIZES = (100, 200, 500, 1000)
WIDTHS = (16, 32, 64, 128)
CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "one": {"labels": ["lstm"], "seeds": [0], "delays": [100], "trained": 100},
    "twelve": {"labels": LONG, "seeds": [0, 1], "delays": [20, 50, 100, 200], "trained": 10},
    "many_delays": {"labels": ["attention", "none"], "seeds": [0, 1], "delays": range(10, 210, 10), "trained": (300, 400)},
    "grid": {"delays": [20, 50, 100], "symbols": [5, 10, 20], "seeds": [0, 1]},
    "memoryless": {"labels": ["none"], "seeds": [0, 1]},
    "missing": {"labels": ["lstm", "gru", "none"], "missing": True},
    "sizes": {"labels": ["lstm", "gru", "lru", "none"], "sizes": SIZES, "delays": [10], "trained": 10, "rows": 6},
    "unsolved": {"labels": LONG[:8], "sizes": (10, 20, 50, 100), "delays": [10], "trained": 10, "rows": 6, "skill": 0.0},
    "solved": {"labels": ["gru", "lstm"], "sizes": (1, 2, 3), "seeds": [0], "delays": [10], "trained": 10, "skill": 1.0},
    "one_network": {"labels": ["gru"], "swept": (), "sizes": SIZES, "delays": [10], "trained": 10, "rows": 6},
    "widths": {"columns": ("length", "pairs"), "labels": ["attention", "gru", "lstm", "none"], "widths": WIDTHS, "delays": [64, 128, 256]},
    "lengths": {"columns": ("length",), "labels": ["gru", "lru"], "delays": [40, 80, 160, 320], "trained": 40},
    "graphs": {"columns": COLUMNS, "make": make_graphs},
    "families": {"columns": COLUMNS, "make": make_graphs, "families": range(9), "nodes": [16, 64]},
    "capacities": {
        "columns": COLUMNS,
        "make": make_graphs,
        "labels": ["lstm", "mamba", "none"],
        "widths": WIDTHS,
        "layouts": ["direct", "icr"],
    },
    "one_graph": {"columns": COLUMNS, "make": make_graphs, "labels": ["lstm"], "layouts": ["cot"], "seeds": [0], "nodes": [16]},
    "mazes": {"columns": mazes.COLUMNS, "make": mazes.make_mazes},
    "one_maze": {"columns": mazes.COLUMNS, "make": mazes.make_mazes, "labels": ["gru"], "seeds": [0], "corridors": [10], "trained": 10},
    "trained_mazes": {"columns": mazes.COLUMNS, "make": mazes.make_mazes, "swept": True, "seeds": [0, 1]},
    "paths": {"columns": (), "make": mazes.make_mazes, "chance": 0.0, "pictures": False},
    "puzzles": {"columns": ("side",), "make": puzzles.make_puzzles},
    "lost_puzzles": {"columns": ("side",), "make": puzzles.make_puzzles, "labels": ["base", "deep"], "seeds": [0, 1], "missing": True},
    "sudoku": {"columns": (), "make": puzzles.make_puzzles, "task": "sudoku", "sizes": [9]},
    "origins": {"columns": ("origin",), "make": puzzles.make_puzzles, "task": "sudoku", "sizes": ["generated", "hard"]},
    "one_puzzle": {"columns": (), "make": puzzles.make_puzzles, "task": "arc", "sizes": [5], "labels": ["base"], "seeds": [0]},
    "tuned": {"make": make_tuned},
    "tuned_on_one_seed": {"make": make_tuned, "labels": ["lstm"], "tried": 1, "seeds": [0, 1]},
    "tuned_keys": {"make": make_tuned, "tune": {RATE: (0.001, 0.003, 0.01), "network.dropout": (0, 0.1)}, "tried": 2, "labels": LONG[:6]},
    "tuned_at_random": {"make": make_tuned, "tune": {RATE: DRAWS}, "labels": LONG, "tried": 2},
    "tuned_without_accuracy": {"make": make_tuned, "tune": {RATE: [0.001]}, "labels": ["gru", "lru"], "diverged": 0.001, "accuracy": False},
}
TUNED = tuple(case for case in CASES if case.startswith("tuned"))
PUZZLES = ("puzzles", "lost_puzzles", "sudoku", "origins", "one_puzzle")
PLAYED = ("mazes", "one_maze", "trained_mazes", "paths")
MANY_PANELS = [("accuracy_by_symbols", "many_delays"), ("recall_positions", "unsolved"), ("accuracy_by_nodes", "families")]
OF_FREE_RUNS = ("accuracy_by_nodes", "accuracy_by_family", "accuracy_by_state", "first_errors")
BY_COLUMN = {f"accuracy_by_{name}": name for name in ("delay", "length", "symbols", "pairs", "nodes", "family", "corridor", "supervision")}
"""One figure for each column that it may show."""
DRAWN = (*BY_COLUMN, *(name for name in FIGURES if name != "accuracy_by"))
ALSO = {
    "accuracy_by_state": ["widths", "memoryless", "mazes", "paths"],
    "ablations": ["graphs", *PLAYED, *PUZZLES],
    "accuracy_at_longest": ["graphs", *PLAYED, *PUZZLES],
    "cost_quality": ["graphs", *PLAYED],
    "learning_curves": [*PLAYED, *PUZZLES],
    "sample_efficiency": [*PLAYED, *PUZZLES],
    "step_cost": ["usual", *PLAYED],
    "steps_to_solve": ["trained_mazes"],
    "training_time": ["mazes"],
}
Folder = Callable[[str], Path]
STATE = {"lstm": 512, "gru": 256, "lru": 512, "none": 0}


def make_experiment(
    results: Path,
    labels: Sequence[str] = tuple(SKILL),
    seeds: Sequence[int] = (0, 1, 2),
    delays: Sequence[int] = (20, 50, 100, 150, 200),
    symbols: Sequence[int] = (10,),
    rows: int = 30,
    trained: Any = (1, 100),
    sizes: Sequence[int] = (),
    widths: Sequence[int] = (),
    columns: Sequence[str] = ("delay", "symbols"),
    swept: Sequence[str] = ("network.mixer",),
    skill: float | None = None,
    missing: bool = False,
) -> Path:
    """Write every input of `collect` below `results`, collect them, and return the experiment's folder.

    columns: what `delays` and `symbols` are called. sizes: `symbols` is swept over them in training, and each run measured at its own.
    widths: `network.width` is swept. swept: whether the labels are. skill: of all networks.
    missing: the last seed of the first network was never validated, and the second network was not measured at the last delay.
    """
    entries = []
    swept = (*swept, *(("network.width",) if widths else ()), *((f"task.{columns[-1]}",) if sizes else ()))
    for place, (name, width, size) in enumerate(product(labels, widths or [64], sizes or [10])):
        coordinates = {"network.mixer": name, "network.width": width, f"task.{columns[-1]}": size}
        coordinates = {key: coordinates[key] for key in swept}
        label = ", ".join(str(value) if key == "network.mixer" else f"{key.split('.')[1]} {value}" for key, value in coordinates.items())
        _profile(results / "profiles" / f"net-{place}.parquet", label)
        for seed in seeds:
            run = f"copy-{place}-s{seed}"
            rng = np.random.default_rng([place, seed])
            known = SKILL.get(name, 0.4 + 0.05 * place) - (0.02 * rng.random() if name != "none" else 0)
            known = (known if skill is None else skill) * (width / max(widths or [64])) ** 0.2
            task = {
                "name": "copy",
                columns[0]: {"log_uniform": list(trained)} if isinstance(trained, tuple) else trained,
                columns[-1]: size,
            }
            task = task if len(columns) > 1 else {"name": "parity", "length": trained}
            write_spec(results / "runs" / run / "run.yaml", {"id": run, "task": task})
            _history(results / "runs" / run, known, size, rng, validated=not (missing and place == 0 and seed == seeds[-1]))
            points = product([size] if sizes else symbols, delays[:-1] if missing and place == 1 else delays)
            parts = [_evaluation(columns, name, width, delay, count, known, rows, rng) for count, delay in points]
            write_table(results / "evaluations" / run / "test.parquet", with_kind(pa.concat_tables(parts), measurement_named("tokens")))
            entries.append(_entry(run, label, seed, f"net-{place}", coordinates))
    folder = results / "experiments" / "copy"
    entries.sort(key=lambda entry: (entry["label"], entry["seed"]) if len(swept) > 1 else ("", 0))
    write_spec(folder / "experiment.yaml", {"name": "copy", "columns": list(swept), "runs": entries})
    collect(folder / "experiment.yaml", results, folder)
    return folder


def _entry(run: str, label: str, seed: int, network: str, coordinates: dict[str, Any]) -> dict[str, Any]:
    parts = {key: [str(value), ""] for key, value in coordinates.items()} or {"network": [label, ""]}
    shared = {"run": run, "label": label, "parts": parts, "variant": None, "seed": seed, "coordinates": coordinates, "evaluation": "test"}
    return {**shared, "network": network, "task": "copy", "chance": 1 / ALPHABET, "baseline": math.log(ALPHABET), "batch": 32}


def _evaluation(
    columns: Sequence[str], name: str, width: int, delay: int, symbols: int, skill: float, rows: int, rng: np.random.Generator
) -> pa.Table:
    fade = 1 / (1 + (delay / 400) ** 3) if name != "attention" else 1 / (1 + (delay / 130) ** 8)
    fade = 1.0 if skill == 1.0 else fade / (1 + (symbols / 700) ** 2)
    chance = np.clip(1 / ALPHABET + (1 - 1 / ALPHABET) * skill * fade * np.linspace(1, 0.96 if skill < 1 else 1, symbols), 0, 1)
    hits = (rng.random((rows, symbols)) < chance).astype(np.uint8)
    length = 2 * symbols + delay
    loss = (math.log(ALPHABET) * (1 - 0.97 * skill * fade) * symbols * rng.uniform(0.95, 1.05, rows)).astype(np.float32)
    return pa.table(
        {
            "dataset": pa.array([f"copy-test-{delay}-{symbols}"] * rows),
            "row": pa.array(range(rows), pa.int32()),
            **{column: pa.array([value] * rows, pa.int32()) for column, value in zip(columns, (delay, symbols), strict=False)},
            "tokens": pa.array([length] * rows, pa.int32()),
            "state_bytes": pa.array([STATE.get(name, 512 * length) * width // 64] * rows, pa.int64()),
            "scored": pa.array([symbols] * rows, pa.int32()),
            "correct": pa.array(hits.sum(1), pa.int32()),
            "loss": pa.array(loss),
            "hits": pa.array(hits.tolist(), pa.list_(pa.uint8())),
        }
    )


def _history(run: Path, skill: float, size: int, rng: np.random.Generator, validated: bool = True, validations: int = 40) -> None:
    step = np.arange(1, validations + 1) * 200
    speed = step[-1] * (0.3 + 0.1 * rng.random()) * (size / 10) ** 0.2
    learned = skill / (1 + np.exp(-(step - speed) / (0.06 * step[-1])))
    noise = 1 + 0.02 * rng.standard_normal(validations)
    accuracy = np.clip((1 / ALPHABET + (1 - 1 / ALPHABET) * learned) * noise, 0, 1)
    loss = math.log(ALPHABET) * (1 - 0.985 * learned) * noise
    if not validated:
        loss, accuracy = np.full(validations, np.nan), np.full(validations, np.nan)
    columns = {"step": step, "rows": step * 32, "train_loss": loss * 1.02, "validation_loss": loss, "validation_accuracy": accuracy}
    write_table(run / "history.parquet", pa.table(columns))
    seconds = step * (0.006 + 0.003 * rng.random()) * (size / 10)
    write_table(run / "timing.parquet", pa.table({"step": step, "cpu_seconds": seconds, "wall_seconds": seconds * 1.1}))


def _profile(path: Path, label: str) -> None:
    columns = {"context": [128, 1024], "parameters": [17_512, 17_512], "state_bytes": [512, 512]}
    write_table(path, pa.table({**columns, "step_seconds": [1e-4, 1.1e-4], "step_macs": [9_000, 9_000]}))


def cases_of(figure: str) -> list[str]:
    """The experiments whose task has the columns that a figure draws, less those of twenty panels and more.

    Tuned ones are for the figures of what was tried, those of free runs and of episodes for the figures that show something about them,
    and some for what is drawn of all tasks.
    """
    needs = {BY_COLUMN[figure]} if figure in BY_COLUMN else set(getattr(FIGURES[figure], "needs", ()))
    if figure in FIGURES and FIGURES[figure].tuned:  # pyright: ignore[reportAttributeAccessIssue]
        return list(TUNED)
    free = [case for case, made in CASES.items() if "make" in made and case not in (*PLAYED, *PUZZLES, *TUNED)]
    wanted = free if figure in OF_FREE_RUNS else [case for case in CASES if case not in (*free, *PLAYED, *PUZZLES, *TUNED)]
    if figure == "accuracy_by_supervision" or "puzzles" in getattr(FIGURES.get(figure), "measurements", ()):
        return list(PUZZLES)
    played = figure == "accuracy_by_corridor" or "episodes" in getattr(FIGURES.get(figure), "measurements", ())
    wanted = list(PLAYED) if played else [] if figure == "step_cost" else wanted
    wanted = [*wanted, *ALSO.get(figure, [])]
    fit = [case for case in wanted if needs <= set(CASES[case].get("columns", ("delay", "symbols")))]
    return [case for case in fit if (figure, case) not in MANY_PANELS]


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of each experiment in CASES, made when first asked for."""
    made: dict[str, Path] = {}

    def folder(case: str) -> Path:
        if case not in made:
            options = dict(CASES[case])
            made[case] = options.pop("make", make_experiment)(tmp_path_factory.mktemp(case) / "results", **options)
        return made[case]

    return folder


def draw(name: str, experiment: Path, out: Path, **options: Any) -> None:
    kind, options = ("accuracy_by", {"column": BY_COLUMN[name], **options}) if name in BY_COLUMN else (name, options)
    module, function = FIGURES[kind].implementation.split(":")
    getattr(importlib.import_module(module), function)(experiment, out, FIGURES[kind].model_validate({"name": kind, **options}), QUESTION)


def frame(path: Path) -> Any:
    return read_table(path).to_pandas()


def shown(out: Path) -> Any:
    return pd.read_csv(f"{out}.csv")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figures that are drawn during the test; they are not written."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save_picture", lambda figure, out, *kinds: figures.append(figure))
    return figures
