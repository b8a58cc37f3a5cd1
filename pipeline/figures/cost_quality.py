"""Accuracy at the hardest point against the bytes of state each network carries there, with the front of those that no other beats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pipeline.config.figures import CostQuality
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read_results
from pipeline.figures.style import GREY

WIDTH = "network.width"
"""Where it is swept, a label is a line through one network's widths."""
MANY = 6
"""More networks than these are named beside the panel instead of beside their markers."""
CHANCE = "chance 12.5 %"


def draw(experiment: Path, out: Path, figure: CostQuality, title: str) -> None:
    """Draw the hardest point of results.parquet of the folder `experiment` to `out`.svg, .png and .csv."""
    results = read_results(experiment).across_runs().along(WIDTH, WIDTH)
    shown = _shown(results)
    with style.page():
        crowded = len(results.looks) > MANY
        size = (style.PLOT_WIDTH, style.tall_enough(3.3, len(results.looks) + 1))
        chart, axes = style.canvas(title, size, right=style.margin([*(results.looks if crowded else []), CHANCE]))
        axis = axes[0, 0]
        axis.set_ylim(-2, 104)
        zero = _bytes_axis(axis, shown["state_bytes"].tolist())
        drawn = shown.assign(x=shown["state_bytes"].where(shown["state_bytes"] > 0, zero))
        chance = style.references(axis, sorted(100 * results.hardest["chance"].unique()), "chance {:.3g} %")
        stairs = _front(axis, drawn)
        _points(axis, drawn, results)
        named = drawn.assign(text=drawn["label"].where(~drawn["label"].duplicated(keep="last"), ""))
        if crowded:
            ends = named[named["text"] != ""]
            style.tag_ends(axis, chance + [style.tag(found.label, found.mean, results.looks) for found in ends.itertuples()])
        else:
            style.tag_ends(axis, chance)
            style.label_spots(axis, list(named[["x", "mean", "text"]].itertuples(index=False)), stairs)
        place = f"\nat {results.hardest_name}" if results.hardest_name else ""
        axis.set_ylabel(f"symbol accuracy{place} (%)")
        axis.set_xlabel("state carried from token to token (bytes)")
        style.save(chart, out, shown)


def _shown(results: Results) -> Frame:
    """Accuracy in % and state per label and swept width, cheapest first, and whether it is on the front."""
    rows = results.hardest
    by = ["label", *([WIDTH] if WIDTH in rows else [])]
    shown = over_seeds(rows, by, "accuracy", scale=100).dropna(subset=["mean"])
    costs = rows.groupby(by, as_index=False, dropna=False).agg(state_bytes=("state_bytes", "max"), parameters=("parameters", "max"))
    shown = shown.merge(costs, on=by)
    shown = shown.sort_values(["state_bytes", "mean"], ascending=[True, False], kind="stable", ignore_index=True)
    best = shown["mean"].cummax().shift(fill_value=-np.inf)
    return shown.assign(front=shown["mean"] > best)


def _bytes_axis(axis: Axes, sizes: list[int]) -> float:
    """A logarithmic axis in bytes; the place at its left end where a state of no bytes is drawn."""
    positive = [size for size in sizes if size > 0] or [1]
    least, most = min(positive), max(positive)
    low = 10 ** np.floor(np.log10(least))
    high = max(most * (most / low) ** 0.2, low * 10)
    zero = low / (high / low) ** 0.12
    has_zero = 0 in sizes
    axis.set_xscale("log")
    axis.set_xlim(zero / (high / low) ** 0.07 if has_zero else low, high)
    decades = [10.0**power for power in range(round(np.log10(low)), int(np.log10(high) + 1e-9) + 1)]
    axis.xaxis.set_major_locator(FixedLocator([zero, *decades] if has_zero else decades))
    axis.xaxis.set_major_formatter(FixedFormatter((["0"] if has_zero else []) + [_size(decade) for decade in decades]))
    axis.xaxis.set_minor_locator(NullLocator())
    if has_zero:
        axis.axvline(low / (high / low) ** 0.05, color=GREY, lw=0.8, ls=(0, (1, 3)))
    return zero


def _size(size: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size:g} B"


def _front(axis: Axes, drawn: Frame) -> list[tuple[float, float]]:
    """Draw the stairs from each network on the front to the next, and return their corners."""
    front = drawn[drawn["front"]]
    x, y = np.repeat([*front["x"], axis.get_xlim()[1]], 2)[1:-1], np.repeat(front["mean"], 2)
    axis.plot(x, y, color=GREY, lw=1.2, zorder=2)
    return list(zip(x, y, strict=True))


def _points(axis: Axes, drawn: Frame, results: Results) -> None:
    for label, line in drawn.groupby("label", sort=False):
        look = results.looks[label]
        axis.vlines(line["x"], line["low"], line["high"], color=look.colour, lw=1.6, alpha=0.6, zorder=3)
        axis.plot(line["x"], line["mean"], color=look.colour, ls=look.dash, lw=1.2, zorder=3)
        axis.plot(line["x"], line["mean"], color=look.colour, ls="", marker=look.marker, ms=7.5, mec="white", mew=0.8, zorder=4)
