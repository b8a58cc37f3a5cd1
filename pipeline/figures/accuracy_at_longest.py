"""Accuracy at the hardest measured point: a bar per network with seeds, interval and value; chance as a reference line."""

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
    data = _plot_data(rows, results)
    line_styles = {label: line_style for label, line_style in results.line_styles.items() if label in set(data["label"])}
    with style.page():
        values, names = [panels.value_text(found, 1) for found in data.itertuples()], results.names
        left, right = panels.room_beside([names[label] for label in line_styles], values)
        width = style.width_of(figure.width, beside=left + right)
        name = style.wrapped(results.score_label(), width - 0.2)
        room: dict[str, Any] = {"left": left, "right": right, "bottom": 0.3 + 0.14 * (1 + name.count("\n"))}
        legend = style.reference_entry(data["reference"], results.score.reference_label)
        chart, axes = style.canvas(title, width, max(0.5, panels.ROW * len(line_styles)), legend=legend, note=results.notes, **room)
        axis = axes[0, 0]
        panels.bars(axis, data, rows.assign(value=results.score.scale * rows[results.metric]), "value", line_styles, names)
        panels.write_values(axis, values)
        style.reference(axis, data["reference"], "", upright=True)
        if results.score.is_share:
            axis.set_xlim(0, 101)
        panels.centred_label(chart, axis, name)
        style.save(chart, out, panels.named_reference(data, results.score))


def _plot_data(rows: Frame, results: Results) -> Frame:
    """Return the score and its reference per label."""
    data = over_seeds(rows, ["label", *results.points], results.metric, results.score)
    reference = rows.assign(reference=results.reference).groupby("label", as_index=False)["reference"].mean()
    return results.ordered(data.merge(reference, on="label"))
