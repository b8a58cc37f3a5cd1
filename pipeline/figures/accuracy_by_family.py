"""Accuracy in each family of a task's questions at one point: a row per family, a marker per network with its seeds and interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyByFamily
from pipeline.figures import axes as panels_of
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import PALE

FAMILY = "family"
EACH, BETWEEN = 0.09, 0.14
"""Height of a network's place in the row of a family, and what is left free between two rows, inches."""


def draw(experiment: Path, out: Path, figure: AccuracyByFamily, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a panel per swept layout."""
    results = read_results(experiment, figure).across_layouts()
    rows = results.at(FAMILY).assign(chance=lambda rows: 100 * rows["chance"])
    shown = _shown(rows, results)
    families, panels = sorted(shown[FAMILY].unique()), results.layouts or [""]
    trained = common(results.rows, f"{FAMILY}_most_trained")
    names = [results.value_name(FAMILY, family) + (" (trained)" if family == trained else "") for family in families]
    with style.page():
        high = len(families) * (EACH * len(results.looks) + BETWEEN)
        left = max(map(style.text_width, names)) + 0.18
        width = style.width_of(figure.width, len(panels), left)
        name = style.wrapped(results.accuracy_at(FAMILY), (width - left - 0.1) / len(panels) - 0.1)
        room: dict[str, Any] = {"left": left, "head": 0.08 if len(panels) == 1 else 0.24, "bottom": 0.27 + 0.14 * (1 + name.count("\n"))}
        key = [*style.keys(results.looks, results.names), *style.reference_key(shown["chance"], results.chance_name)]
        room |= {"key": key, "note": results.overlap, "sharey": True, "wspace": 0.08}
        chart, axes = style.canvas(title, width, max(0.5, high), (1, len(panels)), **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            means, seeds = (frame[frame[LAYOUT] == layout] if layout else frame for frame in (shown, rows))
            _panel(axis, means, seeds, families, results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            axis.set_xlabel(name)
        axes[0, 0].set_yticks(range(len(families)), names)
        style.save(chart, out, shown)


def _shown(rows: Frame, results: Results) -> Frame:
    """Accuracy and chance in % per label, layout and family, and the family's name."""
    by = ["label", *results.layout_key, FAMILY]
    shown = over_seeds(rows, by, "accuracy", scale=100).merge(rows.groupby(by, as_index=False)["chance"].mean(), on=by)
    shown.insert(len(by), "family_name", [results.value_name(FAMILY, family) for family in shown[FAMILY]])
    return results.ordered(shown.dropna(subset=["mean"]), *by[1:])


def _panel(axis: Axes, shown: Frame, rows: Frame, families: list[int], results: Results) -> None:
    axis.set_xlim(-3, 103)
    axis.set_ylim(len(families) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.hlines(np.arange(1, len(families)) - 0.5, -3, 103, color=PALE, lw=0.5, zorder=1)
    looks = results.looks
    step = EACH / (EACH * len(looks) + BETWEEN)
    row = {family: place for place, family in enumerate(families)}
    for place, (label, look) in enumerate(looks.items()):
        own, seeds = (frame[frame["label"] == label] for frame in (shown, rows))
        shift = step * (place - (len(looks) - 1) / 2)
        heights = own[FAMILY].map(row) + shift
        axis.plot(100 * seeds["accuracy"], seeds[FAMILY].map(row) + shift, color=look.colour, **panels_of.SEED)
        panels_of.interval(axis, heights, own, look.colour, across=True)
        axis.plot(own["mean"], heights, ls="", color=look.colour, marker=look.marker, mec="white", mew=0.4, zorder=4, clip_on=False)
    style.reference(axis, shown["chance"], "", upright=True)
