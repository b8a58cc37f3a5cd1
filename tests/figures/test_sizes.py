"""Runs that differ in a size or a width: whose labels leave it out, and the figures that draw a line across them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.text import Text

from pipeline.evaluation.statistics import summarise
from pipeline.figures.frames import read_results
from pipeline.storage.tables import read_table, write_table
from tests.figures.conftest import SIZES, WIDTHS, Folder, draw, frame, shown

SWEPT = ["gru", "lru", "lstm", "none"]
STATISTICS = ["mean", "sd", "se", "low", "high"]


def name_of(label: str) -> str:
    """The network in a label such as `lstm, symbols 100`."""
    return label.split(", ")[0]


def said(figure: Any) -> list[str]:
    """All text of a figure, each with plain spaces and on one line."""
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]


def lines(axis: Any) -> list[Any]:
    """What is drawn through more than one point."""
    return [line for line in axis.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != "None" and line.get_linewidth() > 1]


def changed(experiment: Path, out: Path, change: Any, labels: dict[str, Any] | None = None) -> Path:
    """A copy of an experiment whose results are changed. labels: the parts of each label that the change adds."""
    folder = Path(shutil.copytree(experiment, out / experiment.name))
    table = read_table(folder / "results.parquet")
    rows = pa.Table.from_pylist(change(table.to_pylist()), table.schema)
    note = json.loads(table.schema.metadata[b"recurlab"])
    note["labels"] |= labels or {}
    write_table(folder / "results.parquet", rows.replace_schema_metadata({b"recurlab": json.dumps(note)}))
    return folder


def test_labels_leave_out_the_size_that_runs_were_trained_and_measured_at(experiments: Folder) -> None:
    results = read_results(experiments("sizes"))
    assert results.size == "symbols"
    assert list(results.line_styles) == sorted(f"{name}, symbols {size}" for name in SWEPT for size in SIZES)
    for found in (results.across_runs(), results.lines_over_size()):
        assert list(found.line_styles) == SWEPT
        assert (found.rows["label"] == results.rows["label"].map(name_of)).all()
    assert list(read_results(experiments("one_network")).across_runs().line_styles) == ["base"]
    usual = read_results(experiments("usual"))
    assert usual.size == "delay"
    assert usual.across_runs().line_styles == usual.lines_over_size().line_styles == usual.line_styles


def measured(at: Any) -> Any:
    """A change of results: every run measured at these sizes, each a function of the one it was trained at."""
    return lambda rows: [{**row, "symbols": size} for row in rows for size in at(row["symbols_most_trained"])]


def test_a_line_runs_across_runs_that_were_measured_once(experiments: Folder, tmp_path: Path) -> None:
    """Runs trained at 100 and 200 that are both measured at 500 are not seeds of one network, nor is what each did elsewhere one line."""
    for number, (at, joined) in enumerate(
        [(lambda size: [size + 100], True), (lambda size: [500], False), (lambda size: [size, 7 * size], False)]
    ):
        results = read_results(changed(experiments("sizes"), tmp_path / str(number), measured(at)))
        assert list(results.across_runs().line_styles) == (SWEPT if joined else list(results.line_styles))
        assert list(results.lines_over_size().line_styles) == SWEPT


def test_labels_keep_what_tells_two_runs_of_a_seed_apart(experiments: Folder, tmp_path: Path) -> None:
    """Two tasks of the same largest size, or a variant that has the name of a line."""

    def same_size(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "symbols_most_trained": 1000} if row["symbols"] == 500 else row for row in rows]

    def variant(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = [
            {**row, "label": "gru", "variant": "gru", "run": f"v{row['seed']}", "task.symbols": None}
            for row in rows
            if name_of(row["label"]) == "gru"
        ]
        return rows + [{**row, "symbols_most_trained": 50} for row in own if row["symbols"] == 100]

    for number, change in enumerate((same_size, variant)):
        results = read_results(changed(experiments("sizes"), tmp_path / str(number), change, {"gru": {"variant": ["gru", ""]}}))
        assert results.size == "symbols"
        assert results.lines_over_size().line_styles == results.line_styles


@pytest.mark.parametrize("figure", ["accuracy_by_symbols", "accuracy_at_longest", "cost_quality"])
def test_accuracies_are_over_the_seeds_of_one_size(figure: str, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw(figure, experiments("sizes"), tmp_path / "figure")
    results, table = frame(experiments("sizes") / "results.parquet"), shown(tmp_path / "figure")
    sizes = SIZES if figure == "accuracy_by_symbols" else SIZES[-1:]
    assert len(table) == len(SWEPT) * len(sizes)
    for row in table.to_dict("records"):
        size = row.get("symbols", SIZES[-1])
        seeds = results[(results.label == f"{row['label']}, symbols {size}") & (results.symbols == size)]
        expected = summarise(seeds["accuracy"], bounds=(0, 1))
        assert [row["seeds"], *(row[key] for key in STATISTICS)] == pytest.approx([3, *(100 * value for value in expected[1:])])


def test_a_line_of_accuracies_runs_across_runs_and_beside_the_others(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_symbols", experiments("sizes"), tmp_path / "figure")
    table, axis = shown(tmp_path / "figure"), drawn[0].axes[0]
    found = [line for line in lines(axis) if len(line.get_xdata()) == 4]
    assert np.allclose(np.concatenate([line.get_ydata() for line in found]), table["mean"])
    places = np.stack([line.get_xdata() for line in found])
    assert (np.diff(places, axis=0) > 0).all(), "networks stand side by side, in order"
    assert np.allclose(np.exp(np.log(places).mean(axis=0)), SIZES), "around the size they share"
    low, high = axis.get_xlim()
    assert low < places.min() and places.max() < high


def test_sequence_chance_falls_with_the_size(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_symbols", experiments("solved"), tmp_path / "figure", metric="sequence_accuracy")
    table = shown(tmp_path / "figure")
    assert table["sequence_chance"].to_numpy() == pytest.approx([100 / 8**size for size in table["symbols"]])
    dashed = [line for line in drawn[0].axes[0].lines if line.get_gid() == "reference"]
    assert [list(line.get_ydata()) for line in dashed] == [pytest.approx([100 / 8, 100 / 64, 100 / 512])]


def test_length_generalisation_is_drawn_against_length(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_length", experiments("lengths"), tmp_path / "figure")
    table, axis = shown(tmp_path / "figure"), drawn[0].axes[0]
    results = frame(experiments("lengths") / "results.parquet")
    expected = 100 * results.groupby(["label", "length"])["accuracy"].mean()
    assert table.set_index(["label", "length"])["mean"].to_dict() == pytest.approx(expected.to_dict())
    assert axis.get_xlabel() == "length (bits)"
    assert "training task: length 40" in [text.get_text() for text in axis.texts]


def test_a_length_of_one_panel_per_number_of_pairs(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_pairs", experiments("widths"), tmp_path / "figure")
    assert [axis.get_title(loc="left") for axis in drawn[0].axes if axis.get_visible()] == ["length 64", "length 128", "length 256"]


@pytest.mark.parametrize("case", ["sizes", "usual", "missing"])
def test_training_time_by_size_shows_every_run(case: str, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("training_time_by_size", experiments(case), tmp_path / "figure")
    timing, table = frame(experiments(case) / "timing.parquet"), shown(tmp_path / "figure")
    assert sorted(table["cpu_seconds"]) == pytest.approx(sorted(timing["cpu_seconds"]))
    size = "symbols_most_trained" if case == "sizes" else "delay_most_trained"
    for (label, value), rows in table.groupby(["label", size]):
        expected = summarise(timing[timing.label == (f"{label}, symbols {value}" if case == "sizes" else label)]["cpu_seconds"])
        expected = expected._replace(low=max(0.0, expected.low))  # no time is negative
        assert rows[STATISTICS].to_numpy() == pytest.approx(np.tile(expected[1:], (len(rows), 1)))


@pytest.mark.parametrize("mark", [50, 99])
def test_steps_to_solve_tells_who_never_did(mark: int, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("steps_to_solve", experiments("sizes"), tmp_path / "figure", mark=mark)
    table, value = shown(tmp_path / "figure"), f"steps_to_{mark}"
    curves = frame(experiments("sizes") / "curves.parquet")
    good = curves[curves.validation_accuracy >= mark / 100].groupby(["label", "seed"])["step"].min()
    found = {(f"{row['label']}, symbols {row['symbols_most_trained']}", row["seed"]): row[value] for row in table.to_dict("records")}
    assert len(found) == len(SWEPT) * len(SIZES) * 3
    assert {key: steps for key, steps in found.items() if not np.isnan(steps)} == good.to_dict()
    for _, rows in table.groupby(["label", "symbols_most_trained"]):
        reached = int(rows[value].notna().sum())
        assert (rows[["seeds", "reached"]].to_numpy() == [3, reached]).all()
        expected = summarise(rows[value])[1:] if reached == 3 else [np.nan] * 5
        assert rows[STATISTICS].iloc[0].tolist() == pytest.approx(list(expected), nan_ok=True)
    axis = drawn[0].axes[0]
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == table[value].isna().sum() > 0
    assert all(min(line.get_ydata(), default=2) > 1 for line in hollow), "in parts of the panel's height: above it"
    spots = [(x, y) for line in hollow for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    assert len({(round(float(x), 6), round(float(y), 6)) for x, y in spots}) == len(spots), "none hides another"


def test_a_run_that_was_never_validated_is_not_called_unsolved(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("steps_to_solve", experiments("missing"), tmp_path / "figure")
    assert shown(tmp_path / "figure").groupby("label")["seed"].count().to_dict() == {"lstm": 2, "gru": 3, "none": 3}


def test_a_cost_over_decades_is_logarithmic(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    folder = Path(shutil.copytree(experiments("sizes"), tmp_path / experiments("sizes").name))
    timing = frame(folder / "timing.parquet")
    timing.loc[timing["label"] == "lstm, symbols 1000", "cpu_seconds"] *= 40
    write_table(folder / "timing.parquet", pa.Table.from_pandas(timing, preserve_index=False))
    draw("training_time_by_size", folder, tmp_path / "wide")
    draw("training_time_by_size", experiments("sizes"), tmp_path / "narrow")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["log", "linear"]
    assert [figure.axes[0].get_ylim()[0] > 0 for figure in drawn] == [True, False]


def test_bars_stand_for_the_networks_measured_at_the_longest(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_at_longest", experiments("missing"), tmp_path / "figure")
    table, axis = shown(tmp_path / "figure"), drawn[0].axes[0]
    assert table["label"].tolist() == ["lstm", "none"] and [text.get_text() for text in axis.get_yticklabels()] == ["LSTM", "no memory"]
    assert [patch.get_width() for patch in axis.patches] == pytest.approx(table["mean"].tolist())
    assert "symbol accuracy at delay 200 (beyond training) (%)" in said(drawn[0])
    written = [text.get_text() for text in axis.texts]
    row = table.iloc[0]
    assert written[0] == f"{row['mean']:.1f}  [{row['low']:.1f}, {row['high']:.1f}]"
    assert "chance 12.5 %" in said(drawn[0])


def test_widths_of_one_network_are_one_line(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("cost_quality", experiments("widths"), tmp_path / "figure")
    table, axis = shown(tmp_path / "figure"), drawn[0].axes[0]
    results = frame(experiments("widths") / "results.parquet")
    hardest = results[results.length == 64]
    expected = hardest.groupby("label").agg(mean=("accuracy", "mean"), state=("state_bytes", "max"))
    assert len(table) == 4 * len(WIDTHS)
    for row in table.to_dict("records"):
        own = expected.loc[f"{row['label']}, width {row['network.width']}"]
        assert [row["mean"], row["state_bytes"]] == pytest.approx([100 * own["mean"], own["state"]])
    gru = table[table.label == "gru"]
    joined = [line for line in lines(axis) if list(line.get_xdata()) == gru["state_bytes"].tolist()]
    assert len(joined) == 1 and np.allclose(joined[0].get_ydata(), gru["mean"])
    assert all(said(drawn[0]).count(name) == 1 for name in ("Attention", "GRU", "LSTM", "no memory"))
    assert (np.diff(table["state_bytes"]) >= 0).all()
    best = pd.Series([-np.inf, *table["mean"].cummax()[:-1]])
    assert table["front"].tolist() == (table["mean"] > best).tolist()
