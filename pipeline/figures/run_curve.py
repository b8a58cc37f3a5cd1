"""One run's learning curve, in its folder: loss or return, accuracy and, with a curriculum, its level.

Every training plots one, so pandas is not imported here: that would take a second of every job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline.config.spec_files import load_component, read_spec
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.measurements.base import Training
from pipeline.evaluation.schemas import read_history
from pipeline.figures import style
from pipeline.figures.axes import log_axis
from pipeline.figures.style import COLOURS, LegendEntry, LineStyle

History = dict[str, np.ndarray]
"""Columns by name, float64, NaN where a row has no value."""
LINES = {"training": (COLOURS[4], 0.8), "validation": (COLOURS[0], 1.4)}
"""Colour and width of each curve."""


def draw_run(run: Path) -> None:
    """Draw history.parquet of a run's folder to curve.svg and curve.png there; run.yaml gives the title, chance and the baseline."""
    spec = read_spec(run / "run.yaml")
    history, task = _read(run / "history.parquet"), load_component("task", spec["task"])
    levels = "level" in history and bool(np.isfinite(history["level"]).any())
    training = measurement_named(task.measurement).training
    with style.page():
        rows = 3 if levels else 2
        room: dict[str, Any] = {"legend": _legend(history, task, training), "left": 0.62, "sharex": True, "hspace": 0.12}
        chart, axes = style.canvas(spec["id"], style.COLUMN, 1.3 * rows, (rows, 1), **room)
        (_loss if training.curve == "loss" else _other)(axes[0, 0], history, task, training)
        _accuracy(axes[1, 0], history, task, training)
        if levels:
            _level(axes[2, 0], history, spec["learner"]["curriculum"]["column"])
        axes[-1, 0].set_xlabel(training.seen)
        axes[-1, 0].set_xlim(0, None)
        axes[-1, 0].xaxis.set_major_locator(MaxNLocator(5))
        axes[-1, 0].xaxis.set_major_formatter(EngFormatter(sep=""))
        chart.align_ylabels()
        style.save_picture(chart, run / "curve")


def _legend(history: History, task: Any, training: Training) -> list[LegendEntry]:
    """Return the legend entries of training, validation and the references without memory."""
    splits = [LegendEntry(split, LineStyle(colour, "-", ""), width) for split, (colour, width) in LINES.items() if _known(history, split)]
    losses = [task.baseline] if training.curve == "loss" else []
    baseline = style.reference_entry(losses, "memoryless baseline: loss {}", style.DOTTED)
    return [*splits, *baseline, *style.reference_entry([100 * task.chance] if task.chance else [], training.reference)]


def _known(history: History, split: str) -> bool:
    """Whether there is a curve of this split, training or validation."""
    names = [f"{'train' if split == 'training' else split}_{metric}" for metric in ("loss", "return", "accuracy")]
    return any(name in history and bool(np.isfinite(history[name]).any()) for name in names)


def _read(path: Path) -> History:
    table = read_history(path)
    return {name: np.array(table.column(name).to_pylist(), dtype=np.float64) for name in table.column_names}


def _loss(axis: Axes, history: History, task: Any, training: Training) -> None:
    curves = _pair(history, "loss")
    log_axis(axis, "y", [task.baseline, *(value for values in curves.values() if values is not None for value in values)])
    _lines(axis, history["rows"], curves, 1.0)
    style.reference(axis, [task.baseline], "", style.DOTTED)
    axis.set_ylabel(f"loss\n({task.unit})")


def _other(axis: Axes, history: History, task: Any, training: Training) -> None:
    _lines(axis, history["rows"], _pair(history, training.curve), 1.0)
    axis.set_ylabel(training.curve)


def _accuracy(axis: Axes, history: History, task: Any, training: Training) -> None:
    axis.set_ylim(-3, 103)
    _lines(axis, history["rows"], _pair(history, "accuracy"), 100.0)
    style.reference(axis, [100 * task.chance] if task.chance else [], "")
    axis.set_ylabel(style.wrapped(f"{training.accuracy}\u00a0(%)", 1.1))


def _pair(history: History, metric: str) -> dict[str, np.ndarray | None]:
    return {"training": history.get(f"train_{metric}"), "validation": history.get(f"validation_{metric}")}


def _lines(axis: Axes, rows: np.ndarray, columns: dict[str, np.ndarray | None], scale: float) -> None:
    for split, values in columns.items():
        if values is None or not np.isfinite(values).any():
            continue
        (colour, width), known = LINES[split], np.isfinite(values)
        axis.plot(rows[known], scale * values[known], color=colour, lw=width, marker="o" if known.sum() == 1 else None)


def _level(axis: Axes, history: History, column: str) -> None:
    axis.step(history["rows"], history["level"], where="post", color=COLOURS[0])
    axis.set_ylabel(f"curriculum:\n{column} up to")
    axis.set_ylim(0, None)
