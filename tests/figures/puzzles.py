"""A made-up experiment with puzzles: networks with and without recursion, measured after several numbers of supervision steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.spec_files import write_spec
from pipeline.evaluation.collect import collect
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.schemas import with_kind
from pipeline.storage.tables import write_table
from pipeline.tasks.maze import LETTERS

SKILL = {"base": 0.9, "noisy": 0.6, "one_pass": 0.3, "deep": 0.4}
"""Share of the easiest puzzles solved after many steps."""
TRAINED = {"base": 8, "noisy": 4}
"""Supervision steps in training of the networks trained by deep supervision."""
RECURSIVE = (*TRAINED, "one_pass")
STRIPS = 3
MAZE = ("S #  ", "# # #", "    G", "# ###", "     ")
PATH = ("So#  ", "#o# #", " oooG", "# ###", "     ")
CATEGORIES = {"generated": 0, "hard": 1}


def make_puzzles(
    results: Path,
    labels: Sequence[str] = tuple(SKILL),
    seeds: Sequence[int] = (0, 1, 2),
    task: str = "maze",
    columns: Sequence[str] = ("side",),
    sizes: Sequence[Any] = (5, 9, 13),
    supervision: Sequence[int] = (1, 2, 4, 8, 16),
    rows: int = 40,
    missing: bool = False,
) -> Path:
    """Write every input of `collect` below `results`, collect them, and return the experiment's folder.

    columns, sizes: the task's coordinate, if it has one, and its measured values, of which the first is trained.
    missing: the last network is not measured at the last size, nor its last seed at all.
    """
    column = next(iter(columns), "")
    entries, kind = [], measurement_named("puzzles").model_copy(update={"supervision": list(supervision)})
    for place, name in enumerate(labels):
        _profile(results / "profiles" / f"net-{place}.parquet")
        last = missing and place == len(labels) - 1
        for seed in seeds[:-1] if last else seeds:
            run, rng = f"{task}-{place}-s{seed}", np.random.default_rng([place, seed])
            measured = sizes[:-1] if last else sizes
            parts = [_evaluation(name, task, column, size, hard, supervision, rows, rng) for hard, size in enumerate(measured)]
            write_table(results / "evaluations" / run / "test.parquet", with_kind(pa.concat_tables(parts), kind))
            learner = {"name": "deep_supervision", "supervision": TRAINED[name]} if name in TRAINED else {"name": "supervised"}
            write_spec(
                results / "runs" / run / "run.yaml", {"id": run, "task": {"name": task, column or "side": sizes[0]}, "learner": learner}
            )
            _history(results / "runs" / run, SKILL.get(name, 0.5), rng)
            variant = None if name == labels[0] else name
            shared = {"run": run, "label": name, "parts": {"variant": [name, ""]}, "variant": variant, "seed": seed, "coordinates": {}}
            known = {"evaluation": "test", "network": f"net-{place}", "task": task, "chance": 0.0, "baseline": 0.4, "batch": 32}
            entries.append({**shared, **known})
    folder = results / "experiments" / task
    entries.sort(key=lambda entry: (entry["label"], entry["seed"]))
    write_spec(folder / "experiment.yaml", {"name": task, "columns": [], "runs": entries})
    collect(folder / "experiment.yaml", results, folder)
    return folder


def _evaluation(
    name: str, task: str, column: str, size: Any, hard: int, supervision: Sequence[int], rows: int, rng: np.random.Generator
) -> pa.Table:
    prompt, target = _puzzle(task, size)
    steps = np.array(supervision)
    recursive = name in RECURSIVE
    skill = SKILL.get(name, 0.5) * 0.5**hard * (1 - np.exp(-steps / (4 * (1 + hard))) if recursive else np.ones(len(steps)))
    luck_B = rng.random(rows)
    exact_BK = luck_B[:, None] < skill
    wrong_BK = np.where(exact_BK, 0, 1 + rng.integers(4, size=exact_BK.shape) if recursive else 2)
    residual_BK = np.exp(rng.normal(-4, 2, exact_BK.shape) + 2.5 * ~exact_BK - 0.2 * steps)
    q_BK = np.where(exact_BK, 1.0, -1.0) + rng.normal(0, 0.8, exact_BK.shape)
    first_BK = np.where(np.maximum.accumulate(q_BK > 0, axis=1), 1 + np.argmax(q_BK > 0, axis=1)[:, None], 0)
    count, flat = exact_BK.size, lambda values: np.asarray(values).ravel()
    value = CATEGORIES.get(size, size)
    answers = [_answer(prompt, target, wrong) for wrong in flat(wrong_BK)[: STRIPS * len(steps)]]
    nothing: list[Any] = [None] * (count - len(answers))
    lists = {"prompt": [prompt] * len(answers), "target": [target] * len(answers), "answer": answers}
    return pa.table(
        {
            "dataset": pa.array([f"{task}-{size}"] * count),
            "row": pa.array(np.repeat(np.arange(rows, dtype=np.int32), len(steps))),
            **({column: pa.array([value] * count, pa.int32())} if column else {}),
            "supervision": pa.array(np.tile(steps, rows).astype(np.int32)),
            "state_bytes": pa.array([64 if recursive else 0] * count, pa.int64()),
            "tokens": pa.array([len(prompt)] * count, pa.int32()),
            "scored": pa.array([len(prompt)] * count, pa.int32()),
            "correct": pa.array(len(prompt) - flat(wrong_BK).astype(np.int32)),
            "exact": pa.array(flat(exact_BK).astype(np.int32)),
            "valid": pa.array(flat(exact_BK).astype(np.int32)),
            "loss": pa.array((0.3 * flat(wrong_BK)).astype(np.float32)),
            "q": pa.array(flat(q_BK).astype(np.float32), mask=np.full(count, not recursive)),
            "halting_step": pa.array(flat(first_BK).astype(np.int32), mask=(flat(first_BK) == 0) | (not recursive)),
            "residual": pa.array(flat(residual_BK).astype(np.float32), mask=np.full(count, not recursive)),
            "attempt": pa.array(np.zeros(count, np.int32)),
            **{name: pa.array([*values, *nothing], pa.list_(pa.uint8())) for name, values in lists.items()},
        }
    )


def _puzzle(task: str, size: Any) -> tuple[list[int], list[int]]:
    """A puzzle and its solution: the maze above, repeated; a Sudoku of side 9; a grid of colours."""
    if task == "maze":
        return tuple(np.resize([[LETTERS[cell] for cell in line] for line in maze], (size, size)).ravel().tolist() for maze in (MAZE, PATH))  # pyright: ignore[reportReturnType]
    if task == "sudoku":
        digits = np.array([[(3 * (row % 3) + row // 3 + column) % 9 for column in range(9)] for row in range(9)]) + 2
        return np.where(np.arange(81).reshape(9, 9) % 3 == 0, digits, 1).ravel().tolist(), digits.ravel().tolist()
    grid = np.arange(25) % 12
    return grid.tolist(), grid[::-1].tolist()


def _answer(prompt: list[int], target: list[int], wrong: int) -> list[int]:
    """The solution, but for its first cells that were not given and are open."""
    asked = [place for place, (given, right) in enumerate(zip(prompt, target, strict=True)) if given != right][:wrong]
    return [2 + (token - 1) % 4 if place in asked else token for place, token in enumerate(target)]


def _history(run: Path, skill: float, rng: np.random.Generator) -> None:
    step = np.arange(0, 60, 5)
    accuracy = skill / (1 + np.exp(-(step - 25 - rng.integers(9)) / 4))
    columns = {"step": step, "rows": step * 32, "train_loss": 1 - accuracy / 2, "train_accuracy": accuracy}
    write_table(run / "history.parquet", pa.table({**columns, "validation_loss": 1 - accuracy / 2, "validation_accuracy": accuracy}))
    write_table(run / "timing.parquet", pa.table({"step": step, "cpu_seconds": step * 0.15, "wall_seconds": step * 0.2}))


def _profile(path: Path) -> None:
    columns = {"context": [81], "parameters": [11_429], "state_bytes": [64], "step_seconds": [math.nan], "step_macs": [4_000]}
    write_table(path, pa.table({**columns, "step_seconds": pa.array([1e-4])}))
