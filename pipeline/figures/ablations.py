"""A score of the variants of an experiment: a bar for each with seeds and interval, and its difference to what they are variants of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.figures import Ablations
from pipeline.evaluation.statistics import summarise
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read_results
from pipeline.figures.style import DOTTED, GREY

BETWEEN = 0.1
"""Space between the two columns of numbers, inches."""
HEADS = ("mean", "difference")
DIFFERENCES = ("pairs", "difference", "difference_low", "difference_high")


def draw(experiment: Path, out: Path, figure: Ablations, title: str) -> None:
    """Draw one point of results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure)
    rows = results.at().dropna(subset=[results.metric])
    base = figure.against or results.rows.loc[results.rows["variant"].isna(), "label"].iloc[0]
    data = _plot_data(rows, results, base)
    line_styles = {label: results.line_styles[label] for label in data["label"]}
    with style.page():
        names, means, differences = results.names, [f"{mean:.1f}" for mean in data["mean"]], list(map(_text, data.itertuples()))
        left, right = panels.room_beside([names[label] for label in line_styles], [*means, HEADS[0]])
        beside = right - 0.06 + BETWEEN
        right = beside + max(map(style.text_width, [*differences, HEADS[1]])) + 0.08
        width = style.width_of(figure.width, beside=left + right)
        name = style.wrapped(results.score_label(), width - 0.2)
        room: dict[str, Any] = {"left": left, "right": right, "head": 0.24, "bottom": 0.3 + 0.14 * (1 + name.count("\n"))}
        legend = style.reference_entry(data["mean"].head(1), f"mean of {names[data['label'].iloc[0]]}", DOTTED)
        chart, axes = style.canvas(title, width, max(0.5, panels.ROW * len(data)), legend=legend, note=results.notes, **room)
        axis = axes[0, 0]
        panels.bars(axis, data, rows.assign(value=results.score.scale * rows[results.metric]), "value", line_styles, names)
        for head, column, inches in zip(HEADS, (means, differences), (0.08, beside), strict=True):
            x = 1 + inches / style.panel_size(axis)[0]
            axis.text(x, 1.02, head, transform=axis.transAxes, va="bottom", color=GREY)
            for place, text in enumerate(column):
                axis.text(x, place, text, transform=axis.get_yaxis_transform(), va="center_baseline")
        style.reference(axis, data["mean"].head(1), "", DOTTED, upright=True)
        if results.score.is_share:
            axis.set_xlim(0, 101)
        panels.centred_label(chart, axis, name)
        style.save(chart, out, data)


def _plot_data(rows: Frame, results: Results, base: str) -> Frame:
    """Return the score per label, that of the base first, with the other labels' differences to it."""
    data = results.ordered(over_seeds(rows, ["label", *results.points], results.metric, results.score))
    data = data.sort_values("label", key=lambda labels: labels != base, kind="stable")
    scores = results.score.scale * rows.pivot(index="seed", columns="label", values=results.metric)
    others = [label for label in scores if label != base] if base in scores else []
    found = [(label, *_difference(scores[label] - scores[base], results)) for label in others]
    return data.merge(pd.DataFrame(found, columns=["label", *DIFFERENCES]), on="label", how="left")


def _difference(differences: Frame, results: Results) -> tuple[int, float, float, float]:
    """Return the number of seeds that both have, the mean difference, and its interval; differences of shares are at most 100 %."""
    summary = summarise(differences)
    limit = results.score.scale if results.score.is_share else math.inf
    return summary.n, summary.mean, *np.clip([summary.low, summary.high], -limit, limit)


def _text(found: Any) -> str:
    """Format a difference with its interval; empty for the base."""
    if math.isnan(found.difference):
        return ""
    interval = "" if math.isnan(found.difference_low) else f"  [{found.difference_low:+.1f}, {found.difference_high:+.1f}]"
    return f"{found.difference:+.1f}{interval}"
