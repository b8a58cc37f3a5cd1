"""How much a network had to see: training rows, or environment steps, until validation accuracy reached 50, 90 and 99 %."""

from __future__ import annotations

from pathlib import Path

from matplotlib.ticker import EngFormatter, MaxNLocator

from pipeline.config.figures import SampleEfficiency
from pipeline.evaluation.progress import MARKS
from pipeline.figures import style
from pipeline.figures.frames import read_results

ROW = 0.36


def draw(experiment: Path, out: Path, figure: SampleEfficiency, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .png and .csv: a row per network."""
    results = read_results(experiment)
    labels, costs = list(results.looks), [f"rows_to_{mark}" for mark in MARKS]
    shown = results.ordered(results.runs[["label", "seed", *costs]], "seed")
    with style.page():
        left = max(style.text_width(label) for label in labels) + 0.25
        chart, axes = style.canvas(title, (4.2, max(0.75, ROW * len(labels))), right=0.75, left=left, head=0.36)
        axis = axes[0, 0]
        style.milestones(axis, shown, labels, "rows_to", MARKS)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.45, -0.55)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, None)
        axis.set_xlabel(f"{results.rows_name} until this {'share was solved' if results.played else 'validation accuracy'}")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        style.save(chart, out, shown)
