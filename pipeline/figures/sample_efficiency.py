"""Sample efficiency: training rows, or environment steps, until validation accuracy reached 50, 90 and 99 %."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline.config.figures import SampleEfficiency
from pipeline.evaluation.milestones import MARKS
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import read_results


def draw(experiment: Path, out: Path, figure: SampleEfficiency, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a row per network."""
    results = read_results(experiment, figure)
    labels, names, costs = list(results.line_styles), list(results.names.values()), [f"rows_to_{mark}" for mark in MARKS]
    data = results.ordered(results.runs[["label", "seed", *costs]], "seed")
    with style.page():
        left = max(map(style.text_width, names)) + 0.18
        width = style.width_of(figure.width, beside=left + 0.5)
        training = results.measurement.training
        name = style.wrapped(f"{training.seen} until {training.goal}", width - 0.2)
        room: dict[str, Any] = {
            "left": left,
            "right": 0.5,
            "head": 0.2,
            "bottom": 0.3 + 0.14 * (1 + name.count("\n")),
            "legend": panels.milestone_entries(MARKS),
            "note": results.tuned,
        }
        chart, axes = style.canvas(title, width, max(0.5, panels.ROW * len(labels)), **room)
        axis = axes[0, 0]
        panels.milestones(axis, data, labels, "rows_to", MARKS)
        panels.label_rows(axis, names)
        axis.set_xlim(0, None)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        panels.centred_label(chart, axis, name)
        style.save(chart, out, data)
