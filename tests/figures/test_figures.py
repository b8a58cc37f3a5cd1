"""Every figure, on a usual experiment and on the odd ones: files, bytes, numbers, and no text on top of another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.evaluation.statistics import summarise
from pipeline.figures import style
from pipeline.storage.tables import write_table
from tests.figures.conftest import DRAWN, SKILL, Folder, cases_of, draw, frame, shown


@pytest.mark.parametrize("name", DRAWN)
def test_files_and_bytes_repeat(name: str, experiments: Folder, tmp_path: Path) -> None:
    case = cases_of(name)[0]
    for prefix in ("first", "again"):
        draw(name, experiments(case), tmp_path / prefix)
    for suffix in ("svg", "pdf", "png", "csv"):
        first = (tmp_path / f"first.{suffix}").read_bytes()
        assert first == (tmp_path / f"again.{suffix}").read_bytes(), suffix
        assert len(first) > 100
    assert b"<dc:date>" not in (tmp_path / "first.svg").read_bytes()
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
    assert len([path for path in tmp_path.iterdir() if not path.name.startswith(".")]) == 8, "and their seals"


def visible_texts(figure: Figure) -> Iterator[tuple[str, Any]]:
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    hidden = {text for axis in figure.axes if not axis.get_visible() for text in axis.findobj(Text)}
    for text in figure.findobj(Text):
        box = text.get_window_extent(renderer) if text.get_visible() and text.get_text() and text not in hidden else None
        outside = box is not None and _is_unused_tick(text, figure)
        if box is not None and box.width > 0 and not outside:
            yield text.get_text(), box


def _is_unused_tick(text: Any, figure: Figure) -> bool:
    """A tick label whose tick lies beyond the axis is not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            owner = next((tick for tick in ticks if text in (tick.label1, tick.label2)), None)
            if owner is not None:
                low, high = sorted(axis.get_view_interval())
                return not low - 1e-9 * abs(low) <= owner.get_loc() <= high * (1 + 1e-9)
    return False


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in DRAWN for case in cases_of(name)])
def test_no_text_overlaps_another_or_leaves_the_page(name: str, case: str, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw(name, experiments(case), tmp_path / "figure")
    (figure,) = drawn
    check_texts(figure)


def check_texts(figure: Figure) -> None:
    """No text overlaps another or leaves the page."""
    with style.page():
        texts = list(visible_texts(figure))
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in texts:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} leaves the page"
    for (one, a), (other, b) in combinations(texts, 2):
        across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1.5 or along < 1.5, f"{one!r} and {other!r} overlap"


