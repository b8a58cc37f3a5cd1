"""Training time: CPU seconds per run, and CPU seconds until validation accuracy reached 50, 90 and 99 %."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.config.figures import TrainingTime
from pipeline.evaluation.milestones import MARKS
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import SECONDS, Frame, Results, over_seeds, read, read_results


def draw(experiment: Path, out: Path, figure: TrainingTime, title: str) -> None:
    """Draw timing.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment, figure)
    timing = read(experiment, "timing")
    labels, names = list(results.line_styles), list(results.names.values())
    with style.page():
        left = max(map(style.text_width, names)) + 0.18
        width, high = style.width_of(figure.width, 2), max(0.5, panels.ROW * len(labels))
        stacked = width < style.TEXT
        shape, high, apart = ((2, 1), 2 * high + 0.6, 0.6 / high) if stacked else ((1, 2), high, 0.25)
        room: dict[str, Any] = {
            "left": left,
            "right": 0.5,
            "head": 0.2,
            "hspace": apart,
            "wspace": 0.12,
            "sharey": True,
            "legend": panels.milestone_entries(MARKS),
            "note": results.tuned,
        }
        chart, axes = style.canvas(title, width, high, shape, **room)
        total, marks = axes.flat
        _total(total, timing, results)
        panels.milestones(marks, timing, labels, "seconds_to", MARKS)
        marks.set_xlabel("CPU seconds until this accuracy")
        marks.xaxis.set_major_locator(MaxNLocator(4))
        marks.set_xlim(total.get_xlim())
        marks.tick_params(axis="y", length=0)
        style.save(chart, out, _plot_data(timing, results))


def _plot_data(timing: Frame, results: Results) -> Frame:
    """Return one row per run."""
    return results.ordered(timing[["label", "seed", "cpu_seconds", *(f"seconds_to_{mark}" for mark in MARKS)]], "seed")


def _total(axis: Axes, timing: Frame, results: Results) -> None:
    panels.bars(axis, over_seeds(timing, ["label"], "cpu_seconds", SECONDS), timing, "cpu_seconds", results.line_styles, results.names)
    axis.set_xlim(0, None)
    axis.set_xlabel("CPU seconds of training")
    axis.xaxis.set_major_locator(MaxNLocator(4))
