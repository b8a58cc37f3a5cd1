"""Puzzles solved against supervision steps: a panel per network with a line per size of puzzle; of one size, one panel with a line per network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from pipeline.config.figures import SolvedBySupervision
from pipeline.figures import axes as panels_of
from pipeline.figures import style
from pipeline.figures.frames import SUPERVISION, Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import COLOURS, DOTTED, MARKERS, LegendEntry, LineStyle

HEIGHT, BETWEEN = 1.6, 0.42
"""Height of a panel, and vertical space between two beside their titles, inches."""
LINE = 0.14
"""Height of a line of a panel's title, inches."""
MOST, MOST_NARROW = 3, 2
"""Maximum panels side by side, on a page as wide as the text and as a column."""


class Panel(NamedTuple):
    """A title, and the lines by name: the columns that select each line's rows, and its look."""

    title: str
    lines: dict[str, tuple[dict[str, Any], LineStyle]]


def draw(experiment: Path, out: Path, figure: SolvedBySupervision, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).selected(SUPERVISION).across_runs()
    sizes = [column for column in results.varying if column != SUPERVISION]
    data = results.ordered(over_seeds(results.rows, ["label", *sizes, SUPERVISION], results.metric, results.score), *sizes, SUPERVISION)
    data = data.dropna(subset=["mean"])
    looks = _sizes(data, sizes, results)
    panels = _by_size(looks, results) if sizes else _one(results)
    with style.page():
        entries = {name: look for name, (_, look) in looks.items()} if sizes else results.line_styles
        legend = [LegendEntry(results.names.get(name, name), look) for name, look in entries.items()]
        trained = results.rows[f"{SUPERVISION}_most_trained"].dropna()
        legend += style.reference_entry(trained, "supervision steps in training: {}", DOTTED)
        width = style.width_of(figure.width, len(panels), legend=legend)
        chart, axes = _canvas(title, width, panels, legend, results)
        for axis, panel in zip(axes.flat, panels, strict=False):
            _panel(axis, panel, data, results)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(style.wrapped(results.score_label(SUPERVISION, *sizes), HEIGHT))
        style.save(chart, out, data)


def _sizes(data: Frame, sizes: list[str], results: Results) -> dict[str, tuple[dict[str, Any], LineStyle]]:
    """Return what selects each size and its look, by its name: shades from dark to light, the smallest first; categories have hues."""
    found = data[sizes].drop_duplicates().sort_values(sizes).to_dict("records") if sizes else []
    named = any(results.categories(size) for size in sizes)
    hues = COLOURS if named else style.shades(len(found))
    return {
        ", ".join(_size_name(size, value, results) for size, value in values.items()): (
            values,
            LineStyle(hues[place % len(hues)], "-", MARKERS[place % len(MARKERS)]),
        )
        for place, values in enumerate(found)
    }


def _size_name(size: str, value: Any, results: Results) -> str:
    """Name a size: `side 9 (trained)` if all networks were trained on it."""
    least, most = (common(results.rows, f"{size}_{end}_trained") for end in ("least", "most"))
    trained = least is not None and most is not None and least <= value <= most
    return f"{size} {results.value_name(size, value)}{' (trained)' if trained else ''}"


def _by_size(looks: dict[str, tuple[dict[str, Any], LineStyle]], results: Results) -> list[Panel]:
    return [
        Panel(results.names[label], {name: ({"label": label, **values}, look) for name, (values, look) in looks.items()})
        for label in results.line_styles
    ]


def _one(results: Results) -> list[Panel]:
    return [Panel("", {label: ({"label": label}, look) for label, look in results.line_styles.items()})]


def _canvas(title: str, width: float, panels: list[Panel], legend: list[LegendEntry], results: Results) -> tuple:
    columns = min(MOST if width > style.COLUMN else MOST_NARROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    wide = (width - 0.6) / columns - 0.1
    names = [style.wrapped(panel.title, wide) for panel in panels]
    panels[:] = [panel._replace(title=name) for panel, name in zip(panels, names, strict=True)]
    head = 0.08 + LINE * max(name.count("\n") + bool(name) for name in names)
    apart = BETWEEN + head
    room: dict[str, Any] = {"head": head, "wspace": 0.08, "hspace": apart / HEIGHT, "legend": legend, "note": results.notes}
    return style.canvas(title, width, HEIGHT * rows + (rows - 1) * apart, (rows, columns), sharey=True, **room)


def _panel(axis: Axes, panel: Panel, data: Frame, results: Results) -> None:
    """Draw means, intervals and seeds of each line, and the numbers of steps in training."""
    axis.set_title(panel.title, loc="left", pad=4)
    axis.set_xlabel(results.axis_label(SUPERVISION))
    count = len(panel.lines)
    panels_of.value_axis(axis, sorted(results.rows[SUPERVISION].unique()), count)
    trained: set[float] = set()
    for place, (chosen, look) in enumerate(panel.lines.values()):
        line, seeds = (_where(frame, chosen) for frame in (data, results.rows))
        if line.empty:
            continue
        x = panels_of.dodge(axis, line[SUPERVISION].tolist(), place, count)
        if seeds["halted"].isna().all():
            _flat(axis, line, x, look)
            continue
        values = results.score.scale * seeds[results.metric]
        axis.plot(panels_of.dodge(axis, seeds[SUPERVISION].tolist(), place, count), values, color=look.colour, **panels_of.SEED)
        panels_of.means(axis, x, line, look)
        trained |= set(seeds[f"{SUPERVISION}_most_trained"].dropna())
    style.reference(axis, trained, "", DOTTED, upright=True)
    panels_of.score_axis(axis, "y", results.score)


def _flat(axis: Axes, line: Frame, x: Any, look: LineStyle) -> None:
    """Draw a network without recursion: it answers once, so a line with one marker and interval, at its right end."""
    axis.plot(x, line["mean"], color=look.colour, ls=look.dash, zorder=3)
    panels_of.means(axis, x[-1:], line.tail(1), look)


def _where(frame: Frame, chosen: dict[str, Any]) -> Frame:
    for column, value in chosen.items():
        frame = frame[frame[column] == value]
    return frame
