"""Puzzles solved against supervision steps: a panel per network, a line per size of puzzle."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import SolvedBySupervision
from pipeline.figures import axes as panels_of
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read_results
from pipeline.figures.style import DOTTED, GREY, MARKERS, LegendEntry, LineStyle

HEIGHT, BETWEEN = 1.5, 0.62
"""Height of a panel, and vertical space between two, inches."""
MOST = 3
"""Maximum panels side by side."""
STEPS = "supervision"
HUES = ("#08306b", "#d55e00", "#009e73", "#b0589a", "#e69f00", "#5a3c00")
"""Colours of the sizes, the first trained one dark."""


def draw(experiment: Path, out: Path, figure: SolvedBySupervision, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).selected(STEPS)
    sizes = [column for column in results.varying if column != STEPS]
    data = results.ordered(over_seeds(results.rows, ["label", *sizes, STEPS], results.metric, results.score), *sizes, STEPS)
    lines = _lines(data, sizes, results)
    with style.page():
        legend = [LegendEntry(name, line_style) for name, line_style in lines.items()] if sizes else []
        chart, axes = _canvas(title, results, legend)
        for index, label in enumerate(results.line_styles):
            _panel(axes.flat[index], data[data["label"] == label], label, sizes, lines, results)
        for axis in axes.flat[len(results.line_styles) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(style.wrapped(panels_of.score_label(results.score), HEIGHT))
        style.save(chart, out, data)


def _lines(data: Frame, sizes: list[str], results: Results) -> dict[str, LineStyle]:
    """Return the line style of every size, by its name."""
    if not sizes:
        return {"": LineStyle(HUES[0], "-", MARKERS[0])}
    found = data[sizes].drop_duplicates().sort_values(sizes)
    names = [_name(values, sizes, results) for values in found.itertuples(index=False)]
    return {name: LineStyle(HUES[place % len(HUES)], "-", MARKERS[place % len(MARKERS)]) for place, name in enumerate(names)}


def _name(values: tuple, sizes: list[str], results: Results) -> str:
    return ", ".join(f"{size} {results.value_name(size, value)}" for size, value in zip(sizes, values, strict=True))


def _canvas(title: str, results: Results, legend: list[LegendEntry]) -> tuple:
    panels = len(results.line_styles)
    width = style.width_of(results.figure.width, panels, legend=legend)
    columns = min(MOST, panels) if width > style.COLUMN else 1
    rows = math.ceil(panels / columns)
    room = {"head": 0.24, "wspace": 0.08, "hspace": BETWEEN / HEIGHT, "legend": legend, "note": results.notes}
    return style.canvas(title, width, HEIGHT * rows + (rows - 1) * BETWEEN, (rows, columns), sharey=True, **room)


def _panel(axis: Axes, data: Frame, label: str, sizes: list[str], lines: dict[str, LineStyle], results: Results) -> None:
    """Draw one network: means and intervals of each size, its seeds, and the largest number of steps in its training."""
    axis.set_title(results.names[label], loc="left", pad=4)
    axis.set_xlabel(results.axis_label(STEPS))
    panels_of.value_axis(axis, sorted(results.rows[STEPS].unique()), len(lines))
    own = results.rows[results.rows["label"] == label]
    for place, (name, line_style) in enumerate(lines.items()):
        line, seeds = (frame[_is(frame, sizes, name, results)] for frame in (data, own))
        if line.empty:
            continue
        values = results.score.scale * seeds[results.metric]
        axis.plot(panels_of.dodge(axis, seeds[STEPS].tolist(), place, len(lines)), values, color=line_style.colour, **panels_of.SEED)
        panels_of.means(axis, panels_of.dodge(axis, line[STEPS].tolist(), place, len(lines)), line, line_style)
    trained = own[f"{STEPS}_most_trained"].dropna().unique()
    if len(trained) == 1:
        axis.axvline(trained[0], color=GREY, lw=0.9, ls=DOTTED, zorder=1, gid="trained")
    panels_of.score_axis(axis, "y", results.score)


def _is(frame: Frame, sizes: list[str], name: str, results: Results) -> list[bool]:
    """Return which rows of a frame are of the size of this name."""
    if not sizes:
        return [True] * len(frame)
    return [_name(values, sizes, results) == name for values in frame[sizes].itertuples(index=False)]
