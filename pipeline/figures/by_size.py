"""Training cost against the size of the task: CPU seconds, or steps until solved; a line per network across its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import StepsToSolve, TrainingTimeBySize
from pipeline.evaluation.measurements.base import Score
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import SECONDS, STEPS, Frame, Results, over_seeds, read, read_results
from pipeline.figures.style import LegendEntry, LineStyle

HEIGHT = 1.9
FIRST, NEXT = 0.11, 0.06
"""Height above the panel of the first marker of a seed that never reached the mark, and distance to each further one, inches."""


def draw_time(experiment: Path, out: Path, figure: TrainingTimeBySize, title: str) -> None:
    """Draw timing.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment, figure).lines_over_size()
    seconds = read(experiment, "timing").set_index("run")["cpu_seconds"]
    runs = results.runs.assign(cpu_seconds=results.runs["run"].map(seconds))
    _draw(_plot_data(results, runs, "cpu_seconds", SECONDS), "cpu_seconds", "CPU seconds of training", [], results, out, title)


def draw_steps(experiment: Path, out: Path, figure: StepsToSolve, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv; runs that were never validated are left out."""
    results = read_results(experiment, figure).lines_over_size()
    column, name = f"steps_to_{figure.mark}", f"steps until {figure.mark} % accuracy"
    runs = results.runs[results.runs["solved"].notna()]
    budget = read(experiment, "curves")["step"].max()
    _draw(_plot_data(results, runs, column, STEPS), column, name, [budget], results, out, title)


def _plot_data(results: Results, runs: Frame, value: str, score: Score) -> Frame:
    """Return a row per run, with mean and interval over the seeds of its network and size if all of them have the value."""
    by = ["label", f"{results.size}_most_trained"]
    found = over_seeds(runs, by, value, score).rename(columns={"seeds": "reached"})
    found = found.merge(runs.groupby(by, as_index=False).agg(seeds=("seed", "count")), on=by)
    statistics = ["mean", "sd", "se", "low", "high"]
    found[statistics] = found[statistics].where(found["reached"] == found["seeds"])
    data = runs[[*by, "seed", value]].merge(found[[*by, "seeds", "reached", *statistics]], on=by)
    return results.ordered(data, by[1], "seed")


def _draw(data: Frame, value: str, name: str, include: list[float], results: Results, out: Path, title: str) -> None:
    """Draw one panel; `include`: further values that the y axis covers."""
    size = f"{results.size}_most_trained"
    unreached = data[data[value].isna()]
    most = unreached.groupby(["label", size]).size().max() if len(unreached) else 0
    with style.page():
        head = 0.08 + (FIRST + NEXT * most if most else 0)
        legend = style.legend_entries({label: results.line_styles[label] for label in dict.fromkeys(data["label"])}, results.names)
        legend += [LegendEntry("hollow, above the panel: never reached", LineStyle(style.GREY, "", "o"))] if most else []
        width = style.width_of(results.figure.width, legend=legend)
        chart, axes = style.canvas(title, width, HEIGHT, head=head, legend=legend, note=results.tuned, left=0.6)
        axis = axes[0, 0]
        axis.set_ylabel(name)
        axis.set_xlabel(_size_label(results))
        panels.value_axis(axis, sorted(data[size].unique()), len(results.line_styles))
        panels.cost_axis(axis, [*data[value].dropna(), *include])
        for label in dict.fromkeys(data["label"]):
            _line(axis, data[data["label"] == label], value, label, results)
        style.save(chart, out, data)


def _size_label(results: Results) -> str:
    least, most = (results.rows[f"{results.size}_{end}_trained"] for end in ("least", "most"))
    return f"{'' if (least == most).all() else 'largest '}{results.axis_label(results.size)} of the training task"


def _line(axis: Axes, rows: Frame, value: str, label: str, results: Results) -> None:
    """Draw one network: a dot per seed, the means, a hollow marker per seed without a value."""
    size, line_style = f"{results.size}_most_trained", results.line_styles[label]

    def place(frame: Frame) -> list[float]:
        return list(panels.dodge(axis, frame[size].tolist(), list(results.line_styles).index(label), len(results.line_styles)))

    axis.plot(place(rows), rows[value], color=line_style.colour, **panels.SEED)
    line = rows.drop_duplicates(size)
    panels.means(axis, place(line), line, line_style)
    _unreached(axis, rows[rows[value].isna()], size, place, line_style)


def _unreached(axis: Axes, rows: Frame, size: str, place: Callable[[Frame], list[float]], line_style: LineStyle) -> None:
    """Draw hollow markers above the panel, stacked where seeds share a size."""
    heights = 1 + (FIRST + NEXT * rows.groupby(size).cumcount()) / style.panel_size(axis)[1]
    above = {"transform": axis.get_xaxis_transform(), "clip_on": False}
    axis.plot(place(rows), heights, ls="", marker=line_style.marker, ms=3.4, mfc="white", mec=line_style.colour, mew=0.9, **above)
