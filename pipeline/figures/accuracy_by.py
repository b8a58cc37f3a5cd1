"""A score against a metadata column: a line per network with its seeds and interval; what needs no network, and the training values, marked.

Where the column's values are names, such as families of graphs, it is a row per value and a marker per network.
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
from pipeline.figures.style import DASHED, GREY, PALE, Key

HEIGHT = 1.75
"""Height of a panel, inches."""
BETWEEN = 0.85
"""Room between two panels, one above the other, inches."""
MOST = 3
"""Panels side by side at most."""
EACH, APART = 0.09, 0.14
"""Height of a network's place in the row of a name, and what is left free between two rows, inches."""


def draw(experiment: Path, out: Path, figure: AccuracyBy, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv.

    One panel, or one per layout and value of the metadata that varies besides the column on the x axis.
    """
    results = read_results(experiment, figure)
    if results.categories(figure.column):
        _draw_names(results.across_layouts(), out, figure, title)
        return
    results = results.selected(figure.column).across_runs().across_layouts()
    rows, shown = _rows(results), _shown(results)
    panels = _panels(shown, results, figure.column)
    with style.page():
        key = [*style.keys(results.looks, results.names), *style.reference_key(shown["reference"], _reference_name(shown, results))]
        chart, axes = _canvas(title, figure, results, len(panels), key)
        for index, (said, frame) in enumerate(panels):
            axis = axes.flat[index]
            _panel(axis, frame, rows, results, figure.column)
            axis.set_title(said, loc="left", pad=16)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(style.wrapped(panels_of.score_name(results.score), HEIGHT))
        style.save(chart, out, panels_of.named_reference(shown, results.score))


def _rows(results: Results) -> Frame:
    """A row per run and point, with the shown value of the score and of what needs no network."""
    return results.rows.assign(reference=results.reference, value=results.score.scale * results.rows[results.metric])


def _shown(results: Results) -> Frame:
    """Everything that is drawn of means and of what needs no network."""
    rows, by = _rows(results), ["label", *results.layout_key, *results.points]
    shown = over_seeds(rows, by, results.metric, results.score)
    return results.ordered(shown.merge(rows.groupby(by, as_index=False)["reference"].mean(), on=by), *results.points)


def _panels(shown: Frame, results: Results, column: str) -> list[tuple[str, Frame]]:
    """What each panel shows, and its name: in ascending order of the metadata besides `column`, side by side the layouts in theirs."""
    others = [*(name for name in results.varying if name != column), *results.layout_key]
    if not others:
        return [("", shown)]
    place = {layout: index for index, layout in enumerate(results.layouts)}
    groups = sorted(shown.groupby(others), key=lambda group: [place.get(value, value) for value in group[0]])
    said = [name.removeprefix("task.") for name in others]
    return [
        (", ".join(f"{word} {results.value_name(name, value)}" for word, name, value in zip(said, others, values, strict=True)), frame)
        for values, frame in groups
    ]


def _canvas(title: str, figure: AccuracyBy, results: Results, panels: int, key: list[Key]) -> tuple:
    width = style.width_of(figure.width, panels, key=key)
    columns = min(MOST, len(results.layouts) or panels) if width > style.COLUMN else 1
    rows = math.ceil(panels / columns)
    head, apart = (0.22 if panels == 1 else 0.36), (rows - 1) * BETWEEN
    room: dict[str, Any] = {"head": head, "wspace": 0.08, "hspace": BETWEEN / HEIGHT, "key": key, "note": results.overlap}
    return style.canvas(title, width, HEIGHT * rows + apart, (rows, columns), sharey=True, **room)


def _panel(axis: Axes, frame: Frame, rows: Frame, results: Results, column: str) -> None:
    axis.set_xlabel(results.axis_name(column))
    values, crowd = sorted(frame[column].unique()), len(results.looks)
    panels_of.value_axis(axis, values, crowd)
    seeds = rows.merge(frame[["label", *results.layout_key, *results.points]].drop_duplicates())
    for place, (label, look) in enumerate(results.looks.items()):
        line, own = (found[found["label"] == label] for found in (frame.dropna(subset=["mean"]), seeds))
        if len(line):
            axis.plot(panels_of.aside(axis, own[column], place, crowd), own["value"], color=look.colour, **panels_of.SEED)
            panels_of.means(axis, panels_of.aside(axis, line[column], place, crowd), line, look)
    _reference(axis, frame, column)
    panels_of.score_axis(axis, "y", results.score)
    _trained(axis, results, column)


def _reference_name(shown: Frame, results: Results) -> str:
    """What needs no network is called; without its value where that differs from point to point."""
    name = results.score.reference_label
    return name if shown["reference"].nunique() < 4 else name.split(" {}")[0]


def _reference(axis: Axes, frame: Frame, column: str) -> None:
    """What needs no network as a dashed line, level where it is the same everywhere."""
    levels = frame.dropna(subset=["reference"]).groupby(column)["reference"].unique()
    if frame["reference"].nunique() == 1 or levels.map(len).max() > 1:
        style.reference(axis, frame["reference"], "")
    elif len(levels):
        heights = levels.map(lambda values: values[0])
        axis.plot(heights.index, heights, color=GREY, lw=0.9, ls=DASHED, zorder=1, gid="reference")


def _trained(axis: Axes, results: Results, column: str) -> None:
    """A bar above the panel over the values of training, where all networks were trained on the same ones."""
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
    """Where a value of the x axis stands in the panel, 0..1."""
    return float((axis.get_xaxis_transform() - axis.transAxes).transform((value, 0))[0])


def _draw_names(results: Results, out: Path, figure: AccuracyBy, title: str) -> None:
    """A row for each name in the column, at one point: a panel per swept layout."""
    column, score = figure.column, results.score
    rows = results._replace(rows=_rows(results)).at(column)
    shown = _shown_names(rows, results, column)
    found, panels = sorted(shown[column].unique()), results.layouts or [""]
    trained = common(results.rows, f"{column}_most_trained")
    names = [results.value_name(column, value) + (" (trained)" if value == trained else "") for value in found]
    with style.page():
        high = len(found) * (EACH * len(results.looks) + APART)
        left = max(map(style.text_width, names)) + 0.18
        width = style.width_of(figure.width, len(panels), left)
        name = style.wrapped(results.score_at(column), (width - left - 0.1) / len(panels) - 0.1)
        room: dict[str, Any] = {"left": left, "head": 0.08 if len(panels) == 1 else 0.24, "bottom": 0.27 + 0.14 * (1 + name.count("\n"))}
        key = [*style.keys(results.looks, results.names), *style.reference_key(shown["reference"], score.reference_label)]
        room |= {"key": key, "note": results.overlap, "sharey": True, "wspace": 0.08}
        chart, axes = style.canvas(title, width, max(0.5, high), (1, len(panels)), **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            means, seeds = (frame[frame[LAYOUT] == layout] if layout else frame for frame in (shown, rows))
            _panel_of_names(axis, means, seeds, found, results, column)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            axis.set_xlabel(name)
        axes[0, 0].set_yticks(range(len(found)), names)
        style.save(chart, out, panels_of.named_reference(shown, score))


def _shown_names(rows: Frame, results: Results, column: str) -> Frame:
    """The score and what needs no network per label, layout and value of the column, and that value's name."""
    by = ["label", *results.layout_key, column]
    shown = over_seeds(rows, by, results.metric, results.score)
    shown = shown.merge(rows.groupby(by, as_index=False)["reference"].mean(), on=by)
    shown.insert(len(by), f"{column}_name", [results.value_name(column, value) for value in shown[column]])
    return results.ordered(shown.dropna(subset=["mean"]), *by[1:])


def _panel_of_names(axis: Axes, shown: Frame, rows: Frame, values: list[int], results: Results, column: str) -> None:
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.hlines(np.arange(1, len(values)) - 0.5, 0, 1, color=PALE, lw=0.5, zorder=1, transform=axis.get_yaxis_transform())
    looks = results.looks
    step = EACH / (EACH * len(looks) + APART)
    row = {value: place for place, value in enumerate(values)}
    for place, (label, look) in enumerate(looks.items()):
        own, seeds = (frame[frame["label"] == label] for frame in (shown, rows))
        shift = step * (place - (len(looks) - 1) / 2)
        heights = own[column].map(row) + shift
        axis.plot(seeds["value"], seeds[column].map(row) + shift, color=look.colour, **panels_of.SEED)
        panels_of.interval(axis, heights, own, look.colour, across=True)
        axis.plot(own["mean"], heights, ls="", color=look.colour, marker=look.marker, mec="white", mew=0.4, zorder=4, clip_on=False)
    style.reference(axis, shown["reference"], "", upright=True)
    panels_of.score_axis(axis, "x", results.score)
