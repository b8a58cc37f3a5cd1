"""Accuracy at the hardest measured point: a bar per network with its seeds, interval and value, chance drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.figures import AccuracyAtLongest
from pipeline.figures import axes as panels
from pipeline.figures import style
from pipeline.figures.frames import Frame, Results, over_seeds, read_results


def draw(experiment: Path, out: Path, figure: AccuracyAtLongest, title: str) -> None:
    """Draw one point of results.parquet of the folder `experiment` to `out`.svg, .pdf, .png and .csv."""
    results = read_results(experiment, figure).across_runs()
    rows = results.at().dropna(subset=[results.metric])
    shown = _shown(rows, results)
    looks = {label: look for label, look in results.looks.items() if label in set(shown["label"])}
    with style.page():
        values, names = [panels.value_text(found, 1) for found in shown.itertuples()], results.names
        left, right = panels.room_beside([names[label] for label in looks], values)
        width = style.width_of(figure.width, beside=left + right)
        name = style.wrapped(results.score_at(), width - 0.2)
        room: dict[str, Any] = {"left": left, "right": right, "bottom": 0.3 + 0.14 * (1 + name.count("\n"))}
        key = style.reference_key(shown["reference"], results.score.reference_label)
        chart, axes = style.canvas(title, width, max(0.5, panels.ROW * len(looks)), key=key, note=results.overlap, **room)
        axis = axes[0, 0]
        panels.bars(axis, shown, rows.assign(value=results.score.scale * rows[results.metric]), "value", looks, names)
        panels.write_values(axis, values)
        style.reference(axis, shown["reference"], "", upright=True)
        if results.score.is_share:
            axis.set_xlim(0, 101)
        panels.centred_name(chart, axis, name)
        style.save(chart, out, panels.named_reference(shown, results.score))


def _shown(rows: Frame, results: Results) -> Frame:
    """The score and what needs no network per label."""
    shown = over_seeds(rows, ["label", *results.points], results.metric, results.score)
    reference = rows.assign(reference=results.reference).groupby("label", as_index=False)["reference"].mean()
    return results.ordered(shown.merge(reference, on="label"))
