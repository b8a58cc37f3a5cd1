"""Shared elements of panels: linear and logarithmic axes, means with error bars and seeds, bars, milestones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Transform

from pipeline.evaluation.measurements.base import Score
from pipeline.figures.style import GREY, INK, NAME, PALE, SHADES, SMALL, LegendEntry, LineStyle, panel_size, text_width

if TYPE_CHECKING:
    import pandas as pd

INTERVAL: dict[str, Any] = {"elinewidth": 0.7, "capthick": 0.7, "capsize": 1.5, "alpha": 0.75}
SEED: dict[str, Any] = {"ls": "", "marker": "o", "ms": 1.9, "mew": 0, "alpha": 0.55}
ROW = 0.26
"""Height of a bar's row, inches."""


def score_label(score: Score) -> str:
    """Return the axis label of a score, with its unit."""
    return f"{score.label} ({score.shown_unit})" if score.shown_unit else score.label


def score_axis(axis: Axes, which: Literal["x", "y"], score: Score) -> None:
    """Set the limits of a score's axis: 0 to 100 % for a share, from zero for scores that cannot be less, else automatic."""
    limits: Callable[..., Any] = getattr(axis, f"set_{which}lim")
    if score.is_share:
        limits(-3, 103)
    elif score.bounds[0] == 0:
        limits(0, None)


def validation_axis(axis: Axes, score: Score, values: Sequence[float]) -> None:
    """Set up a y axis for validation results: of losses logarithmic if they span more than a factor of twenty, else that of their score."""
    if not score.is_share and score.better == "lower" and values and min(values) > 0 and max(values) > 20 * min(values):
        log_axis(axis, "y", values)
    else:
        score_axis(axis, "y", score)


def room_for(name: str) -> float:
    """Return the width of a y axis with this label, inches."""
    return 0.47 + 0.15 * (1 + name.count("\n"))


def named_reference(data: pd.DataFrame, score: Score) -> pd.DataFrame:
    """Rename the column `reference` to the name that the score gives it; drop it if there is none."""
    return data.rename(columns={"reference": score.reference}) if score.reference else data.drop(columns="reference")


def value_axis(axis: Axes, values: Sequence[float], count: int = 1, write: Callable[[float], str] = "{:,.0f}".format) -> None:
    """Set up an x axis over ascending values: logarithmic if they span more than a factor of five, ticks at the values themselves.

    count: number of markers side by side at a value, see `dodge`; the ends of the axis leave room for them. write: formats a tick.
    """
    logarithmic, pad = values[0] > 0 and values[-1] > 5 * values[0], 0.04 + 0.5 * _room(count)
    if logarithmic:
        axis.set_xscale("log")
        ratio = (values[-1] / values[0]) ** pad
        axis.set_xlim(values[0] / ratio, values[-1] * ratio)
    else:
        beyond = pad * (values[-1] - values[0]) or 1
        axis.set_xlim(values[0] - beyond, values[-1] + beyond)
    wide = max(text_width(write(value)) for value in values) + 0.06
    ticks = sparse(values, logarithmic, wide * (1 + 2 * pad) / panel_size(axis)[0])
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FixedFormatter([write(value) for value in ticks]))
    axis.xaxis.set_minor_locator(NullLocator())


def _room(count: int) -> float:
    """Return the share of an axis that this many markers side by side take."""
    return min(0.24, 0.022 * (count - 1))


def dodge(axis: Axes, values: Sequence[float], index: int, count: int) -> np.ndarray:
    """Shift x values sideways, for series `index` of `count`, so that the markers of the series do not overlap."""
    to_axis = axis.get_xaxis_transform() - axis.transAxes
    ticks = _across(to_axis, sorted({*axis.get_xticks(), *values}))
    room = min(_room(count), *(0.6 * np.diff(ticks))) if len(ticks) > 1 else 0.8 * (1 - 1 / count)
    shift = room * (index / max(1, count - 1) - 0.5)
    return _across(to_axis.inverted(), _across(to_axis, values) + shift)


def _across(transform: Transform, values: Any) -> np.ndarray:
    """Return the x coordinates of values under a transform."""
    return transform.transform(np.stack([np.asarray(values, dtype=float), np.zeros(len(values))], axis=1))[:, 0]


def sparse(values: Sequence[float], logarithmic: bool, least: float = 0.09) -> list[float]:
    """Select the ascending values whose tick labels do not overlap: at least `least` of the axis apart, both ends kept."""
    places = np.log(values) if logarithmic else np.asarray(values, dtype=float)
    places = (places - places[0]) / ((places[-1] - places[0]) or 1)
    kept = [0]
    for index in range(1, len(values)):
        if places[index] - places[kept[-1]] >= least:
            kept.append(index)
    if kept[-1] != len(values) - 1:
        kept[-1 if len(kept) > 1 else len(kept) :] = [len(values) - 1]
    return [values[index] for index in kept]


