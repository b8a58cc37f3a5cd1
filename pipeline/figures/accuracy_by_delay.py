"""Accuracy against delay: a line per network with its interval over seeds; chance and the delays of training marked."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pipeline.config.figures import AccuracyByDelay
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, common, over_seeds, read_results
from pipeline.figures.style import GREY, Tag

NAMES = {"accuracy": "symbol accuracy (%)", "sequence_accuracy": "rows recalled without a mistake (%)"}


def draw(experiment: Path, out: Path, figure: AccuracyByDelay, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .png and .csv.

    One panel, or one per value of the metadata that varies besides the delay.
    """
    results = read_results(experiment)
    shown = _shown(results, figure.metric)
    panels = list(shown.groupby(_others(results), sort=True)) if _others(results) else [((), shown)]
    with style.page():
        chart, axes = _canvas(title, results, len(panels))
        for index, (values, frame) in enumerate(panels):
            axis = axes.flat[index]
            _panel(axis, frame, results, last=(index + 1) % axes.shape[1] == 0 or index + 1 == len(panels))
            if values:
                named = zip(_others(results), values, strict=True)
                axis.set_title(", ".join(f"{name} {value}" for name, value in named), loc="left", pad=18)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(NAMES[figure.metric])
        style.save(chart, out, shown)


def _others(results: Results) -> list[str]:
    return [column for column in results.varying if column != "delay"]


def _shown(results: Results, metric: str) -> Frame:
    """Everything that is drawn, in %."""
    rows = results.rows.assign(chance=100 * results.rows["chance"])
    if metric == "sequence_accuracy":
        rows["chance"] = 100 * (rows["chance"] / 100) ** (rows["scored"] / rows["rows"])
    by = ["label", *results.points]
    shown = over_seeds(rows, by, metric, scale=100).merge(rows.groupby(by, as_index=False)["chance"].mean(), on=by)
    order = {label: place for place, label in enumerate(results.looks)}
    return shown.sort_values(["label", *results.points], key=lambda column: column.map(order) if column.name == "label" else column)


def _canvas(title: str, results: Results, panels: int) -> tuple:
    columns = min(panels, 2)
    rows = math.ceil(panels / columns)
    right = style.margin([*results.looks, "chance 12.5 %"])
    size = (style.PLOT_WIDTH * (1 if columns == 1 else 0.62 * columns), 2.9 * rows if rows == 1 else 2.6 * rows)
    head, wspace = (0.3, 0) if panels == 1 else (0.5, 0.12 + 0.2 * right)
    return style.canvas(title, size, (rows, columns), right, head=head, wspace=wspace, hspace=0.6, sharey=True)


def _panel(axis: Axes, frame: Frame, results: Results, last: bool) -> None:
    axis.set_ylim(-2, 102)
    _delays(axis, sorted(frame["delay"].unique()))
    tags = []
    for label, look in results.looks.items():
        line = frame[frame["label"] == label].dropna(subset=["mean"])
        if line.empty:
            continue
        axis.fill_between(line["delay"], line["low"], line["high"], color=look.colour, alpha=0.16, lw=0)
        axis.plot(line["delay"], line["mean"], color=look.colour, ls=look.dash, marker=look.marker, mec="white", mew=0.6, zorder=3)
        tags.append(style.tag(label, line["mean"].iloc[-1], results.looks))
    for chance in sorted(frame["chance"].unique()):
        axis.axhline(chance, color=GREY, lw=1, ls=(0, (2, 2)), zorder=1)
        tags.append(Tag(f"chance {chance:.3g} %", chance, GREY))
    if last:
        style.tag_ends(axis, tags)
    _trained(axis, results)


def _delays(axis: Axes, delays: list[int]) -> None:
    """An axis over the measured delays: logarithmic when they span more than a factor of five, ticks at the delays themselves."""
    axis.set_xlabel("delay (tokens)")
    logarithmic = delays[-1] > 5 * delays[0]
    if logarithmic:
        axis.set_xscale("log")
        ratio = (delays[-1] / delays[0]) ** 0.04
        axis.set_xlim(delays[0] / ratio, delays[-1] * ratio)
    else:
        pad = 0.04 * (delays[-1] - delays[0]) or 1
        axis.set_xlim(delays[0] - pad, delays[-1] + pad)
    ticks = style.sparse(delays, logarithmic)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FixedFormatter([f"{delay:,}" for delay in ticks]))
    axis.xaxis.set_minor_locator(NullLocator())


def _trained(axis: Axes, results: Results) -> None:
    """A bar above the panel over the delays of training, where all networks were trained on the same ones."""
    least, most = (common(results.rows, f"delay_{end}_trained") for end in ("least", "most"))
    if least is None or most is None:
        return
    text = f"training task: delay {least:g}" if least == most else f"training task: delays {least:g}–{most:g}"
    low, high = axis.get_xlim()
    start, end = max(low, least), min(high, most)
    above = axis.get_xaxis_transform()
    if start < end:
        axis.plot([start, end], [1.025, 1.025], color=GREY, lw=2.5, solid_capstyle="butt", transform=above, clip_on=False)
        axis.axvspan(start, end, color=GREY, alpha=0.06, lw=0, zorder=0)
    elif start == end:
        axis.axvline(start, color=GREY, lw=1, zorder=1)
        axis.plot([start], [1.025], color=GREY, marker="v", ms=5, transform=above, clip_on=False)
    outside = start > end
    place = (low if most < low else high) if outside else start
    arrow = ("◂ " + text if most < low else text + " ▸") if outside else text
    right = outside and least > high
    axis.text(place, 1.045, arrow, transform=above, ha="right" if right else "left", va="bottom", fontsize=style.SMALL, color=GREY)
