"""Expected best validation result of k random trials against k: a line per network (Dodge et al. 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from pipeline.config.figures import TuningCost
from pipeline.evaluation.candidates import Metric
from pipeline.evaluation.tuning import expected_best
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import Frame, Tuning, read_results, read_tuning

HEIGHT = 1.75
FEW = 12
"""Most trials at which every one has a marker."""


def draw(experiment: Path, out: Path, figure: TuningCost, title: str) -> None:
    """Draw tuning.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a row per label and number of trials."""
    results, tuning = read_results(experiment, figure), read_tuning(experiment)
    metric = tuning.metric(figure.metric)
    score = tuning.score(metric, results)
    data = _plot_data(tuning, metric, score.scale, score.better == "higher")
    with style.page():
        legend = style.legend_entries(results.line_styles, results.names)
        name = style.wrapped(f"expected best {panels.score_label(score)}", HEIGHT)
        room: dict[str, Any] = {"legend": legend, "note": results.tuned, "left": panels.room_for(name)}
        chart, axes = style.canvas(title, style.width_of(figure.width, legend=legend), HEIGHT, **room)
        axis = axes[0, 0]
        for label, line_style in results.line_styles.items():
            line = data[data["label"] == label]
            marks = {"marker": line_style.marker, "markevery": max(1, len(line) // FEW), "mec": "white", "mew": 0.4}
            axis.plot(line["trials"], line["expected_best"], color=line_style.colour, ls=line_style.dash, clip_on=False, **marks)
        panels.validation_axis(axis, score, data["expected_best"].tolist())
        axis.set_ylabel(name)
        axis.set_xlabel("candidates tried")
        most = data["trials"].max()
        axis.set_xlim(1 - max(0.3, 0.03 * most), most + max(0.3, 0.03 * most))
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        style.save(chart, out, data)


def _plot_data(tuning: Tuning, metric: Metric, scale: float, higher: bool) -> Frame:
    """Return the expected best of k = 1 .. n trials for every label; diverged candidates count as the worst value found."""
    known = [mean for candidate in tuning.candidates if (mean := candidate.mean(metric)) is not None]
    worst = 0.0 if metric == "accuracy" else (min if higher else max)(known, default=None)
    rows = []
    for label in tuning.note.choices:
        means = [worst if candidate.diverged else candidate.mean(metric) for candidate in tuning.of(label)]
        best = expected_best([scale * mean for mean in means if mean is not None], higher)
        rows += [{"label": label, "trials": k, "expected_best": value} for k, value in enumerate(best, 1)]
    return pd.DataFrame(rows, columns=["label", "trials", "expected_best"])
