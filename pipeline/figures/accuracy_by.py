"""Accuracy against a metadata column: a line per network with its interval over seeds; chance and the values of training marked."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyBy
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import DASHED, GREY, Tag

BETWEEN = 0.6
"""Room between two panels, one above the other, in heights of a panel."""
WIDTHS = (1, 0.62, 0.5)
"""Width of a panel by how many stand side by side, as a share of a single one's."""


def draw(experiment: Path, out: Path, figure: AccuracyBy, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .png and .csv.

    One panel, or one per layout and value of the metadata that varies besides the column on the x axis.
    """
    (column,) = type(figure).needs
    results = read_results(experiment).across_runs().across_layouts()
    shown = _shown(results, figure.metric)
    panels = _panels(shown, results, column)
    with style.page():
        chart, axes = _canvas(title, results, len(panels))
        for index, (name, frame) in enumerate(panels):
            axis = axes.flat[index]
            _panel(axis, frame, results, column, last=(index + 1) % axes.shape[1] == 0 or index + 1 == len(panels))
            axis.set_title(name, loc="left", pad=22)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(results.accuracy_name if figure.metric == "accuracy" else "rows recalled without a mistake (%)")
        style.save(chart, out, shown)


def _shown(results: Results, metric: str) -> Frame:
    """Everything that is drawn, in %."""
    rows = results.rows.assign(chance=100 * results.rows["chance"])
    if metric == "sequence_accuracy":
        rows["chance"] = 100 * (rows["chance"] / 100) ** (rows["scored"] / rows["rows"])
    by = ["label", *results.layout_key, *results.points]
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


def _canvas(title: str, results: Results, panels: int) -> tuple:
    columns = len(results.layouts) if 1 < len(results.layouts) <= len(WIDTHS) else min(panels, 2)
    rows = math.ceil(panels / columns)
    right = style.margin([*results.looks, results.chance_name.format(12.5)])
    stacked = rows + BETWEEN * (rows - 1)
    height = stacked * style.tall_enough((2.9 if rows == 1 else 2.6 * rows) / stacked, len(results.looks) + 1)
    size = (style.PLOT_WIDTH * columns * WIDTHS[columns - 1], height)
    head, wspace = (0.3, 0) if panels == 1 else (0.5, 0.1 if results.layouts else 0.12 + 0.2 * right)
    return style.canvas(title, size, (rows, columns), right, head=head, wspace=wspace, hspace=BETWEEN, sharey=True)


def _panel(axis: Axes, frame: Frame, results: Results, column: str, last: bool) -> None:
    axis.set_ylim(-2, 102)
    axis.set_xlabel(style.axis_name(column))
    values, crowd = sorted(frame[column].unique()), len(results.looks)
    apart = len(values) == 1 or results.runs.groupby("label")[column].nunique().max() > 1
    style.value_axis(axis, values, crowd if apart else 1)
    tags = []
    for place, (label, look) in enumerate(results.looks.items()):
        line = frame[frame["label"] == label].dropna(subset=["mean"])
        if line.empty:
            continue
        if apart:
            style.means(axis, style.aside(axis, line[column], place, crowd), line, look)
        else:
            axis.fill_between(line[column], line["low"], line["high"], color=look.colour, alpha=0.16, lw=0)
            axis.plot(line[column], line["mean"], color=look.colour, ls=look.dash, marker=look.marker, mec="white", mew=0.6, zorder=3)
        tags.append(style.tag(label, line["mean"].iloc[-1], results.looks))
    tags += _chance(axis, frame, column, results.chance_name)
    if last:
        style.tag_ends(axis, tags)
    _trained(axis, results, column)


def _chance(axis: Axes, frame: Frame, column: str, name: str) -> list[Tag]:
    """Chance as a dashed line, level where it is the same everywhere."""
    levels = frame.groupby(column)["chance"].unique()
    if frame["chance"].nunique() == 1 or levels.map(len).max() > 1:
        return style.references(axis, sorted(frame["chance"].unique()), name)
    heights = levels.map(lambda values: values[0])
    axis.plot(heights.index, heights, color=GREY, lw=1, ls=DASHED, zorder=1)
    return [Tag(name.format(heights.iloc[-1]), heights.iloc[-1], GREY)]


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
        axis.plot([start, end], [1.025, 1.025], color=GREY, lw=2.5, solid_capstyle="butt", transform=above, clip_on=False)
        axis.axvspan(start, end, color=GREY, alpha=0.06, lw=0, zorder=0)
    elif start == end:
        axis.axvline(start, color=GREY, lw=1, zorder=1)
        axis.plot([start], [1.025], color=GREY, marker="v", ms=5, transform=above, clip_on=False)
    outside = start > end
    place = (low if most < low else high) if outside else start
    arrow = ("◂ " + text if most < low else text + " ▸") if outside else text
    right = outside and least > high
    axis.text(place, 1.045, arrow, transform=above, ha="right" if right else "left", va="bottom", fontsize=style.SMALL, color=GREY)