def test_accuracy_by_delay_shows_means_and_intervals_over_seeds(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_delay", experiments("usual"), tmp_path / "figure")
    results, table = frame(experiments("usual") / "results.parquet"), shown(tmp_path / "figure")
    assert len(table) == results.groupby(["label", "delay"]).ngroups
    for row in table.to_dict("records"):
        seeds = results[(results.label == row["label"]) & (results.delay == row["delay"])]
        expected = summarise(seeds["accuracy"], bounds=(0, 1))
        assert [row["mean"], row["low"], row["high"]] == pytest.approx([100 * expected.mean, 100 * expected.low, 100 * expected.high])
        assert (row["seeds"], row["chance"]) == (3, 12.5)
    lines = [line.get_ydata() for line in drawn[0].axes[0].lines if len(line.get_xdata()) == 5 and line.get_linestyle() != "None"]
    assert np.allclose(np.concatenate(lines), table["mean"])


def test_sequence_accuracy_has_its_own_chance(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_delay", experiments("usual"), tmp_path / "figure", metric="sequence_accuracy")
    table = shown(tmp_path / "figure")
    assert table["sequence_chance"].to_numpy() == pytest.approx(100 / 8**10)
    results = frame(experiments("usual") / "results.parquet")
    assert sorted(table["mean"]) == pytest.approx(sorted(100 * results.groupby(["label", "delay"])["sequence_accuracy"].mean()))


def test_learning_curves_show_seeds_and_medians(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("learning_curves", experiments("usual"), tmp_path / "figure")
    curves, table = frame(experiments("usual") / "curves.parquet"), shown(tmp_path / "figure")
    seeds, medians = table[table.line == "seed"], table[table.line == "median"]
    assert np.allclose(seeds["loss"], curves["validation_loss"])
    assert np.allclose(seeds["accuracy"], 100 * curves["validation_accuracy"])
    for (label, rows), group in curves.groupby(["label", "rows"]):
        row = medians[(medians.label == label) & (medians.rows == rows)].iloc[0]
        assert row["loss"] == pytest.approx(np.median(group["validation_loss"]))
    thick = [line.get_ydata() for line in drawn[0].axes[1].lines if len(line.get_xdata()) == 40 and line.get_linewidth() > 1]
    assert np.allclose(np.concatenate([thick[list(SKILL).index(label)] for label in sorted(SKILL)]), medians["accuracy"])


def test_a_median_ends_where_the_first_seed_stopped(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    folder = shutil.copytree(experiments("usual"), tmp_path / experiments("usual").name)
    curves = frame(folder / "curves.parquet")
    kept = curves[(curves.run != "copy-0-s1") | (curves.step <= 3000)]
    write_table(folder / "curves.parquet", pa.Table.from_pandas(kept, preserve_index=False))
    draw("learning_curves", folder, tmp_path / "figure")
    table = shown(tmp_path / "figure")
    assert table[(table.label == "lstm") & (table.line == "median")]["rows"].max() == 32 * 3000
    assert table[(table.label == "lstm") & (table.line == "seed")]["rows"].max() == 32 * 8000


def test_recall_positions_show_means_over_seeds(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("recall_positions", experiments("usual"), tmp_path / "figure")
    positions, table = frame(experiments("usual") / "details.parquet"), shown(tmp_path / "figure")
    assert len(table) == 5 * 5 * 10
    for row in table.sample(20, random_state=0).to_dict("records"):
        at = (positions.label == row["label"]) & (positions.delay == row["delay"]) & (positions.position + 1 == row["position"])
        assert row["accuracy"] == pytest.approx(100 * positions[at]["accuracy"].mean())
    cells = drawn[0].axes[0].collections[0].get_array()
    assert cells is not None
    assert np.allclose(np.ravel(cells), table[table.label == "lstm"]["accuracy"])


def test_training_time_shows_every_run(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("training_time", experiments("usual"), tmp_path / "figure")
    timing, table = frame(experiments("usual") / "timing.parquet"), shown(tmp_path / "figure")
    pd.testing.assert_frame_equal(table, timing[list(table.columns)], check_dtype=False)
    bars = [patch.get_width() for patch in drawn[0].axes[0].patches]
    assert bars == pytest.approx(timing.groupby("label", sort=False)["cpu_seconds"].mean().tolist())


def test_cost_quality_front_is_what_no_other_beats(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("cost_quality", experiments("usual"), tmp_path / "figure")
    table = shown(tmp_path / "figure")
    results = frame(experiments("usual") / "results.parquet")
    hardest = results[results.delay == 100].groupby("label")["accuracy"].mean() * 100
    assert dict(zip(table["label"], table["mean"], strict=True)) == pytest.approx(hardest.to_dict())
    for row in table.to_dict("records"):
        better = table[(table["state_bytes"] <= row["state_bytes"]) & (table["mean"] >= row["mean"]) & (table["label"] != row["label"])]
        assert row["front"] == better.empty


def test_the_memoryless_control_stands_left_of_every_state(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("cost_quality", experiments("usual"), tmp_path / "figure")
    axis = drawn[0].axes[0]
    places = [float(line.get_xdata()[0]) for line in axis.lines if line.get_markersize() == 4.6]
    assert places[0] == 0 < min(places[1:])
    assert axis.get_xlim()[0] < 0
    assert axis.get_xticklabels()[0].get_text() == "0"
