"""What training took against the size of its task: CPU seconds, or steps until solved; a line per network across its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.config.figures import StepsToSolve, TrainingTimeBySize
from pipeline.evaluation.measurements.base import Score
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import SECONDS, STEPS, Frame, Results, over_seeds, read, read_results
from pipeline.figures.style import Key, Look

HEIGHT = 1.9
FIRST, NEXT = 0.11, 0.06
"""Height of the first marker of a seed that never got there above the panel, and of each further one above that, inches."""


def draw_time(experiment: Path, out: Path, figure: TrainingTimeBySize, title: str) -> None:
    """Draw timing.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment, figure).along_size()
    seconds = read(experiment, "timing").set_index("run")["cpu_seconds"]
    runs = results.runs.assign(cpu_seconds=results.runs["run"].map(seconds))
    _draw(_shown(results, runs, "cpu_seconds", SECONDS), "cpu_seconds", "CPU seconds of training", [], results, out, title)


def draw_steps(experiment: Path, out: Path, figure: StepsToSolve, title: str) -> None:
    """Draw results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv; runs that were never validated are left out."""
    results = read_results(experiment, figure).along_size()
    column, name = f"steps_to_{figure.mark}", f"steps until {figure.mark} % accuracy"
    runs = results.runs[results.runs["solved"].notna()]
    budget = read(experiment, "curves")["step"].max()
    _draw(_shown(results, runs, column, STEPS), column, name, [budget], results, out, title)


def _shown(results: Results, runs: Frame, value: str, score: Score) -> Frame:
    """A row per run, with mean and interval over the seeds of its network and size where all of them have the value."""
    by = ["label", f"{results.size}_most_trained"]
    found = over_seeds(runs, by, value, score).rename(columns={"seeds": "reached"})
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
        head = 0.08 + (FIRST + NEXT * most if most else 0)
        key = style.keys({label: results.looks[label] for label in dict.fromkeys(shown["label"])}, results.names)
        key += [Key("hollow, above the panel: never got there", Look(style.GREY, "", "o"))] if most else []
        width = style.width_of(results.figure.width, key=key)
        chart, axes = style.canvas(title, width, HEIGHT, head=head, key=key, left=0.6)
        axis = axes[0, 0]
        axis.set_ylabel(name)
        axis.set_xlabel(_size_name(results))
        panels.value_axis(axis, sorted(shown[size].unique()), len(results.looks))
        panels.cost_axis(axis, [*shown[value].dropna(), *include])
        for label in dict.fromkeys(shown["label"]):
            _line(axis, shown[shown["label"] == label], value, label, results)
        style.save(chart, out, shown)


def _size_name(results: Results) -> str:
    least, most = (results.rows[f"{results.size}_{end}_trained"] for end in ("least", "most"))
    return f"{'' if (least == most).all() else 'largest '}{results.axis_name(results.size)} of the training task"


def _line(axis: Axes, rows: Frame, value: str, label: str, results: Results) -> None:
    """One network: a dot per seed, the means, a hollow marker per seed that has no value."""
    size, look = f"{results.size}_most_trained", results.looks[label]

    def place(frame: Frame) -> list[float]:
        return list(panels.aside(axis, frame[size].tolist(), list(results.looks).index(label), len(results.looks)))

    axis.plot(place(rows), rows[value], color=look.colour, **panels.SEED)
    line = rows.drop_duplicates(size)
    panels.means(axis, place(line), line, look)
    _never(axis, rows[rows[value].isna()], size, place, look)


def _never(axis: Axes, rows: Frame, size: str, place: Callable[[Frame], list[float]], look: Look) -> None:
    """Hollow markers above the panel, one on top of the other where seeds share a size."""
    heights = 1 + (FIRST + NEXT * rows.groupby(size).cumcount()) / style.panel_size(axis)[1]
    above = {"transform": axis.get_xaxis_transform(), "clip_on": False}
    axis.plot(place(rows), heights, ls="", marker=look.marker, ms=3.4, mfc="white", mec=look.colour, mew=0.9, **above)
