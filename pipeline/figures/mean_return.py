"""Mean return of held-out episodes at the hardest point: a bar per network with its interval and value, the best possible drawn."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import MeanReturn
from pipeline.figures import style
from pipeline.figures.frames import Frame, over_seeds, read_results
from pipeline.figures.style import DASHED, GREY

ROW = 0.36


def draw(experiment: Path, out: Path, figure: MeanReturn, title: str) -> None:
    """Draw the hardest point of results.parquet of the folder `experiment` to `out`.svg, .png and .csv."""
    results = read_results(experiment).across_runs()
    rows = results.hardest
    best = rows.groupby("label", as_index=False)["best_return"].mean()
    shown = results.ordered(over_seeds(rows, ["label", *results.points], "return").merge(best, on="label"))
    with style.page():
        values = [_value(found) for found in shown.itertuples()]
        size = (4.6, max(0.75, ROW * len(results.looks)))
        left = max(style.text_width(label) for label in results.looks) + 0.25
        chart, axes = style.canvas(title, size, right=style.margin(values) - 0.2, left=left, head=0.26)
        axis = axes[0, 0]
        style.bars(axis, shown, rows, "return", results.looks)
        for place, value in enumerate(values):
            axis.text(1.02, place, value, transform=axis.get_yaxis_transform(), va="center")
        _best(axis, sorted(shown["best_return"].dropna().unique()))
        axis.axvline(0, color=GREY, lw=0.8, zorder=1)
        place = f" at {results.hardest_name}" if results.hardest_name else ""
        axis.set_xlabel(f"mean return{place}")
        style.save(chart, out, shown)


def _value(found: Frame) -> str:
    return f"{found.mean:.2f}" + ("" if math.isnan(found.low) else f"  [{found.low:.2f}, {found.high:.2f}]")


def _best(axis: Axes, best: list[float]) -> None:
    """The best possible return, of all points the largest."""
    if best:
        axis.axvline(best[-1], color=GREY, lw=1, ls=DASHED, zorder=2)
        at = {"transform": axis.get_xaxis_transform(), "fontsize": style.SMALL, "color": GREY}
        axis.text(best[-1], 1.0, f"best possible {best[-1]:.3g}", va="bottom", ha="right", **at)
