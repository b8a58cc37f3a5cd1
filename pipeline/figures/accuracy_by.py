"""A score against a metadata column: a line per network with seeds and intervals; reference line and training values are marked.

If the column is categorical, such as families of graphs: a row per category and a marker per network.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyBy
from pipeline.figures import axes as panels_of
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import DASHED, GREY, PALE, LegendEntry

HEIGHT = 1.75
"""Height of a panel, inches."""
BETWEEN = 0.85
"""Vertical space between two panels, inches."""
MOST = 3
"""Maximum panels side by side."""
EACH, APART = 0.09, 0.14
"""Height of a network within the row of a category, and space between two rows, inches."""


def draw(experiment: Path, out: Path, figure: AccuracyBy, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv.

    One panel, or one per layout and value of the metadata that varies other than the column on the x axis.
    """
    results = read_results(experiment, figure)
    if results.categories(figure.column):
        _draw_categories(results.across_layouts(), out, figure, title)
        return
    results = results.selected(figure.column).across_runs().across_layouts()
    rows, data = _rows(results), _plot_data(results)
    panels = _panels(data, results, figure.column)
    with style.page():
        legend = [
            *style.legend_entries(results.line_styles, results.names),
            *style.reference_entry(data["reference"], _reference_name(data, results)),
        ]
        chart, axes = _canvas(title, figure, results, len(panels), legend)
        for index, (panel_title, frame) in enumerate(panels):
            axis = axes.flat[index]
            _panel(axis, frame, rows, results, figure.column)
            axis.set_title(panel_title, loc="left", pad=16)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(style.wrapped(panels_of.score_label(results.score), HEIGHT))
        style.save(chart, out, panels_of.named_reference(data, results.score))


def _rows(results: Results) -> Frame:
    """Return a row per run and point, with the scaled score and its reference."""
    return results.rows.assign(reference=results.reference, value=results.score.scale * results.rows[results.metric])


def _plot_data(results: Results) -> Frame:
    """Return the means and the references to plot."""
    rows, by = _rows(results), ["label", *results.layout_key, *results.points]
    data = over_seeds(rows, by, results.metric, results.score)
    return results.ordered(data.merge(rows.groupby(by, as_index=False)["reference"].mean(), on=by), *results.points)


def _panels(data: Frame, results: Results, column: str) -> list[tuple[str, Frame]]:
    """Return title and data of each panel: in ascending order of the metadata other than `column`, layouts in their own order."""
    others = [*(name for name in results.varying if name != column), *results.layout_key]
    if not others:
        return [("", data)]
    place = {layout: index for index, layout in enumerate(results.layouts)}
    groups = sorted(data.groupby(others), key=lambda group: [place.get(value, value) for value in group[0]])
    words = [name.removeprefix("task.") for name in others]
    return [
        (", ".join(f"{word} {results.value_name(name, value)}" for word, name, value in zip(words, others, values, strict=True)), frame)
        for values, frame in groups
    ]


def _canvas(title: str, figure: AccuracyBy, results: Results, panels: int, legend: list[LegendEntry]) -> tuple:
    width = style.width_of(figure.width, panels, legend=legend)
    columns = min(MOST, len(results.layouts) or panels) if width > style.COLUMN else 1
    rows = math.ceil(panels / columns)
    head, apart = (0.22 if panels == 1 else 0.36), (rows - 1) * BETWEEN
    room: dict[str, Any] = {"head": head, "wspace": 0.08, "hspace": BETWEEN / HEIGHT, "legend": legend, "note": results.notes}
    return style.canvas(title, width, HEIGHT * rows + apart, (rows, columns), sharey=True, **room)


def _panel(axis: Axes, frame: Frame, rows: Frame, results: Results, column: str) -> None:
    axis.set_xlabel(results.axis_label(column))
    values, count = sorted(frame[column].unique()), len(results.line_styles)
    panels_of.value_axis(axis, values, count)
    seeds = rows.merge(frame[["label", *results.layout_key, *results.points]].drop_duplicates())
    for place, (label, line_style) in enumerate(results.line_styles.items()):
        line, own = (found[found["label"] == label] for found in (frame.dropna(subset=["mean"]), seeds))
        if len(line):
            axis.plot(panels_of.dodge(axis, own[column], place, count), own["value"], color=line_style.colour, **panels_of.SEED)
            panels_of.means(axis, panels_of.dodge(axis, line[column], place, count), line, line_style)
    _reference(axis, frame, column)
    panels_of.score_axis(axis, "y", results.score)
    _trained(axis, results, column)


def _reference_name(data: Frame, results: Results) -> str:
    """Return the label of the reference; without its value if that differs between points."""
    name = results.score.reference_label
    return name if data["reference"].nunique() < 4 else name.split(" {}")[0]


def _reference(axis: Axes, frame: Frame, column: str) -> None:
    """Draw the reference as a dashed line, horizontal if it is the same everywhere."""
    levels = frame.dropna(subset=["reference"]).groupby(column)["reference"].unique()
    if frame["reference"].nunique() == 1 or levels.map(len).max() > 1:
        style.reference(axis, frame["reference"], "")
    elif len(levels):
        heights = levels.map(lambda values: values[0])
        axis.plot(heights.index, heights, color=GREY, lw=0.9, ls=DASHED, zorder=1, gid="reference")


