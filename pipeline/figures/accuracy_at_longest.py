"""Accuracy at the hardest point: a bar per network with its interval and value, chance drawn."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyAtLongest
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read_results
from pipeline.figures.style import DASHED, GREY

ROW = 0.36


def draw(experiment: Path, out: Path, figure: AccuracyAtLongest, title: str) -> None:
    """Draw the hardest point of results.parquet of the folder `experiment` to `out`.svg, .png and .csv."""
    results = read_results(experiment).across_runs()
    rows = results.hardest.dropna(subset=["accuracy"])
    shown = _shown(rows, results)
    looks = {label: look for label, look in results.looks.items() if label in set(shown["label"])}
    with style.page():
        values = [_value(found) for found in shown.itertuples()]
        size = (4.6, max(0.75, ROW * len(looks)))
        left = max(style.text_width(label) for label in looks) + 0.25
        chart, axes = style.canvas(title, size, right=style.margin(values) - 0.2, left=left, head=0.26)
        axis = axes[0, 0]
        style.bars(axis, shown, rows.assign(accuracy=100 * rows["accuracy"]), "accuracy", looks)
        for place, value in enumerate(values):
            axis.text(1.02, place, value, transform=axis.get_yaxis_transform(), va="center")
        _chance(axis, sorted(shown["chance"].dropna().unique()), results.chance_name)
        axis.set_xlim(0, 101)
        place = f" at {results.hardest_name}" if results.hardest_name else ""
        axis.set_xlabel(results.accuracy_name.replace(" (%)", f"{place} (%)"))
        style.save(chart, out, shown)


def _shown(rows: Frame, results: Results) -> Frame:
    """Accuracy and chance per label, in %."""
    shown = over_seeds(rows, ["label", *results.points], "accuracy", scale=100)
    chance = rows.assign(chance=100 * rows["chance"]).groupby("label", as_index=False)["chance"].mean()
    return results.ordered(shown.merge(chance, on="label"))


def _value(found: Frame) -> str:
    return f"{found.mean:.1f}" + ("" if math.isnan(found.low) else f"  [{found.low:.1f}, {found.high:.1f}]")


def _chance(axis: Axes, chances: list[float], name: str) -> None:
    if not chances:
        return
    for chance in chances:
        axis.axvline(chance, color=GREY, lw=1, ls=DASHED, zorder=2)
    text = name.replace("{:.3g}", ", ".join(f"{chance:.3g}" for chance in chances))
    axis.text(chances[0], 1.0, text, transform=axis.get_xaxis_transform(), va="bottom", fontsize=style.SMALL, color=GREY)
