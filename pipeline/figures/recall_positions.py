"""Accuracy by position in the answer and by delay: a heat map per network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config.figures import RecallPositions
from pipeline.figures import style
from pipeline.figures.axes import score_label
from pipeline.figures.frames import Frame, Results, read, read_results

CELL = 0.2
BESIDE = 1.15
"""Width reserved for the colour bar, inches."""


def draw(experiment: Path, out: Path, figure: RecallPositions, title: str) -> None:
    """Draw details.parquet of the folder `experiment`, means over seeds, to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).selected(*figure.needs)
    data = _plot_data(read(experiment, "details"), results)
    points = data["point"].drop_duplicates().tolist()
    width = style.width_of(figure.width, len(results.line_styles))
    columns = min(3 if width > style.COLUMN else 1, len(results.line_styles))
    rows = math.ceil(len(results.line_styles) / columns)
    with style.page():
        height = min(2.0, max(1.0 if rows == 1 else 0.75, CELL * len(points)))
        left = max(map(style.text_width, points)) + 0.36
        panel = (width - left - BESIDE) / (columns + 0.12 * (columns - 1))
        names = {label: style.wrap(name, panel, style.NAME) for label, name in results.names.items()}
        head = 0.1 + 0.14 * max(map(len, names.values()))
        between = (head + 0.06) / height
        room = {"left": left, "right": BESIDE, "head": head, "hspace": between, "wspace": 0.12, "sharex": True, "sharey": True}
        high = height * rows + (head + 0.06) * (rows - 1)
        chart, axes = style.canvas(title, width, high, (rows, columns), note=results.notes, **room)
        for index, label in enumerate(results.line_styles):
            _panel(axes.flat[index], data[data["label"] == label], points, "\n".join(names[label]))
        for axis in axes.flat[len(results.line_styles) :]:
            axis.set_visible(False)
        _name_axes(axes, results, len(results.line_styles))
        _bar(chart, axes, results)
        style.save(chart, out, data)


def _plot_data(positions: Frame, results: Results) -> Frame:
    """Return means over seeds in %, positions counted from 1, points in order."""
    by = [*results.points, "label", "position"]
    places = results.rows[["run", *results.points]].drop_duplicates()
    data = positions.merge(places).groupby(by, as_index=False)["accuracy"].agg(accuracy="mean", seeds="count")
    data = data.sort_values(by, kind="stable")
    data["accuracy"] *= 100
    data["position"] += 1
    varying = results.varying or results.points[:1]
    data.insert(0, "point", [" · ".join(f"{value:,}" for value in values) for values in data[varying].itertuples(index=False)])
    return data


def _panel(axis: Axes, frame: Frame, points: list[str], label: str) -> None:
    grid = frame.pivot(index="point", columns="position", values="accuracy").reindex(points)
    gap = {"edgecolor": "white", "linewidth": 0.3} if grid.size < 400 else {"edgecolor": "face", "linewidth": 0.1}
    edges = [np.arange(size + 1) for size in grid.shape[::-1]]
    axis.pcolormesh(*edges, np.ma.masked_invalid(grid.to_numpy(dtype=float)), vmin=0, vmax=100, cmap="viridis", **gap)
    axis.set_ylim(grid.shape[0], 0)
    axis.spines[:].set_visible(False)
    axis.grid(visible=False)
    axis.set_facecolor(style.PALE if grid.isna().any(axis=None) else "none")
    axis.set_title(label, loc="left", pad=3)
    axis.tick_params(length=0)
    _thin(axis, grid)


def _thin(axis: Axes, grid: Frame) -> None:
    """Thin out tick labels so that they do not overlap: at most ten per axis."""
    width, height = style.panel_size(axis)
    room = max(1, int(width / (style.text_width(str(grid.columns[-1])) + 0.16)))
    for axis_of, names, most in (
        (axis.xaxis, list(grid.columns), min(10, room)),
        (axis.yaxis, list(grid.index), min(10, int(height / 0.13))),
    ):
        step = math.ceil(len(names) / max(1, most))
        axis_of.set_ticks([index + 0.5 for index in range(0, len(names), step)], [str(name) for name in names[::step]], rotation=0)


def _name_axes(axes: Any, results: Results, panels: int) -> None:
    names = " · ".join(results.axis_label(name) for name in results.varying or results.points[:1])
    rows, columns = axes.shape
    for row in range(rows):
        axes[row, 0].set_ylabel(names)
    for column in range(columns):
        lowest = max(row for row in range(rows) if row * columns + column < panels)
        axes[lowest, column].set_xlabel("position in the answer")
        axes[lowest, column].tick_params(labelbottom=True)


def _bar(chart: Figure, axes: Any, results: Results) -> None:
    """Draw one colour bar for all panels, with chance marked on it."""
    box, last = axes[0, -1].get_position(), axes[min(1, len(axes) - 1), 0].get_position()
    width, high = chart.get_size_inches()
    rows_height = (box.y1 - last.y0) * high
    bar_axis = chart.add_axes((box.x1 + 0.1 / width, last.y0, 0.09 / width, box.y1 - last.y0))
    bar = chart.colorbar(axes[0, 0].collections[0], cax=bar_axis)
    bar.set_label(score_label(results.score))
    cast(Any, bar.outline).set_visible(False)
    chances = sorted(results.reference.unique())
    step = 20 if rows_height > 1.5 else 50
    ticks = [tick for tick in range(0, 101, step) if all(abs(tick - chance) > 14 / rows_height for chance in chances)]
    bar.set_ticks([*ticks, *chances], labels=[*map(str, ticks), *(f"{chance:.3g} chance" for chance in chances)])
    bar_axis.hlines(chances, 0, 1, color="white", lw=1)
