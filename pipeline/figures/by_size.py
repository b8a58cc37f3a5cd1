"""What training took against the size of its task: CPU seconds, or steps until solved; a line per network across its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import StepsToSolve, TrainingTimeBySize
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read, read_results
from pipeline.figures.style import GREY, Tag

FIRST, NEXT = 0.14, 0.08
"""Height of the first marker of a seed that never got there above the panel, and of each further one above that, inches."""


def draw_time(experiment: Path, out: Path, figure: TrainingTimeBySize, title: str) -> None:
    """Draw timing.parquet of the folder `experiment` to `out`.svg, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment).along_size()
    seconds = read(experiment, "timing").set_index("run")["cpu_seconds"]
    runs = results.runs.assign(cpu_seconds=results.runs["run"].map(seconds))
    _draw(_shown(results, runs, "cpu_seconds"), "cpu_seconds", "CPU seconds of training", [], results, out, title)


def draw_steps(experiment: Path, out: Path, figure: StepsToSolve, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .png and .csv; runs that were never validated are left out."""
    results = read_results(experiment).along_size()
    column, name = f"steps_to_{figure.mark}", f"steps until {figure.mark} % accuracy"
    runs = results.runs[results.runs["solved"].notna()]
    budget = read(experiment, "curves")["step"].max()
    _draw(_shown(results, runs, column), column, name, [budget], results, out, title)


def _shown(results: Results, runs: Frame, value: str) -> Frame:
    """A row per run, with mean and interval over the seeds of its network and size where all of them have the value."""
    by = ["label", f"{results.size}_most_trained"]
    found = over_seeds(runs, by, value).rename(columns={"seeds": "reached"})
    found = found.merge(runs.groupby(by, as_index=False).agg(seeds=("seed", "count")), on=by)
    statistics = ["mean", "sd", "se", "low", "high"]
    found[statistics] = found[statistics].where(found["reached"] == found["seeds"])
    shown = runs[[*by, "seed", value]].merge(found[[*by, "seeds", "reached", *statistics]], on=by)
    return results.ordered(shown, by[1], "seed")


def _draw(shown: Frame, value: str, name: str, include: list[float], results: Results, out: Path, title: str) -> None:
    """One panel; `include`: what the y axis reaches besides what is drawn."""
    size = f"{results.size}_most_trained"
    never = shown[shown[value].isna()]
    most = never.groupby(["label", size]).size().max() if len(never) else 0
    with style.page():
        right = style.margin([*results.looks, "not reached" if most else ""])
        head = 0.12 + (FIRST + NEXT * most if most else 0)
        height = style.tall_enough(2.9, len(results.looks))
        chart, axes = style.canvas(title, (style.PLOT_WIDTH, height), right=right, head=head)
        axis = axes[0, 0]
        axis.set_ylabel(name)
        axis.set_xlabel(_size_name(results))
        style.value_axis(axis, sorted(shown[size].unique()), len(results.looks))
        style.cost_axis(axis, [*shown[value].dropna(), *include])
        tags = [_line(axis, shown[shown["label"] == label], value, label, results) for label in dict.fromkeys(shown["label"])]
        style.tag_ends(axis, tags)
        if most:
            axis.text(1.02, 1 + FIRST / height, "not reached", transform=axis.transAxes, va="center", color=GREY)
        style.save(chart, out, shown)


def _size_name(results: Results) -> str:
    least, most = (results.rows[f"{results.size}_{end}_trained"] for end in ("least", "most"))
    return f"{'' if (least == most).all() else 'largest '}{style.axis_name(results.size)} of the training task"


def _line(axis: Axes, rows: Frame, value: str, label: str, results: Results) -> Tag:
    """One network: a dot per seed, the means, a hollow marker per seed that has no value; the tag beside its end."""
    size, look = f"{results.size}_most_trained", results.looks[label]

    def place(frame: Frame) -> list[float]:
        return list(style.aside(axis, frame[size].tolist(), list(results.looks).index(label), len(results.looks)))

    axis.plot(place(rows), rows[value], ls="", marker="o", ms=3.6, color=look.colour, alpha=0.6, mew=0, zorder=2)
    line = rows.drop_duplicates(size)
    style.means(axis, place(line), line, look)
    _never(axis, rows[rows[value].isna()], size, place, look.colour)
    ends = line["mean"].dropna()
    return style.tag(label, float(ends.iloc[-1]) if len(ends) else axis.get_ylim()[1], results.looks)


def _never(axis: Axes, rows: Frame, size: str, place: Callable[[Frame], list[float]], colour: str) -> None:
    """Hollow markers above the panel, one on top of the other where seeds share a size."""
    heights = 1 + (FIRST + NEXT * rows.groupby(size).cumcount()) / style.panel_size(axis)[1]
    above = {"transform": axis.get_xaxis_transform(), "clip_on": False}
    axis.plot(place(rows), heights, ls="", marker="o", ms=4.2, mfc="white", mec=colour, mew=1.1, **above)
