"""One run's own learning curve, beside its weights: loss or return, accuracy and, where there is a curriculum, its level.

Every training draws one, so neither seaborn nor pandas is imported for it: a second each, of every job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from pipeline.config.frozen import read_spec, revive
from pipeline.figures import style
from pipeline.figures.style import COLOURS, GREY, Tag
from pipeline.storage.tables import read_table

LEAST_LOSS = 1e-6
History = dict[str, np.ndarray]
"""Columns by name, float64, NaN where a row has no value."""
VALIDATION, TRAINING = COLOURS[0], COLOURS[4]


def draw_run(run: Path) -> None:
    """Draw history.parquet of a run's folder to curve.svg and curve.png there; run.yaml gives the title, chance and the floor."""
    spec = read_spec(run / "run.yaml")
    history = _read(run / "history.parquet")
    levels = "level" in history and bool(np.isfinite(history["level"]).any())
    with style.page(light=True):
        rows, right = 3 if levels else 2, style.margin(["no memory 12.5 %"])
        chart, axes = style.canvas(spec["id"], (style.PLOT_WIDTH, 1.8 * rows), (rows, 1), right, sharex=True, hspace=0.14)
        task = revive("task", spec["task"])
        played = task.kind == "environment"
        (_return if played else _loss)(axes[0, 0], history, task)
        _accuracy(axes[1, 0], history, task)
        if levels:
            _level(axes[2, 0], history, spec["learner"]["curriculum"]["column"])
        axes[-1, 0].set_xlabel("environment steps" if played else "training rows seen")
        axes[-1, 0].set_xlim(0, None)
        axes[-1, 0].xaxis.set_major_formatter(EngFormatter(sep=""))
        chart.align_ylabels()
        style.save_picture(chart, run / "curve")


def _read(path: Path) -> History:
    table = read_table(path)
    return {name: np.array(table.column(name).to_pylist(), dtype=np.float64) for name in table.column_names}


def _loss(axis: Axes, history: History, task: Any) -> None:
    axis.set_yscale("log")
    tags = _lines(axis, history["rows"], _pair(history, "loss"), 1.0)
    axis.axhline(task.floor, color=GREY, lw=1, ls=(0, (2, 2)), zorder=1)
    axis.set_ylabel(f"loss\n({task.unit})")
    style.plain_log(axis)
    style.tag_ends(axis, [*tags, Tag(f"floor {task.floor:.3g}", task.floor, GREY)])


def _return(axis: Axes, history: History, task: Any) -> None:
    tags = _lines(axis, history["rows"], _pair(history, "return"), 1.0, least=-np.inf)
    axis.set_ylabel("return of\nan episode")
    style.tag_ends(axis, tags)


def _accuracy(axis: Axes, history: History, task: Any) -> None:
    played = task.kind == "environment"
    axis.set_ylim(-2, 102)
    tags = _lines(axis, history["rows"], _pair(history, "accuracy"), 100.0)
    known = [100 * task.chance] if task.chance or not played else []
    chance = style.references(axis, known, "no memory {:.3g} %" if played else "chance {:.3g} %")
    axis.set_ylabel("episodes\nsolved (%)" if played else "symbol\naccuracy (%)")
    style.tag_ends(axis, [*tags, *chance])


def _pair(history: History, figure: str) -> dict[str, np.ndarray | None]:
    return {"training": history.get(f"train_{figure}"), "validation": history.get(f"validation_{figure}")}


def _lines(axis: Axes, rows: np.ndarray, columns: dict[str, np.ndarray | None], scale: float, least: float = LEAST_LOSS) -> list[Tag]:
    tags = []
    for (kind, values), (colour, width) in zip(columns.items(), ((TRAINING, 1.0), (VALIDATION, 1.8)), strict=True):
        if values is None or not np.isfinite(values).any():
            continue
        known = np.isfinite(values)
        drawn = (scale * values[known]).clip(min=least)
        axis.plot(rows[known], drawn, color=colour, lw=width, marker="o" if known.sum() == 1 else None)
        tags.append(Tag(kind, float(drawn[-1]), colour))
    return tags


def _level(axis: Axes, history: History, column: str) -> None:
    axis.step(history["rows"], history["level"], where="post", color=VALIDATION)
    axis.set_ylabel(f"curriculum:\n{column} up to")
    axis.set_ylim(0, None)
