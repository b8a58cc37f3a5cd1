"""What one more step costs against how much the network has seen: milliseconds above, bytes of state below, a line per network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pipeline.config.figures import StepCost
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, read, read_results
from pipeline.figures.style import Tag


def draw(experiment: Path, out: Path, figure: StepCost, title: str) -> None:
    """Draw costs.parquet of the folder `experiment` to `out`.svg, .png and .csv. Times differ from run to run of the same config."""
    results = read_results(experiment)
    shown = _shown(read(experiment, "costs"), results)
    with style.page():
        height = 2.12 * style.tall_enough(2.0, len(results.looks))
        size, right = (style.PLOT_WIDTH, height), style.margin(results.looks)
        chart, axes = style.canvas(title, size, (2, 1), right, left=1.1, sharex=True, hspace=0.12)
        seconds, state = axes[:, 0]
        _panel(seconds, shown, "milliseconds", results)
        seconds.set_ylabel("time of one step\n(ms)")
        _panel(state, shown, "state_bytes", results)
        state.set_ylabel("state carried\n(bytes)")
        state.set_xlabel(f"{results.step_name}s that the network has read")
        _contexts(state, sorted(shown["context"].unique()))
        chart.align_ylabels()
        style.save(chart, out, shown)


def _shown(costs: Frame, results: Results) -> Frame:
    """One row per label and context; of several networks under one label, their mean."""
    costs = costs.assign(milliseconds=1e3 * costs["step_seconds"], megamacs=costs["step_macs"] / 1e6)
    found = costs.groupby(["label", "context"], as_index=False)[["milliseconds", "megamacs", "state_bytes", "parameters"]].mean()
    return results.ordered(found, "context")


def _panel(axis: Axes, shown: Frame, column: str, results: Results) -> None:
    """Lines on a logarithmic axis; what carries nothing stands at its foot."""
    axis.set_yscale("log")
    least = shown.loc[shown[column] > 0, column].min() if (shown[column] > 0).any() else 1.0
    tags: list[Tag] = []
    for label, look in results.looks.items():
        line = shown[shown["label"] == label]
        height = np.maximum(line[column], least / 2)
        axis.plot(line["context"], height, color=look.colour, ls=look.dash, marker=look.marker, mec="white", mew=0.6)
        tags.append(style.tag(label, float(height.iloc[-1]), results.looks))
    style.plain_log(axis)
    style.tag_ends(axis, tags)


def _contexts(axis: Axes, contexts: list[int]) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(contexts))
    axis.xaxis.set_major_formatter(FixedFormatter([f"{context:,}" for context in contexts]))
    axis.xaxis.set_minor_locator(NullLocator())
