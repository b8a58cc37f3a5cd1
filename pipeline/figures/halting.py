"""What the halting logit q knows, against supervision steps: the share of puzzles that halted, and how often q is right about the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.config.figures import Halting
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import SUPERVISION, Frame, Results, over_seeds, read_results
from pipeline.figures.style import DOTTED, GREY, LegendEntry, LineStyle

HEIGHT, APART = 1.6, 0.18
"""Height of a panel, and space between two that stand one above the other, inches."""
SCORES = ("halted", "q_accuracy")
CONSTANT = "constant"
"""How often the more frequent of right and wrong is the truth: what a q that does not look at the puzzle attains."""


def draw(experiment: Path, out: Path, figure: Halting, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).halting
    rows = results.at(SUPERVISION)
    rows = rows.assign(**{CONSTANT: 100 * np.maximum(rows["accuracy"], 1 - rows["accuracy"])})
    data = _plot_data(rows, results)
    with style.page():
        legend = style.legend_entries(results.line_styles, results.names)
        legend.append(LegendEntry("always the more frequent outcome", LineStyle(GREY, DOTTED, ""), 0.9))
        width = style.width_of(figure.width, len(SCORES), legend=legend)
        narrow = width == style.COLUMN
        room: dict[str, Any] = {"legend": legend, "note": _note(results), "left": 0.55, "hspace": APART / HEIGHT, "wspace": 0.3}
        shape, height = ((2, 1), 2 * HEIGHT + APART) if narrow else ((1, 2), HEIGHT)
        chart, axes = style.canvas(title, width, height, shape, sharex=True, **room)
        for axis, score in zip(axes.flat, SCORES, strict=True):
            _panel(axis, data[data["score"] == score], rows, score, results)
        for axis in axes[-1]:
            axis.set_xlabel(results.axis_label(SUPERVISION))
        style.save(chart, out, data)


def _note(results: Results) -> str:
    point = results.point_name(SUPERVISION)
    return " ".join(filter(None, [f"Puzzles at {point}." if point else "", results.notes]))


def _plot_data(rows: Frame, results: Results) -> Frame:
    """Return both scores per label and number of steps, beside that of q what a constant q attains."""
    by, scores = ["label", SUPERVISION], results.measurement.scores
    parts = [over_seeds(rows, by, name, scores[name]).assign(score=name) for name in SCORES]
    constant = rows.groupby(by, as_index=False)[CONSTANT].mean().assign(score=SCORES[1])
    data = results.ordered(pd.concat(parts).merge(constant, on=[*by, "score"], how="left"), "score", SUPERVISION)
    return data[["score", *(column for column in data if column != "score")]]


def _panel(axis: Axes, data: Frame, rows: Frame, name: str, results: Results) -> None:
    score, count = results.measurement.scores[name], len(results.line_styles)
    panels.value_axis(axis, sorted(rows[SUPERVISION].unique()), count)
    for place, (label, line_style) in enumerate(results.line_styles.items()):
        line, seeds = (frame[frame["label"] == label] for frame in (data, rows))
        x = panels.dodge(axis, line[SUPERVISION].tolist(), place, count)
        seen = panels.dodge(axis, seeds[SUPERVISION].tolist(), place, count)
        axis.plot(seen, score.scale * seeds[name], color=line_style.colour, **panels.SEED)
        panels.means(axis, x, line, line_style)
        if line[CONSTANT].notna().all():
            axis.plot(x, line[CONSTANT], color=line_style.colour, ls=DOTTED, lw=0.9, zorder=2, gid="reference")
    panels.score_axis(axis, "y", score)
    axis.set_ylabel(style.wrapped(panels.score_label(score), HEIGHT))
