"""Validation loss, or return, and accuracy against training rows: a thin line per seed, a thick line for the median."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline.config.figures import LearningCurves
from pipeline.figures import style
from pipeline.figures.axes import log_axis
from pipeline.figures.frames import Frame, Results, read, read_results
from pipeline.figures.style import LegendEntry, LineStyle

HEIGHT = 2.9


def draw(experiment: Path, out: Path, figure: LearningCurves, title: str) -> None:
    """Draw curves.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv; results.parquet gives chance and baseline."""
    results = read_results(experiment, figure)
    training = results.measurement.training
    data = _plot_data(read(experiment, "curves"), training.curve)
    with style.page():
        legend = [*style.legend_entries(results.line_styles, results.names), *_references(results)]
        room: dict[str, Any] = {"legend": legend, "note": results.tuned, "left": 0.62, "sharex": True, "hspace": 0.1}
        chart, axes = style.canvas(title, style.width_of(figure.width, legend=legend), HEIGHT, (2, 1), **room)
        (_loss if training.curve == "loss" else _other)(axes[0, 0], data, results)
        _accuracy(axes[1, 0], data, results)
        chart.align_ylabels()
        style.save(chart, out, data)


def _references(results: Results) -> list[LegendEntry]:
    """Return the legend entries of the reference lines of both panels."""
    training = results.measurement.training
    upper = results.measurement.scores.get(training.curve)
    above = style.reference_entry(_upper(results), upper.reference_label, style.DOTTED) if upper else []
    return [*above, *style.reference_entry(_lower(results), training.reference)]


def _upper(results: Results) -> Frame:
    """Return the values of the dotted lines in the upper panel: the loss without memory, or the best possible return at the trained point."""
    score = results.measurement.scores.get(results.measurement.training.curve)
    rows = results.rows if results.measurement.training.curve == "loss" else results.trained
    return rows[score.reference].dropna() if score and score.reference in rows else []


def _lower(results: Results) -> Frame:
    """Return the values of the dashed lines in the lower panel."""
    return 100 * results.rows["chance"].dropna() if "chance" in results.rows else []


def _plot_data(curves: Frame, upper: str) -> Frame:
    """Return every validation of every seed, then the median over seeds (seed empty) wherever all seeds were validated."""
    values = {f"validation_{upper}": upper, "validation_accuracy": "accuracy"}
    seeds = curves.dropna(subset=["validation_accuracy"]).rename(columns=values)[["label", "seed", "rows", *values.values()]]
    seeds["accuracy"] *= 100
    counts = seeds.groupby("label")["seed"].nunique()
    groups = seeds.groupby(["label", "rows"], as_index=False, sort=False)
    median = groups.agg(**{upper: (upper, "median")}, accuracy=("accuracy", "median"), seeds=("seed", "nunique"))
    median = median[median["seeds"] == median["label"].map(counts)].sort_values(["label", "rows"], kind="stable")
    seeds["seed"] = seeds["seed"].astype("Int64")
    return pd.concat([seeds.assign(line="seed"), median.assign(line="median")])[["label", "line", "seed", "rows", upper, "accuracy"]]


def _lines(axis: Axes, data: Frame, results: Results, column: str) -> None:
    """Draw the networks of one panel."""
    for label, line_style in results.line_styles.items():
        own = data[data["label"] == label]
        for _, line in own[own["line"] == "seed"].groupby("seed"):
            axis.plot(line["rows"], line[column], color=line_style.colour, lw=0.5, alpha=0.5, zorder=2)
        median = own[own["line"] == "median"]
        if len(median):
            _median(axis, median, column, line_style)


def _median(axis: Axes, median: Frame, column: str, line_style: LineStyle) -> None:
    every = max(1, len(median) // 6)
    marks = {"marker": line_style.marker, "markevery": (every // 2, every), "mec": "white", "mew": 0.4}
    axis.plot(median["rows"], median[column], color=line_style.colour, ls=line_style.dash, zorder=3, **marks)


def _loss(axis: Axes, data: Frame, results: Results) -> None:
    baseline = set(_upper(results))
    log_axis(axis, "y", [*data["loss"], *baseline])
    _lines(axis, data, results, "loss")
    style.reference(axis, baseline, "", style.DOTTED)
    unit = results.measurement.scores["loss"].unit.format(unit=" or ".join(results.rows["unit"].unique()))
    axis.set_ylabel(f"validation loss\n({unit})")


def _other(axis: Axes, data: Frame, results: Results) -> None:
    curve = results.measurement.training.curve
    _lines(axis, data, results, curve)
    style.reference(axis, _upper(results), "", style.DOTTED)
    axis.set_ylabel(f"validation\n{curve}")


def _accuracy(axis: Axes, data: Frame, results: Results) -> None:
    axis.set_ylim(-3, 103)
    _lines(axis, data, results, "accuracy")
    style.reference(axis, _lower(results), "")
    training = results.measurement.training
    axis.set_ylabel(style.wrapped(f"validation {training.accuracy}\u00a0(%)", HEIGHT / 2))
    axis.set_xlabel(training.seen)
    axis.set_xlim(0, None)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
