"""Figures of puzzles: what they show is what the tables say, for networks with and without recursion."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.config.figures import FIGURES
from pipeline.config.tasks.puzzles import Arc, Maze, Sudoku
from pipeline.evaluation.measurements.puzzles import residual_edges
from pipeline.evaluation.schemas import read_results
from pipeline.evaluation.statistics import summarise
from pipeline.figures import residuals, style
from pipeline.figures.solution_strips import WRONG
from pipeline.tasks.sudoku import BOXES
from tests.figures.conftest import PUZZLES, Folder, draw, frame, shown
from tests.figures.puzzles import TRAINED
from tests.figures.test_figures import check_texts

DRAWN = [name for name, kind in FIGURES.items() if "puzzles" in getattr(kind, "measurements", ())]


def said(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("case", PUZZLES)
@pytest.mark.parametrize("name", DRAWN)
def test_no_text_overlaps_on_narrow_and_wide_pages(name: str, case: str, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    for width in ("column", "text"):
        draw(name, experiments(case), tmp_path / width, width=width)
    assert [figure.get_size_inches()[0] for figure in drawn] == [style.COLUMN, style.TEXT]
    for figure in drawn:
        check_texts(figure)


def test_solved_by_supervision_has_a_panel_per_network_and_a_line_per_size(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solved_by_supervision", experiments("puzzles"), tmp_path / "figure")
    results, table = frame(experiments("puzzles") / "results.parquet"), shown(tmp_path / "figure")
    assert len(table) == 4 * 3 * 5
    for row in table.to_dict("records"):
        at = (results.label == row["label"]) & (results.side == row["side"]) & (results.supervision == row["supervision"])
        expected = summarise(results[at]["accuracy"], bounds=(0, 1))
        assert [row["mean"], row["low"], row["high"]] == pytest.approx([100 * expected.mean, 100 * expected.low, 100 * expected.high])
    texts = said(drawn[0])
    assert {"base", "noisy", "one pass", "deep"} <= set(texts), "titles of the panels"
    assert {"side 5 (trained)", "side 9", "side 13", "supervision steps in training: 4, 8"} <= set(texts)
    marks = {
        axis.get_title("left"): [line.get_xdata()[0] for line in axis.lines if line.get_gid() == "reference"] for axis in drawn[0].axes
    }
    assert {name: marks[name] for name in TRAINED} == {"base": [8], "noisy": [4]} and marks["one pass"] == marks["deep"] == []


def test_a_network_without_recursion_is_a_flat_line_with_one_marker(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solved_by_supervision", experiments("puzzles"), tmp_path / "figure")
    (flat,) = (axis for axis in drawn[0].axes if axis.get_title("left") == "deep")
    lines = [line for line in flat.lines if len(line.get_xdata()) == 5]
    assert len(lines) == 3 and all(len(set(line.get_ydata())) == 1 and line.get_marker() == "None" for line in lines)


def test_of_one_size_every_network_is_a_line_of_one_panel(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solved_by_supervision", experiments("sudoku"), tmp_path / "figure")
    draw("solved_by_supervision", experiments("puzzles"), tmp_path / "at", at={"side": 9}, metric="cell_accuracy")
    assert [len(figure.axes) for figure in drawn] == [1, 1]
    assert {"base", "noisy", "one pass", "deep", "puzzles solved (%)"} <= set(said(drawn[0]))
    results, table = frame(experiments("puzzles") / "results.parquet"), shown(tmp_path / "at")
    expected = 100 * results[results.side == 9].groupby(["label", "supervision"])["cell_accuracy"].mean()
    assert table["mean"].to_numpy() == pytest.approx(expected.loc[[*zip(table["label"], table["supervision"], strict=True)]].to_numpy())
    assert "cells right at side 9 (beyond training) (%)" in said(drawn[1])


def test_what_was_not_measured_is_left_out(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solved_by_supervision", experiments("lost_puzzles"), tmp_path / "figure")
    table = shown(tmp_path / "figure")
    assert set(table[table.label == "deep"]["side"]) == {5, 9} and set(table[table.label == "deep"]["seeds"]) == {1}
    assert set(table[table.label == "base"]["side"]) == {5, 9, 13} and set(table[table.label == "base"]["seeds"]) == {2}


def test_halting_shows_what_q_knows_beside_one_that_looks_at_no_puzzle(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("halting", experiments("puzzles"), tmp_path / "figure")
    results, table = frame(experiments("puzzles") / "results.parquet"), shown(tmp_path / "figure")
    assert set(table["label"]) == set(TRAINED), "q of a network that was not trained to halt means nothing"
    assert len(table) == 2 * 2 * 5
    for row in table.to_dict("records"):
        seeds = results[(results.label == row["label"]) & (results.side == 5) & (results.supervision == row["supervision"])]
        assert row["mean"] == pytest.approx(100 * seeds[row["score"]].mean())
        expected = 100 * np.maximum(seeds["accuracy"], 1 - seeds["accuracy"]).mean() if row["score"] == "q_accuracy" else math.nan
        assert row["constant"] == pytest.approx(expected, nan_ok=True)
    assert {"puzzles halted (%)", "q right about the answer (%)", "Puzzles at side 5."} <= set(said(drawn[0]))


def test_residuals_are_the_distributions_at_the_last_step(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("residuals", experiments("puzzles"), tmp_path / "figure")
    draw("residuals", experiments("puzzles"), tmp_path / "early", at={"side": 9, "supervision": 2})
    results = frame(experiments("puzzles") / "results.parquet")
    for name, side, steps in (("figure", 5, 16), ("early", 9, 2)):
        table, at = shown(tmp_path / name), results[(results.side == side) & (results.supervision == steps)]
        assert set(table["label"]) == {"base", "noisy", "one_pass"} and table["low"].nunique() == len(residual_edges()) - 1
        for label, found in table.groupby("label"):
            seeds = at[at.label == label]
            shares = [100 * counts / counts.sum() for counts in seeds["residuals_solved"] if counts.sum()]
            assert found["solved"].to_numpy() == pytest.approx(np.mean(shares, axis=0))
            assert found["unsolved"].sum() == pytest.approx(100)
            assert found["solved_share"].iloc[0] == pytest.approx(100 * seeds["accuracy"].mean())
    assert "Step 16, puzzles at side 5." in said(drawn[0]) and "Step 2, puzzles at side 9 (beyond training)." in said(drawn[1])


@pytest.mark.parametrize(
    ("solved", "unsolved", "auc"),
    [([2, 0, 0], [0, 1, 3], 1.0), ([0, 0, 2], [1, 0, 0], 0.0), ([1, 1], [1, 1], 0.5), ([0, 3], [1, 1], 0.25), ([0, 0], [1, 1], math.nan)],
)
def test_auc_is_the_probability_that_a_solved_puzzle_changed_less(solved: list[int], unsolved: list[int], auc: float) -> None:
    assert residuals._auc(np.array(solved, float), np.array(unsolved, float)) == pytest.approx(auc, nan_ok=True)


def test_strips_are_the_first_seeds_answers_after_each_number_of_steps(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solution_strips", experiments("puzzles"), tmp_path / "figure", puzzles=2)
    details, table = frame(experiments("puzzles") / "details.parquet"), shown(tmp_path / "figure")
    steps = [1, 2, 4, 8, 16]
    assert table[["label", "row", "supervision"]].to_numpy().tolist() == [
        [label, row, after]
        for label in ("base", "deep", "noisy", "one_pass")
        for row in (0, 1)
        for after in (steps if label != "deep" else [16])
    ]
    assert set(table["seed"]) == {0} and set(table["side"]) == {5}
    for row in table.to_dict("records"):
        at = (details.label == row["label"]) & (details.seed == 0) & (details.side == 5)
        (found,) = details[at & (details.row == row["row"]) & (details.supervision == row["supervision"])]["answer"]
        assert row["answer"] == " ".join(map(str, found))
    grids = [axis for axis in drawn[0].axes if axis.images]
    assert len(grids) == 2 * (7 + 3 + 7 + 7)
    frames = [sum(patch.get_edgecolor() == (*to_rgb(WRONG), 1.0) for patch in axis.patches) for axis in grids[:7]]
    first = table[(table.label == "base") & (table.row == 0)]
    assert frames == [0, *(first["scored"] - first["correct"]), 0], "of the puzzle, the answers, the solution"
    texts = said(drawn[0])
    assert {"deep, seed 0", "wall", "start", "goal", "marked", "wrong", "Puzzles at side 5."} <= set(texts) and "8 steps solved" in texts


def test_colours_are_those_that_the_task_says(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solution_strips", experiments("puzzles"), tmp_path / "figure")
    puzzle = np.asarray(drawn[0].axes[1].images[0].get_array())
    expected = [Maze.glyphs[token].colour for token in (3, 2, 1, 2, 2)]
    assert [to_hex(cell) for cell in puzzle[0]] == expected, "S, open, wall, open, open"


def test_digits_are_bold_where_given_and_red_where_wrong(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("solution_strips", experiments("sudoku"), tmp_path / "figure")
    table = shown(tmp_path / "figure")
    puzzle, answer = (axis for axis in drawn[0].axes[1:3])
    digits = [text for text in puzzle.texts if text.get_text()]
    assert len(digits) == 27 and {text.get_fontweight() for text in digits} == {"bold"}
    wrong = [text for text in answer.texts if text.get_color() == WRONG]
    assert len(wrong) == (table["scored"] - table["correct"]).iloc[0] > 0
    assert len([axis for axis in drawn[0].axes if axis.images]) == 3 + 3 * 6, "a page has room for six boards of digits"
    assert "2 steps" in " ".join(said(drawn[0])) and "4 steps" not in " ".join(said(drawn[0]))


def test_every_token_of_a_puzzle_has_a_glyph() -> None:
    for task in (Maze(), Sudoku(), Arc()):
        assert len(task.glyphs) == max(task.vocabulary, task.classes)
    assert dict(Sudoku.boxes) == BOXES


def test_how_cells_are_drawn_travels_with_the_results(experiments: Folder) -> None:
    note = read_results(experiments("sudoku") / "results.parquet")[1]
    assert note.glyphs == Sudoku.glyphs and note.boxes == Sudoku.boxes
    assert read_results(experiments("usual") / "results.parquet")[1].glyphs == ()


def test_ablations_show_differences_over_pairs_of_seeds(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("ablations", experiments("puzzles"), tmp_path / "figure", at={"side": 5, "supervision": 16})
    results, table = frame(experiments("puzzles") / "results.parquet"), shown(tmp_path / "figure")
    at = results[(results.side == 5) & (results.supervision == 16)].pivot(index="seed", columns="label", values="accuracy")
    assert table["label"].tolist() == ["base", "deep", "noisy", "one_pass"], "the one that is no variant is first"
    for row in table.iloc[1:].to_dict("records"):
        expected = summarise(100 * (at[row["label"]] - at["base"]))
        low, high = np.clip([expected.low, expected.high], -100, 100)
        assert [row["pairs"], row["difference"]] == pytest.approx([3, expected.mean])
        assert [row["difference_low"], row["difference_high"]] == pytest.approx([low, high])
    assert np.isnan(table["difference"].iloc[0])
    assert {"mean", "difference", "mean of base"} <= set(said(drawn[0]))


def test_ablations_pair_the_seeds_that_both_have(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("ablations", experiments("lost_puzzles"), tmp_path / "figure", against="deep")
    table = shown(tmp_path / "figure")
    assert table["label"].tolist() == ["deep", "base"] and table["pairs"].tolist()[1] == 1
    assert np.isnan(table["difference_low"].iloc[1]), "one pair has no interval"
    draw("ablations", experiments("one_puzzle"), tmp_path / "one")
    assert len(shown(tmp_path / "one")) == 1


def test_learning_curves_speak_of_puzzles(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("learning_curves", experiments("puzzles"), tmp_path / "figure")
    assert {"validation puzzles solved (%)", "training puzzles seen", "validation loss (nats per cell)"} <= set(said(drawn[0]))
