"""Accuracy against a metadata column: a line per network with its seeds and interval; chance and the values of training marked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyBy
from pipeline.figures import axes as panels_of
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import DASHED, GREY, Key

HEIGHT = 1.75
"""Height of a panel, inches."""
BETWEEN = 0.85
"""Room between two panels, one above the other, inches."""
MOST = 3
"""Panels side by side at most."""


def draw(experiment: Path, out: Path, figure: AccuracyBy, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv.

    One panel, or one per layout and value of the metadata that varies besides the column on the x axis.
    """
    (column,) = type(figure).needs
    results = read_results(experiment, figure).selected(column).across_runs().across_layouts()
    rows, shown = _rows(results, figure.metric), _shown(results, figure.metric)
    panels = _panels(shown, results, column)
    with style.page():
        name = _chance_name(shown, results)
        key = [*style.keys(results.looks, results.names), *style.reference_key(shown["chance"], name)]
        chart, axes = _canvas(title, figure, results, len(panels), key)
        for index, (said, frame) in enumerate(panels):
            axis = axes.flat[index]
            _panel(axis, frame, rows, results, column)
            axis.set_title(said, loc="left", pad=16)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(results.accuracy_name if figure.metric == "accuracy" else "rows recalled\nwithout a mistake (%)")
        style.save(chart, out, shown)


def _rows(results: Results, metric: str) -> Frame:
    """A row per run and point, in %, with its chance."""
    rows = results.rows.assign(chance=100 * results.rows["chance"], value=100 * results.rows[metric])
    if metric == "sequence_accuracy":
        rows["chance"] = 100 * (rows["chance"] / 100) ** (rows["scored"] / rows["rows"])
    return rows


def _shown(results: Results, metric: str) -> Frame:
    """Everything that is drawn of means and chance, in %."""
    rows, by = _rows(results, metric), ["label", *results.layout_key, *results.points]
    shown = over_seeds(rows, by, metric, scale=100).merge(rows.groupby(by, as_index=False)["chance"].mean(), on=by)
    return results.ordered(shown, *results.points)


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
    axis.set_ylim(-3, 103)
    axis.set_xlabel(panels_of.axis_name(column))
    values, crowd = sorted(frame[column].unique()), len(results.looks)
    panels_of.value_axis(axis, values, crowd)
    seeds = rows.merge(frame[["label", *results.layout_key, *results.points]].drop_duplicates())
    for place, (label, look) in enumerate(results.looks.items()):
        line, own = (found[found["label"] == label] for found in (frame.dropna(subset=["mean"]), seeds))
        if len(line):
            axis.plot(panels_of.aside(axis, own[column], place, crowd), own["value"], color=look.colour, **panels_of.SEED)
            panels_of.means(axis, panels_of.aside(axis, line[column], place, crowd), line, look)
    _chance(axis, frame, column)
    _trained(axis, results, column)


def _chance_name(shown: Frame, results: Results) -> str:
    """What chance is called; without its value where that differs from point to point."""
    return results.chance_name if shown["chance"].nunique() < 4 else results.chance_name.replace(" {} %", "")


def _chance(axis: Axes, frame: Frame, column: str) -> None:
    """Chance as a dashed line, level where it is the same everywhere."""
    levels = frame.groupby(column)["chance"].unique()
    if frame["chance"].nunique() == 1 or levels.map(len).max() > 1:
        style.reference(axis, frame["chance"], "")
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
