"""What one more step costs against how much the network has seen: milliseconds above, bytes of state below, a line per network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.config.figures import StepCost
from pipeline.figures import style
from pipeline.figures.axes import log_axis, plain, size_text, value_axis
from pipeline.figures.frames import Frame, Results, read, read_results

HEIGHT = 2.7


def draw(experiment: Path, out: Path, figure: StepCost, title: str) -> None:
    """Draw costs.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment, figure)
    shown = _shown(read(experiment, "costs"), results)
    with style.page():
        room: dict[str, Any] = {"key": style.keys(results.looks, results.names), "left": 0.8, "sharex": True, "hspace": 0.1}
        chart, axes = style.canvas(title, style.width_of(figure.width, key=room["key"]), HEIGHT, (2, 1), **room)
        seconds, state = axes[:, 0]
        value_axis(state, sorted(shown["context"].unique()))
        _panel(seconds, shown, "milliseconds", plain, results)
        seconds.set_ylabel("time of one step\n(ms)")
        _panel(state, shown, "state_bytes", size_text("B"), results)
        state.set_ylabel("state carried")
        state.set_xlabel(f"{results.measurement.step}s that the network has read")
        chart.align_ylabels()
        style.save(chart, out, shown)


def _shown(costs: Frame, results: Results) -> Frame:
    """One row per label and context; of several networks under one label, their mean."""
    costs = costs.assign(milliseconds=1e3 * costs["step_seconds"], megamacs=costs["step_macs"] / 1e6)
    found = costs.groupby(["label", "context"], as_index=False)[["milliseconds", "megamacs", "state_bytes", "parameters"]].mean()
    return results.ordered(found, "context")


def _panel(axis: Axes, shown: Frame, column: str, write: Callable[[float], str], results: Results) -> None:
    """Lines on a logarithmic axis, on which what carries nothing stands at 0."""
    log_axis(axis, "y", shown[column], write, least=1e-9)
    for label, look in results.looks.items():
        line = shown[shown["label"] == label]
        axis.plot(line["context"], line[column], color=look.colour, ls=look.dash, marker=look.marker, mec="white", mew=0.4)
