"""Accuracy at one point against the state each network carries there: in bytes, with the Pareto front; or in bits, with the bits that the
task requires.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.config.figures import AccuracyByState, CostQuality
from pipeline.figures import axes as panels_of
from pipeline.figures import style
from pipeline.figures.frames import LAYOUT, Frame, Results, over_seeds, read_results
from pipeline.figures.style import DOTTED, GREY, LegendEntry, LineStyle

WIDTH = "network.width"
"""If it is swept, a label is a line through one network's widths."""
HEIGHT = 1.9


def draw(experiment: Path, out: Path, figure: CostQuality, title: str) -> None:
    """Draw one point of results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).across_runs().lines_over(WIDTH, WIDTH)
    rows, data = _rows(results), _plot_data(results)
    with style.page():
        chance = style.reference_entry(rows["reference"], results.score.reference_label)
        front = LegendEntry("Pareto front", LineStyle(GREY, "-", ""), 0.9)
        legend = [*style.legend_entries(_present(results, data), results.names), front, *chance]
        name = style.wrapped(results.score_label(), HEIGHT)
        room: dict[str, Any] = {"legend": legend, "note": results.notes, "right": 0.22, "left": 0.38 + 0.13 * (1 + name.count("\n"))}
        chart, axes = style.canvas(title, style.width_of(figure.width, legend=legend), HEIGHT, **room)
        axis = axes[0, 0]
        panels_of.log_axis(axis, "x", data["state_bytes"], panels_of.size_text("B"))
        style.reference(axis, rows["reference"], "")
        drawn = data.assign(x=data["state_bytes"])
        axis.plot(*panels_of.stairs(drawn[drawn["front"]], axis.get_xlim()[1]), color=GREY, lw=0.9, zorder=2, gid="reference")
        _lines(axis, drawn, rows.assign(x=rows["state_bytes"]), results)
        panels_of.score_axis(axis, "y", results.score)
        axis.set_ylabel(name)
        axis.set_xlabel(f"state carried from {results.measurement.step} to {results.measurement.step}")
        style.save(chart, out, data)


def draw_state(experiment: Path, out: Path, figure: AccuracyByState, title: str) -> None:
    """Draw one point of results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a panel per swept layout."""
    results = read_results(experiment, figure).across_runs().across_layouts().across_sizes()
    rows, data = _rows(results), _bits(results)
    panels = results.layouts or [""]
    with style.page():
        chance = style.reference_entry(data["reference"], results.score.reference_label)
        holds = style.reference_entry(data["memory_bits"], "the task holds {} bits", DOTTED)
        legend = [*style.legend_entries(_present(results, data), results.names), *chance, *holds]
        name = style.wrapped(results.score_label(), HEIGHT)
        room: dict[str, Any] = {
            "legend": legend,
            "note": results.notes,
            "right": 0.22,
            "left": 0.38 + 0.13 * (1 + name.count("\n")),
            "head": 0.24 if panels[0] else 0.08,
        }
        width = style.width_of(figure.width, len(panels), legend=legend)
        chart, axes = style.canvas(title, width, HEIGHT, (1, len(panels)), sharey=True, wspace=0.08, **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            own = [frame[frame[LAYOUT] == layout] if layout else frame for frame in (data, rows)]
            panels_of.log_axis(axis, "x", [*data["state_bits"], *data["memory_bits"].dropna()], panels_of.size_text("bit"))
            style.reference(axis, own[0]["reference"], "")
            style.reference(axis, own[0]["memory_bits"], "", DOTTED, upright=True)
            _lines(axis, own[0].assign(x=own[0]["state_bits"]), own[1].assign(x=8 * own[1]["state_bytes"]), results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            panels_of.score_axis(axis, "y", results.score)
            axis.set_xlabel(f"state carried from {results.measurement.step} to {results.measurement.step}")
        axes[0, 0].set_ylabel(name)
        style.save(chart, out, panels_of.named_reference(data, results.score))


def _present(results: Results, data: Frame) -> dict[str, LineStyle]:
    """Return the line styles of the labels that are plotted."""
    return {label: line_style for label, line_style in results.line_styles.items() if label in set(data["label"])}


def _rows(results: Results) -> Frame:
    """Return a row per run at the selected point, with the reference of its score."""
    return results.at().assign(reference=results.reference)


def _bits(results: Results) -> Frame:
    """Return score, reference, state and required bits per label, layout and swept sizes, smallest state first."""
    rows = _rows(results)
    rows = rows.assign(state_bits=8 * rows["state_bytes"])
    rows = rows if "memory_bits" in rows else rows.assign(memory_bits=np.nan)
    by = ["label", *results.layout_key, *results.network_sizes]
    data = over_seeds(rows, by, results.metric, results.score).dropna(subset=["mean"])
    found = rows.groupby(by, as_index=False)[["state_bits", "memory_bits", "reference", "parameters"]].max()
    return results.ordered(data.merge(found, on=by), *results.layout_key, "state_bits")


def _plot_data(results: Results) -> Frame:
    """Return score and state per label and swept width, smallest state first, and whether it is on the Pareto front."""
    rows = results.at()
    by = ["label", *([WIDTH] if WIDTH in rows else [])]
    data = over_seeds(rows, by, results.metric, results.score).dropna(subset=["mean"])
    costs = rows.groupby(by, as_index=False, dropna=False).agg(state_bytes=("state_bytes", "max"), parameters=("parameters", "max"))
    data = data.merge(costs, on=by)
    data = data.sort_values(["state_bytes", "mean"], ascending=[True, False], kind="stable", ignore_index=True)
    best = data["mean"].cummax().shift(fill_value=-np.inf)
    return data.assign(front=data["mean"] > best)


def _lines(axis: Axes, drawn: Frame, rows: Frame, results: Results) -> None:
    """Draw the networks: a small dot per run, a marker per mean with its error bar, a line through the sizes of a network."""
    for label, line in drawn.groupby("label", sort=False):
        line_style, own = results.line_styles[label], rows[rows["label"] == label]
        axis.plot(own["x"], results.score.scale * own[results.metric], color=line_style.colour, **panels_of.SEED)
        panels_of.means(axis, line["x"], line, line_style, ms=4.6, lw=1.1)
