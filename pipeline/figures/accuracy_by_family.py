"""Accuracy in each family of a task's questions at the hardest point: a row per family, a marker per network with its interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyByFamily
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import DASHED, GREY, PALE, Look

FAMILY = "family"
EACH, BETWEEN = 0.13, 0.2
"""Height of a network's place in the row of a family, and what is left free between two rows, inches."""
WIDTH = {1: 4.4, 2: 2.8}
"""Width of a panel by the number of panels, inches; of more, 2.1."""


def draw(experiment: Path, out: Path, figure: AccuracyByFamily, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .png and .csv: a panel per swept layout."""
    results = read_results(experiment).across_layouts()
    shown = _shown(results)
    families, panels = sorted(shown[FAMILY].unique()), results.layouts or [""]
    trained = common(results.rows, f"{FAMILY}_most_trained")
    names = [results.value_name(FAMILY, family) + (" (trained)" if family == trained else "") for family in families]
    place = f"\nat {results.name_but(FAMILY)}" if results.name_but(FAMILY) else ""
    with style.page():
        high = style.tall_enough(len(families) * (EACH * len(results.looks) + BETWEEN), len(results.looks))
        room = {"left": max(map(style.text_width, names)) + 0.25, "head": 0.26 if len(panels) == 1 else 0.46, "bottom": 0.7}
        size = (len(panels) * WIDTH.get(len(panels), 2.1), high)
        chart, axes = style.canvas(title, size, (1, len(panels)), style.margin(results.looks), sharey=True, wspace=0.1, **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            _panel(axis, shown[shown[LAYOUT] == layout] if layout else shown, families, results.looks)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=18)
            axis.set_xlabel(results.accuracy_name.replace(" (%)", f"{place} (%)"))
        axes[0, 0].set_yticks(range(len(families)), names)
        _key(axes[0, -1], results.looks)
        style.save(chart, out, shown)


def _shown(results: Results) -> Frame:
    """Accuracy and chance in % per label, layout and family, and the family's name."""
    rows = results.hardest_but(FAMILY).assign(chance=lambda rows: 100 * rows["chance"])
    by = ["label", *results.layout_key, FAMILY]
    shown = over_seeds(rows, by, "accuracy", scale=100).merge(rows.groupby(by, as_index=False)["chance"].mean(), on=by)
    shown.insert(len(by), "family_name", [results.value_name(FAMILY, family) for family in shown[FAMILY]])
    return results.ordered(shown.dropna(subset=["mean"]), *by[1:])


def _panel(axis: Axes, shown: Frame, families: list[int], looks: dict[str, Look]) -> None:
    axis.set_xlim(-2, 102)
    axis.set_ylim(len(families) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.hlines(np.arange(1, len(families)) - 0.5, -2, 102, color=PALE, lw=0.6, zorder=1)
    step = EACH / (EACH * len(looks) + BETWEEN)
    row = {family: place for place, family in enumerate(families)}
    for place, (label, look) in enumerate(looks.items()):
        own = shown[shown["label"] == label]
        heights = own[FAMILY].map(row) + step * (place - (len(looks) - 1) / 2)
        axis.hlines(heights, own["low"], own["high"], color=look.colour, lw=1.6, alpha=0.6, zorder=3)
        axis.plot(own["mean"], heights, ls="", color=look.colour, marker=look.marker, mec="white", mew=0.6, zorder=4, clip_on=False)
    chances = sorted(shown["chance"].unique())
    for chance in chances:
        axis.axvline(chance, color=GREY, lw=1, ls=DASHED, zorder=2)
    text = f"chance {', '.join(f'{chance:.3g}' for chance in chances)} %"
    axis.text(chances[0], 1.0, text, transform=axis.get_xaxis_transform(), va="bottom", ha="center", fontsize=style.SMALL, color=GREY)


def _key(axis: Axes, looks: dict[str, Look]) -> None:
    """The networks beside the panel, from its top."""
    width, height = style.panel_size(axis)
    for place, (label, look) in enumerate(looks.items()):
        y = 1 - (place * style.TAG) / height
        axis.plot([1 + 0.16 / width], [y], marker=look.marker, ms=4.5, color=look.colour, transform=axis.transAxes, clip_on=False)
        axis.text(1 + 0.28 / width, y, label, va="center_baseline", fontsize=style.SMALL, transform=axis.transAxes)
