"""What training cost: CPU seconds per run, and the CPU seconds until validation accuracy reached 50, 90 and 99 %."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.config.figures import TrainingTime
from pipeline.evaluation.progress import MARKS
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read, read_results
from pipeline.figures.style import GREY, INK, PALE

ROW = 0.36
SHADES = {50: "#9ecae1", 90: "#3182bd", 99: "#08306b"}
SHAPES = {50: "o", 90: "s", 99: "D"}


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
        _marks(marks, timing, labels)
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


def _marks(axis: Axes, timing: Frame, labels: list[str]) -> None:
    for place, label in enumerate(labels):
        own = timing[timing["label"] == label]
        medians = [own[f"seconds_to_{mark}"].median() for mark in MARKS]
        axis.plot(medians, [place] * len(MARKS), color=PALE, lw=3, zorder=1, solid_capstyle="round")
        for mark, median in zip(MARKS, medians, strict=True):
            seconds = own[f"seconds_to_{mark}"].dropna()
            axis.plot(seconds, [place] * len(seconds), ls="", marker=SHAPES[mark], ms=3, color=SHADES[mark], alpha=0.5, zorder=2)
            axis.plot([median], [place], marker=SHAPES[mark], ms=6.5, color=SHADES[mark], mec="white", mew=0.7, zorder=3, ls="")
        reached = int(own["seconds_to_99"].notna().sum())
        axis.text(1.03, place, f"{reached}/{len(own)}", transform=axis.get_yaxis_transform(), va="center", color=INK if reached else GREY)
    axis.text(1.03, 1.01, "reached\n99 %", transform=axis.transAxes, va="bottom", fontsize=style.SMALL - 0.5, color=GREY, linespacing=1.1)
    for mark in MARKS:
        axis.plot([], [], ls="", marker=SHAPES[mark], ms=6, color=SHADES[mark], label=f"{mark} %")
    spacing = {"handletextpad": 0.1, "columnspacing": 1.2, "borderaxespad": 0.1}
    axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, frameon=False, **spacing)
    axis.set_xlabel("CPU seconds until this validation accuracy")
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_locator(MaxNLocator(5))
