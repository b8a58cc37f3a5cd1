"""Where traces first go wrong at the hardest point: the share of them that is still without a mistake, along the trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.config.figures import FirstErrors
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, over_seeds, read_results
from pipeline.figures.style import Tag

PLACE = "place"


def draw(experiment: Path, out: Path, figure: FirstErrors, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .png and .csv: a panel per swept layout that has traces."""
    results = read_results(experiment).across_runs().across_layouts()
    shown = _shown(results)
    panels = [layout for layout in results.layouts if (shown[LAYOUT] == layout).any()] or [""]
    with style.page():
        height = style.tall_enough(2.9, len(results.looks))
        size = (style.PLOT_WIDTH if len(panels) == 1 else 3.1 * len(panels), height)
        head = 0.36 if panels[0] else 0.12
        chart, axes = style.canvas(title, size, (1, len(panels)), style.margin(results.looks), head=head, sharey=True, wspace=0.08)
        for axis, layout in zip(axes[0], panels, strict=True):
            tags = _panel(axis, shown[shown[LAYOUT] == layout] if layout else shown, results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=6)
        style.tag_ends(axes[0, -1], tags)
        place = f"\nat {results.hardest_name}" if results.hardest_name else ""
        axes[0, 0].set_ylabel(f"traces without a mistake so far{place} (%)")
        style.save(chart, out, shown)


def _shown(results: Results) -> Frame:
    """The share of traces in % that goes wrong at no place before this one, a share of the trace in %, per label and layout."""
    rows = results.hardest
    traced = rows[rows["scored"] > rows["rows"]]
    rows = traced if len(traced) else rows
    parts = []
    for found in rows.to_dict("records"):
        errors = np.concatenate([[0], np.cumsum(found["first_errors"])])
        places = 100 * np.arange(len(errors)) / (len(errors) - 1)
        shared = {key: found[key] for key in ("label", *results.layout_key)}
        parts.append(pd.DataFrame({**shared, PLACE: places, "rows": found["rows"], "right": 1 - errors / found["rows"]}))
    by = ["label", *results.layout_key, PLACE]
    return results.ordered(over_seeds(pd.concat(parts), by, "right", scale=100), *by[1:])


def _panel(axis: Axes, shown: Frame, results: Results) -> list[Tag]:
    axis.set_xlim(0, 100)
    axis.set_ylim(-2, 102)
    axis.set_xlabel("place in the trace (% of its tokens)")
    tags = []
    for label, line in shown.groupby("label", sort=False):
        look = results.looks[label]
        axis.fill_between(line[PLACE], line["low"], line["high"], color=look.colour, alpha=0.16, lw=0)
        marks = {"marker": look.marker, "markevery": 4, "mec": "white", "mew": 0.6, "clip_on": False}
        axis.plot(line[PLACE], line["mean"], color=look.colour, ls=look.dash, zorder=3, **marks)
        tags.append(style.tag(label, line["mean"].iloc[-1], results.looks))
    return tags
