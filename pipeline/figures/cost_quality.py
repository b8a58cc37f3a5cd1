"""Accuracy at one point against the state each network carries there: in bytes, with the front of those that no other beats; or in bits,
with what the task asks for.
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
from pipeline.figures.style import DOTTED, GREY, Key, Look

WIDTH = "network.width"
"""Where it is swept, a label is a line through one network's widths."""
HEIGHT = 1.9


def draw(experiment: Path, out: Path, figure: CostQuality, title: str) -> None:
    """Draw one point of results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).across_runs().along(WIDTH, WIDTH)
    rows, shown = _rows(results), _shown(results)
    with style.page():
        chance = style.reference_key(rows["reference"], results.score.reference_label)
        front = Key("nothing better with as little state", Look(GREY, "-", ""), 0.9)
        key = [*style.keys(_present(results, shown), results.names), front, *chance]
        name = style.wrapped(results.score_at(), HEIGHT)
        room: dict[str, Any] = {"key": key, "note": results.overlap, "right": 0.22, "left": 0.38 + 0.13 * (1 + name.count("\n"))}
        chart, axes = style.canvas(title, style.width_of(figure.width, key=key), HEIGHT, **room)
        axis = axes[0, 0]
        panels_of.log_axis(axis, "x", shown["state_bytes"], panels_of.size_text("B"))
        style.reference(axis, rows["reference"], "")
        drawn = shown.assign(x=shown["state_bytes"])
        axis.plot(*panels_of.stairs(drawn[drawn["front"]], axis.get_xlim()[1]), color=GREY, lw=0.9, zorder=2, gid="reference")
        _lines(axis, drawn, rows.assign(x=rows["state_bytes"]), results)
        panels_of.score_axis(axis, "y", results.score)
        axis.set_ylabel(name)
        axis.set_xlabel(f"state carried from {results.measurement.step} to {results.measurement.step}")
        style.save(chart, out, shown)


def draw_state(experiment: Path, out: Path, figure: AccuracyByState, title: str) -> None:
    """Draw one point of results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv: a panel per swept layout."""
    results = read_results(experiment, figure).across_runs().across_layouts().across_sizes()
    rows, shown = _rows(results), _bits(results)
    panels = results.layouts or [""]
    with style.page():
        chance = style.reference_key(shown["reference"], results.score.reference_label)
        holds = style.reference_key(shown["memory_bits"], "the task holds {} bits", DOTTED)
        key = [*style.keys(_present(results, shown), results.names), *chance, *holds]
        name = style.wrapped(results.score_at(), HEIGHT)
        room: dict[str, Any] = {
            "key": key,
            "note": results.overlap,
            "right": 0.22,
            "left": 0.38 + 0.13 * (1 + name.count("\n")),
            "head": 0.24 if panels[0] else 0.08,
        }
        width = style.width_of(figure.width, len(panels), key=key)
        chart, axes = style.canvas(title, width, HEIGHT, (1, len(panels)), sharey=True, wspace=0.08, **room)
        for axis, layout in zip(axes[0], panels, strict=True):
            own = [frame[frame[LAYOUT] == layout] if layout else frame for frame in (shown, rows)]
            panels_of.log_axis(axis, "x", [*shown["state_bits"], *shown["memory_bits"].dropna()], panels_of.size_text("bit"))
            style.reference(axis, own[0]["reference"], "")
            style.reference(axis, own[0]["memory_bits"], "", DOTTED, upright=True)
            _lines(axis, own[0].assign(x=own[0]["state_bits"]), own[1].assign(x=8 * own[1]["state_bytes"]), results)
            axis.set_title(f"layout {layout}" if layout else "", loc="left", pad=4)
            panels_of.score_axis(axis, "y", results.score)
            axis.set_xlabel(f"state carried from {results.measurement.step} to {results.measurement.step}")
        axes[0, 0].set_ylabel(name)
        style.save(chart, out, panels_of.named_reference(shown, results.score))


def _present(results: Results, shown: Frame) -> dict[str, Look]:
    """The looks of the labels that are drawn."""
    return {label: look for label, look in results.looks.items() if label in set(shown["label"])}


def _rows(results: Results) -> Frame:
    """A row per run at the point that is shown, with the shown value of what needs no network."""
    return results.at().assign(reference=results.reference)


def _bits(results: Results) -> Frame:
    """The score and what needs no network, state and what the task asks for in bits, per label, layout and swept sizes, smallest state first."""
    rows = _rows(results)
    rows = rows.assign(state_bits=8 * rows["state_bytes"])
    rows = rows if "memory_bits" in rows else rows.assign(memory_bits=np.nan)
    by = ["label", *results.layout_key, *results.network_sizes]
    shown = over_seeds(rows, by, results.metric, results.score).dropna(subset=["mean"])
    found = rows.groupby(by, as_index=False)[["state_bits", "memory_bits", "reference", "parameters"]].max()
    return results.ordered(shown.merge(found, on=by), *results.layout_key, "state_bits")


def _shown(results: Results) -> Frame:
    """The score and state per label and swept width, cheapest first, and whether it is on the front."""
    rows = results.at()
    by = ["label", *([WIDTH] if WIDTH in rows else [])]
    shown = over_seeds(rows, by, results.metric, results.score).dropna(subset=["mean"])
    costs = rows.groupby(by, as_index=False, dropna=False).agg(state_bytes=("state_bytes", "max"), parameters=("parameters", "max"))
    shown = shown.merge(costs, on=by)
    shown = shown.sort_values(["state_bytes", "mean"], ascending=[True, False], kind="stable", ignore_index=True)
    best = shown["mean"].cummax().shift(fill_value=-np.inf)
    return shown.assign(front=shown["mean"] > best)


def _lines(axis: Axes, drawn: Frame, rows: Frame, results: Results) -> None:
    """The networks: a small dot per run, a marker per mean with its interval, a line through the sizes of one."""
    for label, line in drawn.groupby("label", sort=False):
        look, own = results.looks[label], rows[rows["label"] == label]
        axis.plot(own["x"], results.score.scale * own[results.metric], color=look.colour, **panels_of.SEED)
        panels_of.means(axis, line["x"], line, look, ms=4.6, lw=1.1)
