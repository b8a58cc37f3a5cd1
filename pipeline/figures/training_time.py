"""What training cost: CPU seconds per run, and the CPU seconds until validation accuracy reached 50, 90 and 99 %."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.config.figures import TrainingTime
from pipeline.evaluation.progress import MARKS
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read, read_results

ROW = 0.36


def draw(experiment: Path, out: Path, figure: TrainingTime, title: str) -> None:
    """Draw timing.parquet of the folder `experiment` to `out`.svg, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment)
    timing = read(experiment, "timing")
    labels = list(results.looks)
    with style.page():
        left = max(style.text_width(label) for label in labels) + 0.25
        size = (6.2, max(0.75, ROW * len(labels)))
        chart, axes = style.canvas(title, size, (1, 2), 0.75, left=left, head=0.36, sharey=True, wspace=0.14)
        total, marks = axes[0]
        _total(total, timing, results)
        style.milestones(marks, timing, labels, "seconds_to", MARKS)
        marks.set_xlabel("CPU seconds until this validation accuracy")
        marks.xaxis.set_major_locator(MaxNLocator(5))
        marks.set_xlim(total.get_xlim())
        marks.tick_params(axis="y", length=0)
        style.save(chart, out, _shown(timing, results))


def _shown(timing: Frame, results: Results) -> Frame:
    """What is drawn: one row per run."""
    return results.ordered(timing[["label", "seed", "cpu_seconds", *(f"seconds_to_{mark}" for mark in MARKS)]], "seed")


def _total(axis: Axes, timing: Frame, results: Results) -> None:
    style.bars(axis, over_seeds(timing, ["label"], "cpu_seconds"), timing, "cpu_seconds", results.looks)
    axis.set_xlim(0, None)
    axis.set_xlabel("CPU seconds of training")
    axis.xaxis.set_major_locator(MaxNLocator(5))