def plain(value: float) -> str:
    """Format a number, without an exponent if that is short."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def log_axis(
    axis: Axes, which: Literal["x", "y"], values: Iterable[float], write: Callable[[float], str] = plain, least: float = 1e-6
) -> None:
    """Set up a logarithmic axis over values; with a tick at zero if one of them is zero.

    Such an axis is linear (matplotlib's symlog) below the smallest decade needed, which is at least `least`.
    """
    known = [value for value in values if math.isfinite(value)]
    positive = [value for value in known if value > 0] or [1.0]
    low, most = 10.0 ** math.floor(math.log10(max(min(positive), least)) + 1e-9), max(positive)
    linear = any(value < min(low, min(positive)) or value < low for value in known)
    if linear:
        getattr(axis, f"set_{which}scale")("symlog", linthresh=low, linscale=0.5)
        getattr(axis, f"set_{which}lim")(-0.35 * low, max(most * 1.6, low * 2))
    else:
        getattr(axis, f"set_{which}scale")("log")
        pad = max((most / min(positive)) ** 0.07, 1.25, (12 * min(positive) / most) ** 0.5)
        getattr(axis, f"set_{which}lim")(min(positive) / pad, most * pad)
    ticks = _magnitudes(axis, which, low, write)
    side = axis.xaxis if which == "x" else axis.yaxis
    side.set_major_locator(FixedLocator([0.0, *ticks] if linear else ticks))
    side.set_major_formatter(FixedFormatter((["0"] if linear else []) + [write(tick) for tick in ticks]))
    side.set_minor_locator(NullLocator())


def _magnitudes(axis: Axes, which: str, low: float, write: Callable[[float], str]) -> list[float]:
    """Return ticks above zero: at 1, 2 and 5 if less than three decades are shown, else at the decades, as many as there is room for."""
    lowest, high = getattr(axis, f"get_{which}lim")()
    first, last = round(math.log10(low)), math.floor(math.log10(high) + 1e-9)
    decades = [10.0**power for power in range(first, last + 1)]
    inside = [tick for tick in decades if lowest <= tick <= high]
    if len(inside) < 3:
        inside = [part * decade for decade in decades for part in (1, 2, 5) if lowest <= part * decade <= high]
    length = panel_size(axis)[0 if which == "x" else 1]
    each = max((text_width(write(tick)) for tick in inside), default=0) + 0.1 if which == "x" else 0.17
    return inside[:: math.ceil(len(inside) * each / length)] if inside else []


def size_text(unit: str) -> Callable[[float], str]:
    """Return a formatter for numbers of this unit: 10 kB."""

    def write(size: float) -> str:
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= factor:
                return f"{size / factor:g} {prefix}{unit}"
        return f"{size:g} {unit}"

    return write


def cost_axis(axis: Axes, values: Sequence[float]) -> None:
    """Set up a y axis for costs: from zero, or logarithmic if the values span more than a factor of twenty."""
    known = [value for value in values if value > 0] or [1.0]
    if max(known) > 20 * min(known):
        log_axis(axis, "y", values)
    else:
        axis.set_ylim(0, 1.06 * max(known))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def means(axis: Axes, x: Any, line: pd.DataFrame, line_style: LineStyle, **style: Any) -> None:
    """Draw a line through the means of a frame, each with its interval as an error bar."""
    interval(axis, x, line, line_style.colour)
    drawn: dict[str, Any] = {"ls": line_style.dash, "marker": line_style.marker, "mec": "white", "mew": 0.4, "zorder": 4, **style}
    axis.plot(x, line["mean"], color=line_style.colour, **drawn)


def interval(axis: Axes, x: Any, line: pd.DataFrame, colour: str, across: bool = False) -> None:
    """Draw the intervals of a frame as error bars; across: horizontal ones, for means on the x axis."""
    reach = np.clip([line["mean"] - line["low"], line["high"] - line["mean"]], 0, None)
    if across:
        axis.errorbar(line["mean"], x, xerr=reach, fmt="none", ecolor=colour, zorder=3, **INTERVAL)
    else:
        axis.errorbar(x, line["mean"], yerr=reach, fmt="none", ecolor=colour, zorder=3, **INTERVAL)


def bars(axis: Axes, data: Any, seeds: pd.DataFrame, value: str, known: Mapping[str, LineStyle], names: Mapping[str, str]) -> None:
    """Draw a horizontal bar per label, from the top: the mean with its error bar, and a marker per seed's `value`."""
    for place, (label, line_style) in enumerate(known.items()):
        found = data[data["label"] == label]
        axis.barh([place] * len(found), found["mean"], height=0.56, color=line_style.colour, alpha=0.3, lw=0)
        interval(axis, [place] * len(found), found, INK, across=True)
        dots = seeds.loc[seeds["label"] == label, value]
        axis.plot(
            dots, [place] * len(dots), ls="", marker=line_style.marker, ms=2.8, color=line_style.colour, mec="white", mew=0.4, zorder=4
        )
    label_rows(axis, [names[label] for label in known])


def label_rows(axis: Axes, names: Sequence[str]) -> None:
    """Set up a y axis of names, from the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.45, -0.55)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")


def milestones(axis: Axes, runs: Any, labels: Sequence[str], cost: str, marks: Sequence[int]) -> None:
    """Draw the cost for each label to reach accuracies of `marks` %, from the columns `{cost}_{mark}` of `runs`, a row per run.

    Large markers are medians over the seeds that reached the mark; the number that reached the last mark is on the right.
    """
    shapes: dict[int, dict[str, Any]] = {
        mark: {"marker": line_style.marker, "color": line_style.colour} for mark, line_style in _mark_styles(marks).items()
    }
    for place, label in enumerate(labels):
        own = runs[runs["label"] == label]
        medians = [own[f"{cost}_{mark}"].median() for mark in marks]
        axis.plot(medians, [place] * len(marks), color=PALE, lw=2, zorder=1, solid_capstyle="round")
        for mark, median in zip(marks, medians, strict=True):
            seeds = own[f"{cost}_{mark}"].dropna()
            axis.plot(seeds, [place] * len(seeds), ls="", ms=2.2, alpha=0.5, zorder=2, **shapes[mark])
            axis.plot([median], [place], ms=4.6, mec="white", mew=0.5, zorder=3, ls="", **shapes[mark])
        reached = int(own[f"{cost}_{marks[-1]}"].notna().sum())
        _write_beside(axis, f"{reached}/{len(own)}", (1, place), axis.get_yaxis_transform(), va="center", color=INK if reached else GREY)
    _write_beside(axis, f"to {marks[-1]} %", (1, 1.01), axis.transAxes, va="bottom", fontsize=SMALL, color=GREY)
    axis.grid(visible=False, axis="y")


def _write_beside(axis: Axes, text: str, at: tuple[float, float], transform: Transform, **text_style: Any) -> None:
    """Write a text 5 points to the right of a position, however wide the panel is."""
    axis.annotate(text, at, (5, 0), xycoords=transform, textcoords="offset points", annotation_clip=False, **text_style)


def milestone_entries(marks: Sequence[int]) -> list[LegendEntry]:
    """Return the legend entries of `milestones`."""
    return [LegendEntry(f"{mark} %", line_style, 0.0) for mark, line_style in _mark_styles(marks).items()]


def _mark_styles(marks: Sequence[int]) -> dict[int, LineStyle]:
    return {mark: LineStyle(shade, "-", shape) for mark, shape, shade in zip(marks, "osD", SHADES, strict=True)}


def stairs(front: pd.DataFrame, end: float) -> tuple[list[float], list[float]]:
    """Return the corners of a step line through the means, up to `end` on the right."""
    xs, ys = [*front["x"], end], list(front["mean"])
    corners = [(x, y) for (left, right), y in zip(pairwise(xs), ys, strict=True) for x in (left, right)]
    return [x for x, _ in corners], [y for _, y in corners]


def value_text(found: Any, digits: int) -> str:
    """Format a mean with its interval."""
    interval = "" if math.isnan(found.low) else f"  [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return f"{found.mean:.{digits}f}{interval}"


def room_beside(names: list[str], values: list[str]) -> tuple[float, float]:
    """Return the widths of names on the left and values on the right of bars, inches."""
    return max(map(text_width, names)) + 0.18, max(map(text_width, values)) + 0.16


def write_values(axis: Axes, values: list[str]) -> None:
    """Write the values to the right of their bars."""
    for place, value in enumerate(values):
        axis.text(1.03, place, value, transform=axis.get_yaxis_transform(), va="center_baseline")


def centred_label(chart: Figure, axis: Axes, name: str) -> None:
    """Write the x axis label in the middle of the page, since it may be longer than the axis."""
    low, height = axis.get_position().y0, chart.get_size_inches()[1]
    chart.text(0.5, low - 0.22 / height, name, ha="center", va="top", fontsize=NAME, linespacing=1.2)