def _trained(axis: Axes, results: Results, column: str) -> None:
    """Draw a bar above the panel over the training values, if all networks were trained on the same ones."""
    least, most = (common(results.rows, f"{column}_{end}_trained") for end in ("least", "most"))
    if least is None or most is None:
        return
    several = column if column.endswith("s") else f"{column}s"
    text = f"training task: {column} {least:g}" if least == most else f"training task: {several} {least:g}–{most:g}"
    low, high = axis.get_xlim()
    start, end = max(low, least), min(high, most)
    above = axis.get_xaxis_transform()
    if start < end:
        axis.plot([start, end], [1.025, 1.025], color=GREY, lw=2, solid_capstyle="butt", transform=above, clip_on=False)
        axis.axvspan(start, end, color=GREY, alpha=0.06, lw=0, zorder=0)
    elif start == end:
        axis.plot([start], [1.03], color=GREY, marker="v", ms=4, transform=above, clip_on=False)
    outside = start > end
    text = ("◂ " + text if most < low else text + " ▸") if outside else text
    place = _fraction(axis, low if outside and most < low else high if outside else start)
    fits = place + style.text_width(text) / style.panel_size(axis)[0] < 1
    axis.text(place if fits else 1, 1.05, text, transform=axis.transAxes, ha="left" if fits else "right", va="bottom", color=GREY)


def _fraction(axis: Axes, value: float) -> float:
    """Return the position of an x value in the panel, 0..1."""
    return float((axis.get_xaxis_transform() - axis.transAxes).transform((value, 0))[0])


def _draw_categories(results: Results, out: Path, figure: AccuracyBy, title: str) -> None:
    """Draw a row for each category of the column, at one point: a panel per swept layout."""
    column, score = figure.column, results.score
    rows = results._replace(rows=_rows(results)).at(column)
    data = _category_data(rows, results, column)
    found, panels = sorted(data[column].unique()), results.layouts or [""]
    trained = common(results.rows, f"{column}_most_trained")
    names = [results.value_name(column, value) + (" (trained)" if value == trained else "") for value in found]
    with style.page():
        high = len(found) * (EACH * len(results.line_styles) + APART)
        left = max(map(style.text_width, names)) + 0.18
        width = style.width_of(figure.width, len(panels), left)
        name = style.wrapped(results.score_label(column), (width - left - 0.1) / len(panels) - 0.1)
        room: dict[str, Any] = {"left": left, "head": 0.08 if len(panels) == 1 else 0.24, "bottom": 0.27 + 0.14 * (1 + name.count("\n"))}
        legend = [
            *style.legend_entries(results.line_styles, results.names),
            *style.reference_entry(data["reference"], score.reference_label),
        ]
        room |= {"legend": legend, "note": results.notes, "sharey": True, "wspace": 0.08}
        chart, axes = style.canvas(title, width, max(0.5, high), (1, len(panels)), **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            means, seeds = (frame[frame[LAYOUT] == layout] if layout else frame for frame in (data, rows))
            _category_panel(axis, means, seeds, found, results, column)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            axis.set_xlabel(name)
        axes[0, 0].set_yticks(range(len(found)), names)
        style.save(chart, out, panels_of.named_reference(data, score))


def _category_data(rows: Frame, results: Results, column: str) -> Frame:
    """Return the score and its reference per label, layout and category of the column, and the category's name."""
    by = ["label", *results.layout_key, column]
    data = over_seeds(rows, by, results.metric, results.score)
    data = data.merge(rows.groupby(by, as_index=False)["reference"].mean(), on=by)
    data.insert(len(by), f"{column}_name", [results.value_name(column, value) for value in data[column]])
    return results.ordered(data.dropna(subset=["mean"]), *by[1:])


def _category_panel(axis: Axes, data: Frame, rows: Frame, values: list[int], results: Results, column: str) -> None:
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.hlines(np.arange(1, len(values)) - 0.5, 0, 1, color=PALE, lw=0.5, zorder=1, transform=axis.get_yaxis_transform())
    line_styles = results.line_styles
    step = EACH / (EACH * len(line_styles) + APART)
    row = {value: place for place, value in enumerate(values)}
    for place, (label, line_style) in enumerate(line_styles.items()):
        own, seeds = (frame[frame["label"] == label] for frame in (data, rows))
        shift = step * (place - (len(line_styles) - 1) / 2)
        heights = own[column].map(row) + shift
        axis.plot(seeds["value"], seeds[column].map(row) + shift, color=line_style.colour, **panels_of.SEED)
        panels_of.interval(axis, heights, own, line_style.colour, across=True)
        axis.plot(
            own["mean"], heights, ls="", color=line_style.colour, marker=line_style.marker, mec="white", mew=0.4, zorder=4, clip_on=False
        )
    style.reference(axis, data["reference"], "", upright=True)
    panels_of.score_axis(axis, "x", results.score)
