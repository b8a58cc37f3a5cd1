"""Figures of free runs: by nodes, family and state, and where traces first go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.tasks.retrieval import FAMILIES
from pipeline.evaluation.statistics import summarise
from pipeline.figures import style
from tests.figures.conftest import WIDTHS, Folder, draw, frame, shown
from tests.figures.graphs import LAYOUTS, SKILL


def expected(rows: Any, value: str = "accuracy") -> list[float]:
    """Mean and interval over seeds, in %."""
    found = summarise(rows[value], bounds=(0, 1))
    return [100 * found.mean, 100 * found.low, 100 * found.high]


def titles(figure: Any) -> list[str]:
    return [axis.get_title(loc="left") for axis in figure.axes]


def markers(axis: Any, line_style: style.LineStyle) -> Any:
    """The line of a network, as drawn."""
    found = [line for line in axis.lines if line.get_color() == line_style.colour and line.get_marker() == line_style.marker]
    return next(line for line in found if len(line.get_xdata()) > 1 and line.get_markersize() > 2)


def test_accuracy_by_nodes_has_a_panel_per_layout_and_a_line_per_network(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_nodes", experiments("graphs"), tmp_path / "figure")
    results, table = frame(experiments("graphs") / "results.parquet"), shown(tmp_path / "figure")
    assert titles(drawn[0]) == [f"layout {layout}" for layout in LAYOUTS]
    assert len(table) == len(SKILL) * len(LAYOUTS) * 3
    for row in table.to_dict("records"):
        own = results[(results.label == f"{row['label']}, layout {row['task.layout']}") & (results.nodes == row["nodes"])]
        assert [row["mean"], row["low"], row["high"]] == pytest.approx(expected(own))
        assert (row["seeds"], row["chance"]) == (3, 50)
    line_styles = style.line_styles(sorted(SKILL), ["none"])
    for axis, layout in zip(drawn[0].axes, LAYOUTS, strict=True):
        for label, line_style in line_styles.items():
            line = table[(table.label == label) & (table["task.layout"] == layout)]
            assert np.allclose(markers(axis, line_style).get_ydata(), line["mean"])


def test_accuracy_by_family_is_at_the_largest_graphs_of_training(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_family", experiments("families"), tmp_path / "figure")
    results, table = frame(experiments("families") / "results.parquet"), shown(tmp_path / "figure")
    assert titles(drawn[0]) == [f"layout {layout}" for layout in LAYOUTS]
    assert len(table) == len(SKILL) * len(LAYOUTS) * 9
    for row in table.to_dict("records"):
        own = results[(results.label == f"{row['label']}, layout {row['task.layout']}") & (results.family == row["family"])]
        assert [row["mean"], row["low"], row["high"]] == pytest.approx(expected(own[own.nodes == 16]))
    names = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert names == [name.replace("_", " ") + (" (trained)" if name == "double_star" else "") for name in FAMILIES]
    for label, line_style in style.line_styles(sorted(SKILL), ["none"]).items():
        line = table[(table.label == label) & (table["task.layout"] == "cot")]
        assert np.allclose(markers(drawn[0].axes[1], line_style).get_xdata(), line["mean"])


def test_accuracy_by_state_joins_widths_and_draws_what_the_task_holds(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_state", experiments("capacities"), tmp_path / "figure")
    results, table = frame(experiments("capacities") / "results.parquet"), shown(tmp_path / "figure")
    hardest = results[results.nodes == 16]
    assert len(table) == 3 * 2 * len(WIDTHS) and set(table["memory_bits"]) == {16 * 4.0}
    for row in table.to_dict("records"):
        own = hardest[hardest.label == f"{row['label']}, width {row['network.width']}, layout {row['task.layout']}"]
        assert [row["mean"], row["low"], row["high"]] == pytest.approx(expected(own))
        assert row["state_bits"] == 8 * own["state_bytes"].max()
    for axis, layout in zip(drawn[0].axes, ("direct", "icr"), strict=True):
        assert [64.0, 64.0] in [list(line.get_xdata()) for line in axis.lines]
        line = table[(table.label == "mamba") & (table["task.layout"] == layout)]
        assert list(markers(axis, style.line_styles(["lstm", "mamba"])["mamba"]).get_xdata()) == line["state_bits"].tolist()
        assert line["state_bits"].is_monotonic_increasing


def test_accuracy_by_state_without_a_known_bound_has_no_line_for_it(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_state", experiments("widths"), tmp_path / "figure")
    table = shown(tmp_path / "figure")
    assert table["memory_bits"].isna().all()
    assert not any("holds" in text.get_text() for text in drawn[0].axes[0].texts)
    assert set(table["label"]) == {"attention", "gru", "lstm", "none"}


def test_first_errors_is_the_share_of_traces_still_right(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    folder = experiments("graphs")
    draw("first_errors", folder, tmp_path / "figure")
    results, table = frame(folder / "results.parquet"), shown(tmp_path / "figure")
    assert titles(drawn[0]) == ["layout cot", "layout icr"]
    evaluations = {run: frame(folder.parents[1] / "evaluations" / run / "test.parquet") for run in results["run"].unique()}
    for row in table[table.place.isin([0, 45, 50, 100])].to_dict("records"):
        runs = results[results.label == f"{row['label']}, layout {row['task.layout']}"]["run"].unique()
        shares = []
        for run in runs:
            rows = evaluations[run][evaluations[run].nodes == 16]
            place = 20 * rows["first_error"].fillna(0) // rows["continuation"]
            shares.append(
                float((rows["exact"] | (place >= row["place"] / 5)).mean()) if row["place"] < 100 else float(rows["exact"].mean())
            )
        assert [row["mean"], row["low"], row["high"]] == pytest.approx(expected(pd.DataFrame({"accuracy": shares})))
    ends = table[table.place == 100].set_index(["label", "task.layout"])["mean"]
    assert ends["none", "icr"] == 0 < ends["mamba", "icr"]
