"""Validation loss, or return, and accuracy against training rows: a thin line per seed, a thick one for their median."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from pipeline.config.figures import LearningCurves
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, read, read_results
from pipeline.figures.style import Look, Tag

LEAST_LOSS = 1e-6
"""A loss of zero is drawn here, at the foot of the logarithmic axis."""


def draw(experiment: Path, out: Path, figure: LearningCurves, title: str) -> None:
    """Draw curves.parquet of the folder `experiment` to `out`.svg, .png and .csv; results.parquet gives chance and the floor."""
    results = read_results(experiment)
    shown = _shown(read(experiment, "curves"), "return" if results.played else "loss")
    with style.page():
        right = style.margin([*results.looks, results.chance_name.format(12.5)])
        height = 2.12 * style.tall_enough(2.17, len(results.looks) + 1)
        chart, axes = style.canvas(title, (style.PLOT_WIDTH, height), (2, 1), right, sharex=True, hspace=0.12)
        upper, accuracy = axes[:, 0]
        (_return if results.played else _loss)(upper, shown, results)
        _accuracy(accuracy, shown, results)
        chart.align_ylabels()
        style.save(chart, out, shown)


def _shown(curves: Frame, upper: str) -> Frame:
    """Every validation of every seed, then the median over seeds (seed empty) wherever all seeds were validated."""
    values = {f"validation_{upper}": upper, "validation_accuracy": "accuracy"}
    seeds = curves.dropna(subset=["validation_accuracy"]).rename(columns=values)[["label", "seed", "rows", *values.values()]]
    seeds["accuracy"] *= 100
    counts = seeds.groupby("label")["seed"].nunique()
    groups = seeds.groupby(["label", "rows"], as_index=False, sort=False)
    median = groups.agg(**{upper: (upper, "median")}, accuracy=("accuracy", "median"), seeds=("seed", "nunique"))
    median = median[median["seeds"] == median["label"].map(counts)].sort_values(["label", "rows"], kind="stable")
    seeds["seed"] = seeds["seed"].astype("Int64")
    return pd.concat([seeds.assign(line="seed"), median.assign(line="median")])[["label", "line", "seed", "rows", upper, "accuracy"]]


def _lines(axis: Axes, shown: Frame, results: Results, column: str) -> dict[str, float]:
    """Draw one panel; the height at which every label's median ends."""
    ends = {}
    for label, look in results.looks.items():
        own = shown[shown["label"] == label]
        for _, line in own[own["line"] == "seed"].groupby("seed"):
            axis.plot(line["rows"], line[column], color=look.colour, lw=0.7, alpha=0.45, zorder=2)
        median = own[own["line"] == "median"]
        if len(median):
            _median(axis, median, column, look)
            ends[label] = float(median[column].iloc[-1])
    return ends


def _median(axis: Axes, median: Frame, column: str, look: Look) -> None:
    every = max(1, len(median) // 6)
    marks = {"marker": look.marker, "markevery": (every // 2, every), "mec": "white", "mew": 0.6}
    axis.plot(median["rows"], median[column], color=look.colour, ls=look.dash, zorder=3, **marks)


def _loss(axis: Axes, shown: Frame, results: Results) -> None:
    drawn = shown.assign(loss=shown["loss"].clip(lower=LEAST_LOSS))
    axis.set_yscale("log")
    ends = _lines(axis, drawn, results, "loss")
    floors = sorted(results.rows["floor"].unique())
    tags = style.references(axis, floors, "floor {:.3g}")
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.5 * floors[0]), max(high, 1.2 * floors[-1]))
    axis.set_ylabel(f"validation loss\n({' or '.join(results.rows['unit'].unique())})")
    style.plain_log(axis)
    style.tag_ends(axis, [*_tags(ends, results), *tags])


def _return(axis: Axes, shown: Frame, results: Results) -> None:
    ends = _lines(axis, shown, results, "return")
    tags = style.references(axis, sorted(results.trained["best_return"].dropna().unique()), "best {:.3g}")
    axis.set_ylabel("validation\nreturn")
    style.tag_ends(axis, [*_tags(ends, results), *tags])


def _accuracy(axis: Axes, shown: Frame, results: Results) -> None:
    axis.set_ylim(-2, 102)
    ends = _lines(axis, shown, results, "accuracy")
    tags = style.references(axis, sorted(100 * results.rows["chance"].unique()), results.chance_name)
    axis.set_ylabel("validation episodes\nsolved (%)" if results.played else "validation symbol\naccuracy (%)")
    axis.set_xlabel(results.rows_name)
    axis.set_xlim(0, None)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    style.tag_ends(axis, [*_tags(ends, results), *tags])


def _tags(ends: dict[str, float], results: Results) -> list[Tag]:
    return [style.tag(label, end, results.looks) for label, end in ends.items()]
