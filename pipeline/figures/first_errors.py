"""Where traces first go wrong at one point: the share of them that is still without a mistake, along the trace."""

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

PLACE = "place"
RIGHT = Score("traces without a mistake so far", bounds=(0, 1), better="higher", share_of_examples=True)
HEIGHT = 1.75


def draw(experiment: Path, out: Path, figure: FirstErrors, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a panel per swept layout that has traces."""
    results = read_results(experiment, figure).across_runs().across_layouts()
    each = _each(results)
    by = ["label", *results.layout_key, PLACE]
    shown = results.ordered(over_seeds(each, by, "right", RIGHT), *by[1:])
    panels = [layout for layout in results.layouts if (shown[LAYOUT] == layout).any()] or [""]
    with style.page():
        point = results.point_name()
        room: dict[str, Any] = {
            "head": 0.24 if panels[0] else 0.08,
            "left": 0.62 if point else 0.5,
            "key": style.keys(results.looks, results.names),
        }
        width = style.width_of(figure.width, len(panels))
        chart, axes = style.canvas(title, width, HEIGHT, (1, len(panels)), sharey=True, wspace=0.08, note=results.overlap, **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            means, seeds = (frame[frame[LAYOUT] == layout] if layout else frame for frame in (shown, each))
            _panel(axis, means, seeds, results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            axis.set_xlabel("place in the trace (% of its tokens)" if len(panels) < 3 else "place in the trace (%)")
        axes[0, 0].set_ylabel(f"traces without a mistake so far\nat {point} (%)" if point else "traces without a mistake so far (%)")
        style.save(chart, out, shown)


def _each(results: Results) -> Frame:
    """The share of a run's traces that goes wrong at no place before this one, a share of the trace in %: a row per run and place."""
    rows = results.at()
    traced = rows[rows["scored"] > rows["rows"]]
    rows = traced if len(traced) else rows
    parts = []
    for found in rows.to_dict("records"):
        errors = np.concatenate([[0], np.cumsum(found["first_errors"])])
        places = 100 * np.arange(len(errors)) / (len(errors) - 1)
        shared = {key: found[key] for key in ("label", "seed", *results.layout_key)}
        parts.append(pd.DataFrame({**shared, PLACE: places, "rows": found["rows"], "right": 1 - errors / found["rows"]}))
    return pd.concat(parts)


def _panel(axis: Axes, shown: Frame, each: Frame, results: Results) -> None:
    axis.set_xlim(0, 100)
    axis.set_ylim(-3, 103)
    for label, line in shown.groupby("label", sort=False):
        look = results.looks[label]
        axis.fill_between(line[PLACE], line["low"], line["high"], color=look.colour, alpha=0.09, lw=0)
        for _, seed in each[each["label"] == label].groupby("seed"):
            axis.plot(seed[PLACE], 100 * seed["right"], color=look.colour, lw=0.4, alpha=0.5, zorder=2)
        marks = {"marker": look.marker, "markevery": 4, "mec": "white", "mew": 0.4, "clip_on": False}
        axis.plot(line[PLACE], line["mean"], color=look.colour, ls=look.dash, zorder=3, **marks)
