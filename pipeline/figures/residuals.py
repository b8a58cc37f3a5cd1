"""How much the latents changed in the last supervision step, of puzzles that are solved and of those that are not: a panel per network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.config.figures import Residuals
from pipeline.evaluation.measurements.puzzles import residual_edges
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import SUPERVISION, Frame, Results, read_results
from pipeline.figures.style import COLOURS, GREY, LegendEntry, LineStyle

HEIGHT, BETWEEN = 1.3, 0.4
"""Height of a panel, and vertical space between two beside their titles, inches."""
LINE = 0.14
"""Height of a line of a panel's title, inches."""
MOST = 3
"""Maximum panels side by side on a page as wide as the text; on a column there is one."""
KINDS = {"solved": LineStyle(COLOURS[0], "-", ""), "unsolved": LineStyle(GREY, (0, (4, 1.4)), "")}
NAMES = {"solved": "solved puzzles", "unsolved": "puzzles not solved"}


def draw(experiment: Path, out: Path, figure: Residuals, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: recursive networks after their last measured step."""
    results = read_results(experiment, figure).recursive
    rows = _last(results)
    data = results.ordered(_plot_data(rows), "low")
    with style.page():
        legend = [LegendEntry(NAMES[kind], look) for kind, look in KINDS.items()]
        width = style.width_of(figure.width, len(results.line_styles), legend=legend)
        columns = min(MOST, len(results.line_styles)) if width > style.COLUMN else 1
        lines = math.ceil(len(results.line_styles) / columns)
        wide = (width - 0.6) / columns - 0.1
        titles = {label: _title(data[data["label"] == label], name, wide) for label, name in results.names.items()}
        head = 0.08 + LINE * (1 + max(text.count("\n") for text in titles.values()))
        apart = BETWEEN + head
        room: dict[str, Any] = {"head": head, "wspace": 0.08, "hspace": apart / HEIGHT, "legend": legend, "note": _note(results)}
        chart, axes = style.canvas(title, width, HEIGHT * lines + (lines - 1) * apart, (lines, columns), sharey=True, **room)
        for axis, label in zip(axes.flat, titles, strict=False):
            axis.set_title(titles[label], loc="left", pad=4, linespacing=1.2)
            _panel(axis, data[data["label"] == label], data)
        for axis in axes.flat[len(titles) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel("share of these (%)")
            row[0].set_ylim(0, 1.06 * data[list(KINDS)].max(axis=None))
        style.save(chart, out, data)


def _last(results: Results) -> Frame:
    """Return the rows at the figure's point, after the largest number of steps unless the option `at` names one."""
    rows = results.at(SUPERVISION)
    return rows[rows[SUPERVISION] == getattr(results.figure, "at", {}).get(SUPERVISION, rows[SUPERVISION].max())]


def _note(results: Results) -> str:
    point, steps = results.point_name(SUPERVISION), _last(results)[SUPERVISION].iloc[0]
    return " ".join(filter(None, [f"Step {steps}{f', puzzles at {point}' if point else ''}.", results.notes]))


def _plot_data(rows: Frame) -> Frame:
    """Return, per label and bin, the mean over seeds of the shares of solved puzzles and of the others that are in it, in %.

    `solved_share`: of all puzzles. `auc`: probability that a solved puzzle changed less than another one, mean over the seeds that have both.
    """
    edges, parts = residual_edges(), []
    for label, group in rows.groupby("label"):
        counts = {kind: np.stack(group[f"residuals_{kind}"].tolist()).astype(float) for kind in KINDS}
        seeds = [_auc(solved, unsolved) for solved, unsolved in zip(*counts.values(), strict=True)]
        known = [value for value in seeds if not math.isnan(value)]
        shared = {"solved_share": 100 * group["accuracy"].mean(), "auc": np.mean(known) if known else math.nan, "seeds": len(group)}
        parts.append(pd.DataFrame({"label": label, "low": edges[:-1], "high": edges[1:], **_shares(counts), **shared}))
    return pd.concat(parts)


def _shares(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the share of each kind in every bin, mean over the seeds that have any of it; NaN without one."""
    found = {}
    for kind, counts_SN in counts.items():
        any_N = counts_SN[counts_SN.sum(1) > 0]
        found[kind] = 100 * (any_N / any_N.sum(1, keepdims=True)).mean(0) if len(any_N) else np.full(counts_SN.shape[1], math.nan)
    return found


def _auc(solved_N: np.ndarray, unsolved_N: np.ndarray) -> float:
    """Return the probability that a solved puzzle is in a lower bin than another one; the same bin counts half."""
    pairs = solved_N.sum() * unsolved_N.sum()
    above_N = unsolved_N.sum() - np.cumsum(unsolved_N)
    return float((solved_N * (above_N + unsolved_N / 2)).sum() / pairs) if pairs else math.nan


def _title(data: Frame, name: str, width: float) -> str:
    solved, auc = data[["solved_share", "auc"]].iloc[0]
    text = f"{solved:.0f} % solved" + ("" if math.isnan(auc) else f", AUC {auc:.2f}")
    return f"{style.wrapped(name, width)}\n{style.wrapped(text, width)}"


def _panel(axis: Axes, data: Frame, everything: Frame) -> None:
    """Draw both distributions over the bins that any network occupies."""
    occupied = everything[everything[list(KINDS)].sum(axis=1) > 0]
    panels.log_axis(axis, "x", [occupied["low"].min(), occupied["high"].max()], least=data["low"].min())
    edges = [*data["low"], data["high"].iloc[-1]]
    for kind, look in KINDS.items():
        if data[kind].notna().all():
            axis.stairs(data[kind], edges, fill=True, color=look.colour, alpha=0.18, lw=0)
            axis.stairs(data[kind], edges, color=look.colour, ls=look.dash, lw=1.1, zorder=3)
    axis.set_xlabel("change of the latents (RMS)")
