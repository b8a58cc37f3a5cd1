"""Cost of one more step against the context read so far: milliseconds above, bytes of state below, a line per network."""

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
    data = _plot_data(read(experiment, "costs"), results)
    with style.page():
        room: dict[str, Any] = {
            "legend": style.legend_entries(results.line_styles, results.names),
            "note": results.tuned,
            "left": 0.8,
            "sharex": True,
            "hspace": 0.1,
        }
        chart, axes = style.canvas(title, style.width_of(figure.width, legend=room["legend"]), HEIGHT, (2, 1), **room)
        seconds, state = axes[:, 0]
        value_axis(state, sorted(data["context"].unique()))
        _panel(seconds, data, "milliseconds", plain, results)
        seconds.set_ylabel("time of one step\n(ms)")
        _panel(state, data, "state_bytes", size_text("B"), results)
        state.set_ylabel("state carried")
        state.set_xlabel(f"{results.measurement.step}s that the network has read")
        chart.align_ylabels()
        style.save(chart, out, data)


def _plot_data(costs: Frame, results: Results) -> Frame:
    """Return one row per label and context; the mean if a label has several networks."""
    costs = costs.assign(milliseconds=1e3 * costs["step_seconds"], megamacs=costs["step_macs"] / 1e6)
    means = costs.groupby(["label", "context"], as_index=False)[["milliseconds", "megamacs", "state_bytes", "parameters"]].mean()
    return results.ordered(means, "context")


def _panel(axis: Axes, data: Frame, column: str, write: Callable[[float], str], results: Results) -> None:
    """Draw lines on a logarithmic axis, with stateless networks at 0."""
    log_axis(axis, "y", data[column], write, least=1e-9)
    for label, line_style in results.line_styles.items():
        line = data[data["label"] == label]
        axis.plot(
            line["context"], line[column], color=line_style.colour, ls=line_style.dash, marker=line_style.marker, mec="white", mew=0.4
        )
