"""Accuracy at the hardest point against the state each network carries there: in bytes, with the front of those that no other beats; or in
bits, with what the task asks for.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pipeline.config.figures import AccuracyByState, CostQuality
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, over_seeds, read_results
from pipeline.figures.style import GREY, INK

WIDTH = "network.width"
"""Where it is swept, a label is a line through one network's widths."""
MANY = 6
"""More networks than these are named beside the panel instead of beside their markers."""
TICK = 0.62
"""Width that the label of a decade takes, inches."""


def draw(experiment: Path, out: Path, figure: CostQuality, title: str) -> None:
    """Draw the hardest point of results.parquet of the folder `experiment` to `out`.svg, .png and .csv."""
    results = read_results(experiment).across_runs().along(WIDTH, WIDTH)
    shown = _shown(results)
    with style.page():
        crowded = len(results.looks) > MANY
        size = (style.PLOT_WIDTH, style.tall_enough(3.3, len(results.looks) + 1))
        chart, axes = style.canvas(title, size, right=style.margin([*(results.looks if crowded else []), results.chance_name.format(12.5)]))
        axis = axes[0, 0]
        axis.set_ylim(-2, 104)
        zero = _state_axis(axis, shown["state_bytes"].tolist(), "B")
        drawn = shown.assign(x=shown["state_bytes"].where(shown["state_bytes"] > 0, zero))
        chance = style.references(axis, sorted(100 * results.hardest["chance"].unique()), results.chance_name)
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
        axis.set_ylabel(results.accuracy_name.replace(" (%)", f"{place} (%)"))
        axis.set_xlabel(f"state carried from {results.step_name} to {results.step_name} (bytes)")
        style.save(chart, out, shown)


def draw_state(experiment: Path, out: Path, figure: AccuracyByState, title: str) -> None:
    """Draw the hardest point of results.parquet of the folder `experiment` to `out`.svg, .png and .csv: a panel per swept layout."""
    results = read_results(experiment).across_runs().across_layouts().across_sizes()
    shown = _bits(results)
    panels = results.layouts or [""]
    with style.page():
        right = style.margin([*results.looks, results.chance_name.format(12.5)])
        height = style.tall_enough(2.9, len(results.looks) + 1)
        width = style.PLOT_WIDTH if len(panels) == 1 else 3.1 * len(panels)
        chart, axes = style.canvas(
            title, (width, height), (1, len(panels)), right, head=0.26 if len(panels) == 1 else 0.46, sharey=True, wspace=0.08
        )
        for axis, layout in zip(axes[0], panels, strict=True):
            tags = _state_panel(axis, shown[shown[LAYOUT] == layout] if layout else shown, shown, results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=18)
            axis.set_xlabel(f"state carried from {results.step_name} to {results.step_name} (bits)")
        style.tag_ends(axes[0, -1], tags)
        place = f"\nat {results.hardest_name}" if results.hardest_name else ""
        axes[0, 0].set_ylabel(results.accuracy_name.replace(" (%)", f"{place} (%)"))
        style.save(chart, out, shown)


def _bits(results: Results) -> Frame:
    """Accuracy and chance in %, state and what the task asks for in bits, per label, layout and swept sizes, smallest state first."""
    rows = results.hardest.assign(state_bits=8 * results.hardest["state_bytes"], chance=100 * results.hardest["chance"])
    rows = rows if "memory_bits" in rows else rows.assign(memory_bits=np.nan)
    by = ["label", *results.layout_key, *results.network_sizes]
    shown = over_seeds(rows, by, "accuracy", scale=100).dropna(subset=["mean"])
    found = rows.groupby(by, as_index=False)[["state_bits", "memory_bits", "chance", "parameters"]].max()
    return results.ordered(shown.merge(found, on=by), *results.layout_key, "state_bits")


def _state_panel(axis: Axes, panel: Frame, shown: Frame, results: Results) -> list[style.Tag]:
    """The lines of one layout on the axes that all panels share; the tags of their ends."""
    needed = panel["memory_bits"].dropna().unique()
    axis.set_ylim(-2, 104)
    zero = _state_axis(axis, [*shown["state_bits"], *shown["memory_bits"].dropna()], "bit")
    tags = style.references(axis, sorted(panel["chance"].unique()), results.chance_name)
    for bits in needed:
        axis.axvline(bits, color=INK, lw=1.2, zorder=1)
        axis.text(
            bits,
            1.02,
            f"the task holds {bits:,.0f} bits",
            transform=axis.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
        )
    drawn = panel.assign(x=panel["state_bits"].where(panel["state_bits"] > 0, zero))
    for label, line in drawn.groupby("label", sort=False):
        style.means(axis, line["x"], line, results.looks[label])
        tags.append(style.tag(label, line["mean"].iloc[-1], results.looks))
    return tags


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


def _state_axis(axis: Axes, sizes: list[float], unit: str) -> float:
    """A logarithmic axis; the place at its left end where an empty state is drawn."""
    positive = [size for size in sizes if size > 0] or [1]
    least, most = min(positive), max(positive)
    low = 10 ** np.floor(np.log10(least))
    high = max(most * (most / low) ** 0.2, low * 10)
    zero = low / (high / low) ** 0.12
    has_zero = 0 in sizes
    axis.set_xscale("log")
    axis.set_xlim(zero / (high / low) ** 0.07 if has_zero else low, high)
    powers = range(round(np.log10(low)), int(np.log10(high) + 1e-9) + 1)
    decades = [10.0**power for power in powers[:: math.ceil(len(powers) * TICK / style.panel_size(axis)[0])]]
    axis.xaxis.set_major_locator(FixedLocator([zero, *decades] if has_zero else decades))
    axis.xaxis.set_major_formatter(FixedFormatter((["0"] if has_zero else []) + [_size(decade, unit) for decade in decades]))
    axis.xaxis.set_minor_locator(NullLocator())
    if has_zero:
        axis.axvline(low / (high / low) ** 0.05, color=GREY, lw=0.8, ls=(0, (1, 3)))
    return zero


def _size(size: float, unit: str) -> str:
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{size / factor:g} {prefix}{unit}"
    return f"{size:g} {unit}"


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
