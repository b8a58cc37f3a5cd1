"""Figures of played episodes: what they show is what the tables say, and what is unknown is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from pipeline.evaluation.statistics import summarise
from pipeline.figures import style
from pipeline.figures.frames import read_results
from tests.figures.conftest import Folder, draw, frame, shown


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_accuracy_by_corridor_shows_means_over_seeds_and_what_needs_no_memory(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_corridor", experiments("mazes"), tmp_path / "figure")
    results, table = frame(experiments("mazes") / "results.parquet"), shown(tmp_path / "figure")
    assert len(table) == 4 * 4
    for row in table.to_dict("records"):
        seeds = results[(results.label == row["label"]) & (results.corridor == row["corridor"])]
        expected = summarise(seeds["accuracy"], bounds=(0, 1))
        assert [row["mean"], row["low"], row["high"]] == pytest.approx([100 * expected.mean, 100 * expected.low, 100 * expected.high])
    said = texts(drawn[0])
    assert (
        "chance 50 %" in said and "episodes solved (%)" in said and "corridor (positions)" in said and "training task: corridor 20" in said
    )


def test_trainings_at_several_corridors_are_one_line(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_corridor", experiments("trained_mazes"), tmp_path / "figure")
    table = shown(tmp_path / "figure")
    assert sorted(set(table["label"])) == ["attention", "gru", "lstm", "none"] and len(table) == 16


def test_learning_curves_show_the_return(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("learning_curves", experiments("mazes"), tmp_path / "figure")
    curves, table = frame(experiments("mazes") / "curves.parquet"), shown(tmp_path / "figure")
    seeds = table[table.line == "seed"]
    assert np.allclose(seeds["return"], curves["validation_return"]) and "loss" not in table
    for (label, rows), group in curves.groupby(["label", "rows"]):
        row = table[(table.line == "median") & (table.label == label) & (table.rows == rows)].iloc[0]
        assert row["return"] == pytest.approx(np.median(group["validation_return"]))
    said = texts(drawn[0])
    assert "environment steps" in said and "best possible return 2.1" in said, "the best return at the corridor of training"


def test_mean_return_is_that_of_the_hardest_point(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("mean_return", experiments("mazes"), tmp_path / "figure")
    results, table = frame(experiments("mazes") / "results.parquet"), shown(tmp_path / "figure")
    expected = results[results.corridor == 20].groupby("label")["return"].mean().to_dict()
    assert dict(zip(table["label"], table["mean"], strict=True)) == pytest.approx(expected)
    assert table["best_return"].to_numpy() == pytest.approx(np.full(4, 4 - 0.1 * 19))
    assert "mean return at corridor 20" in texts(drawn[0]) and "best possible return 2.1" in texts(drawn[0])


def test_sample_efficiency_counts_environment_steps(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("sample_efficiency", experiments("mazes"), tmp_path / "figure")
    results, table = frame(experiments("mazes") / "results.parquet"), shown(tmp_path / "figure")
    runs = results.drop_duplicates("run").set_index(["label", "seed"])
    assert len(table) == 12
    for row in table.to_dict("records"):
        expected = runs.loc[(row["label"], row["seed"])]
        assert [row["rows_to_90"], row["rows_to_99"]] == pytest.approx([expected["rows_to_90"], expected["rows_to_99"]], nan_ok=True)
    assert "environment steps until this share was solved" in texts(drawn[0])
    draw("sample_efficiency", experiments("usual"), tmp_path / "rows")
    assert "training rows seen until this validation accuracy" in texts(drawn[1])


def test_step_cost_shows_every_network_at_every_context(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("step_cost", experiments("mazes"), tmp_path / "figure")
    table = shown(tmp_path / "figure")
    assert len(table) == 16 and table["context"].tolist()[:4] == [128, 512, 2048, 8192]
    attention = table[table.label == "attention"]
    assert attention["milliseconds"].to_numpy() == pytest.approx([0.1 * (1 + size / 2000) for size in (128, 512, 2048, 8192)])
    assert attention["state_bytes"].tolist() == [64 * size for size in (128, 512, 2048, 8192)]
    assert table["megamacs"].iloc[0] > 0
    assert "steps that the network has read" in texts(drawn[0])
    draw("step_cost", experiments("usual"), tmp_path / "tokens")
    assert "tokens that the network has read" in texts(drawn[1])


def test_strips_are_the_first_seeds_episodes_at_the_hardest_point(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("episode_strips", experiments("mazes"), tmp_path / "figure", episodes=2)
    episodes, table = frame(experiments("mazes") / "details.parquet"), shown(tmp_path / "figure")
    assert table[["label", "seed", "row", "corridor"]].to_numpy().tolist() == [
        [label, 0, row, 20] for label in ("attention", "gru", "lstm", "none") for row in (0, 1)
    ]
    images = [axis.images[0].get_array() for axis in drawn[0].axes]
    first = episodes[(episodes.label == "attention") & (episodes.seed == 0) & (episodes.row == 0) & (episodes.corridor == 20)].iloc[0]
    pictures = np.frombuffer(first["frames"], np.uint8).reshape(tuple(first["frames_shape"]))
    assert np.array_equal(np.asarray(images[0])[:, :120], pictures[0]) and np.array_equal(np.asarray(images[0])[:, -120:], pictures[-1])
    row = table.iloc[0]
    ended = "solved" if row["success"] else "not solved"
    assert f"Attention, seed 0: {ended}, return {row['return']:.2f}, {row['episode_length']} steps" in texts(drawn[0])


def test_without_pictures_a_strip_says_so(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("episode_strips", experiments("paths"), tmp_path / "figure")
    assert "this environment does not render" in texts(drawn[0])


def test_chance_that_nobody_knows_is_not_drawn(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    results = read_results(experiments("paths"))
    assert results.rows["chance"].isna().all() and results.measurement.name == "episodes"
    for figure in ("accuracy_at_longest", "cost_quality", "learning_curves", "accuracy_by_state"):
        draw(figure, experiments("paths"), tmp_path / figure)
    for figure in drawn:
        with style.page():
            assert not [text for text in texts(figure) if "memoryless" in text or "chance" in text]
