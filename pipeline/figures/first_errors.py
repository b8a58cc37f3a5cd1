"""First errors in traces at one point: the share of traces without a mistake so far, by position in the trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.config.figures import FirstErrors
from pipeline.evaluation.measurements.base import Score
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, over_seeds, read_results

POSITION = "place"
RIGHT = Score("traces without a mistake so far", bounds=(0, 1), better="higher", share_of_examples=True)
HEIGHT = 1.75


def draw(experiment: Path, out: Path, figure: FirstErrors, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a panel per swept layout that has traces."""
    results = read_results(experiment, figure).across_runs().across_layouts()
    per_run = _per_run(results)
    by = ["label", *results.layout_key, POSITION]
    data = results.ordered(over_seeds(per_run, by, "right", RIGHT), *by[1:])
    panels = [layout for layout in results.layouts if (data[LAYOUT] == layout).any()] or [""]
    with style.page():
        point = results.point_name()
        room: dict[str, Any] = {
            "head": 0.24 if panels[0] else 0.08,
            "left": 0.62 if point else 0.5,
            "legend": style.legend_entries(results.line_styles, results.names),
        }
        width = style.width_of(figure.width, len(panels))
        chart, axes = style.canvas(title, width, HEIGHT, (1, len(panels)), sharey=True, wspace=0.08, note=results.notes, **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            means, seeds = (frame[frame[LAYOUT] == layout] if layout else frame for frame in (data, per_run))
            _panel(axis, means, seeds, results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            axis.set_xlabel("position in the trace (% of its tokens)" if len(panels) < 3 else "position in the trace (%)")
        axes[0, 0].set_ylabel(f"traces without a mistake so far\nat {point} (%)" if point else "traces without a mistake so far (%)")
        style.save(chart, out, data)


def _per_run(results: Results) -> Frame:
    """Return the share of a run's traces without a mistake before each position, in % of the trace: a row per run and position."""
    rows = results.at()
    traced = rows[rows["scored"] > rows["rows"]]
    rows = traced if len(traced) else rows
    parts = []
    for run in rows.to_dict("records"):
        errors = np.concatenate([[0], np.cumsum(run["first_errors"])])
        places = 100 * np.arange(len(errors)) / (len(errors) - 1)
        shared = {key: run[key] for key in ("label", "seed", *results.layout_key)}
        parts.append(pd.DataFrame({**shared, POSITION: places, "rows": run["rows"], "right": 1 - errors / run["rows"]}))
    return pd.concat(parts)


def _panel(axis: Axes, data: Frame, per_run: Frame, results: Results) -> None:
    axis.set_xlim(0, 100)
    axis.set_ylim(-3, 103)
    for label, line in data.groupby("label", sort=False):
        line_style = results.line_styles[label]
        axis.fill_between(line[POSITION], line["low"], line["high"], color=line_style.colour, alpha=0.09, lw=0)
        for _, seed in per_run[per_run["label"] == label].groupby("seed"):
            axis.plot(seed[POSITION], 100 * seed["right"], color=line_style.colour, lw=0.4, alpha=0.5, zorder=2)
        marks = {"marker": line_style.marker, "markevery": 4, "mec": "white", "mew": 0.4, "clip_on": False}
        axis.plot(line[POSITION], line["mean"], color=line_style.colour, ls=line_style.dash, zorder=3, **marks)
