"""Figures of what a tuned experiment tried, and what all figures and tables of such an experiment say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.config.choices import CHOICES
from pipeline.config.document import read_text
from pipeline.config.expand import expand
from pipeline.evaluation.statistics import summarise
from pipeline.figures.accuracy_by_learning_rate import CROSS, RING
from pipeline.figures.axes import SEED
from pipeline.figures.style import GREY
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.tables import read_table, write_table
from tests.figures.conftest import Folder, draw, frame, shown
from tests.figures.test_figures import check_texts
from tests.figures.test_style import said
from tests.figures.tuned import RATE, RATES, make_tuned

TUNED = "Tuned: learner.learning_rate, 5 values, by validation loss."


def points(figure: Figure, **wanted: Any) -> list[list[float]]:
    """The markers of one kind in the first panel, as (x, y)."""
    lines = [line for line in figure.axes[0].lines if all(getattr(line, f"get_{key}")() == value for key, value in wanted.items())]
    return [point for line in lines for point in np.asarray(line.get_xydata()).tolist()]


def note(figure: Figure) -> str:
    """The note below the legend; its lines are drawn from the last."""
    return " ".join(text.get_text() for text in reversed(figure.texts) if text.get_color() == GREY)


def test_every_candidate_has_its_mean_and_interval(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_learning_rate", experiments("tuned"), tmp_path / "figure")
    trials, table = frame(experiments("tuned") / "tuning.parquet"), shown(tmp_path / "figure")
    assert len(table) == 5 * len(RATES) and set(table["seeds"]) == {3}
    for row in table.to_dict("records"):
        own = trials[(trials["label"] == row["label"]) & (trials[RATE] == row[RATE])]
        expected = summarise(own["accuracy"], bounds=(0, 1))
        assert (row["diverged"], row["chosen"]) == (own["diverged_at"].notna().sum(), own["chosen"].all())
        if row["diverged"]:
            assert np.isnan([row["mean"], row["low"], row["high"]]).all()
        else:
            assert [row["mean"], row["low"], row["high"]] == pytest.approx([100 * expected.mean, 100 * expected.low, 100 * expected.high])
    dots = [y for _, y in points(drawn[0], markersize=SEED["ms"])]
    assert sorted(dots) == pytest.approx(sorted(100 * trials[trials["diverged_at"].isna()]["accuracy"]))
    assert drawn[0].axes[0].get_xscale() == "log"


def test_the_chosen_have_a_ring_and_the_diverged_a_cross(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_learning_rate", experiments("tuned"), tmp_path / "figure")
    table, choices = shown(tmp_path / "figure"), json.loads((experiments("tuned") / CHOICES).read_text())
    chosen = table[table["chosen"]]
    assert dict(zip(chosen["label"], chosen[RATE], strict=True)) == {label: choice["values"][RATE] for label, choice in choices.items()}
    rings = [y for _, y in points(drawn[0], marker="o", markersize=RING)]
    assert rings == pytest.approx(chosen["mean"].tolist())
    ((x, y),) = points(drawn[0], marker="x", markersize=CROSS)
    assert x == pytest.approx(0.01, rel=0.2) and 0 <= y < 0.1
    words = said(drawn[0])
    assert {"chosen", "diverged"} <= set(words)


def test_the_note_says_how_it_was_tuned_and_what_is_at_an_edge(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    for case in ("tuned", "tuned_on_one_seed"):
        draw("accuracy_by_learning_rate", experiments(case), tmp_path / "figure")
    first, second = map(note, drawn)
    assert f"{TUNED} At the edge of the values tried, so that one beyond may be better: GRU (largest); no memory (smallest)." in first
    assert f"{TUNED} One seed per candidate: there are no intervals." in second
    assert "At the edge" not in second and "no intervals" not in first
    assert not any(len(bar) for bars in drawn[1].axes[0].collections for bar in bars.get_segments())


def test_of_several_keys_each_value_is_shown_with_the_best_of_the_others(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    trials = frame(experiments("tuned_keys") / "tuning.parquet")
    for key, other in ((RATE, "network.dropout"), ("network.dropout", RATE)):
        draw("accuracy_by_learning_rate", experiments("tuned_keys"), tmp_path / "figure", key=key)
        losses = trials.groupby(["label", key, other], as_index=False)["objective"].mean()
        best = losses.loc[losses.groupby(["label", key])["objective"].idxmin()].set_index(["label", key])[other]
        assert shown(tmp_path / "figure").set_index(["label", key])[other].to_dict() == best.to_dict()


def test_values_that_are_no_numbers_stand_side_by_side(tmp_path: Path, drawn: Any) -> None:
    schedules = ["cosine", "constant", "linear_warmup_then_cosine", None]
    folder = make_tuned(tmp_path / "results", ["lstm", "gru"], {"learner.schedule": schedules})
    draw("accuracy_by_learning_rate", folder, tmp_path / "figure", key="learner.schedule")
    ticks = [text.get_text() for text in drawn[0].axes[0].get_xticklabels()]
    assert ticks == ["constant", "cosine", "linear_warmup_then_cosine", "null"]
    check_texts(drawn[0])


def test_the_objective_has_its_unit(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_learning_rate", experiments("tuned"), tmp_path / "figure", metric="objective")
    draw("accuracy_by_learning_rate", experiments("tuned_without_accuracy"), tmp_path / "figure")
    assert [figure.axes[0].get_ylabel() for figure in drawn] == ["validation loss (nats per symbol)"] * 2
    assert drawn[0].axes[0].get_ylim()[1] > 1.8 and drawn[0].axes[0].get_ylim()[0] == 0
    check_texts(drawn[0])


def test_the_expected_best_starts_at_the_mean_and_counts_diverged_as_zero(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("tuning_cost", experiments("tuned"), tmp_path / "figure")
    trials, table = frame(experiments("tuned") / "tuning.parquet"), shown(tmp_path / "figure")
    assert table.groupby("label")["trials"].apply(list).tolist() == [[1, 2, 3, 4, 5]] * 5
    means = trials.groupby(["label", RATE]).agg(accuracy=("accuracy", "mean"), diverged=("diverged_at", "count"))
    counted = 100 * means["accuracy"].where(means["diverged"] == 0, 0)
    first, last = (table[table["trials"] == k].set_index("label")["expected_best"] for k in (1, 5))
    assert first.to_dict() == pytest.approx(counted.groupby("label").mean().to_dict())
    best = counted.groupby("label").max()
    assert all(first[label] - 1e-9 <= last[label] <= best[label] + 1e-9 for label in best.index)


def test_the_expected_best_loss_falls(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("tuning_cost", experiments("tuned"), tmp_path / "figure", metric="objective")
    for _, line in shown(tmp_path / "figure").groupby("label"):
        assert (np.diff(line["expected_best"]) <= 1e-12).all()


@pytest.mark.parametrize(
    "name",
    ["accuracy_by_delay", "accuracy_at_longest", "cost_quality", "learning_curves", "sample_efficiency", "step_cost", "training_time"],
)
def test_every_figure_of_a_tuned_experiment_says_so(name: str, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw(name, experiments("tuned"), tmp_path / "figure")
    draw(name, experiments("mazes" if name == "step_cost" else "usual"), tmp_path / "figure")
    tuned, plain = (" ".join(said(figure)) for figure in drawn)
    assert TUNED in tuned and "Tuned" not in plain
    check_texts(drawn[0])


def test_every_table_of_a_tuned_experiment_says_so(experiments: Folder) -> None:
    text, plain = ((experiments(case) / "table.md").read_text() for case in ("tuned", "usual"))
    assert text.count(TUNED) == text.count("\n## ") and "Tuned" not in plain and "Tuning" not in plain
    page = (experiments("tuned") / "table.html").read_text()
    warning = "GRU: learner.learning_rate = 0.01 is the largest value tried; a larger one may be better"
    assert f"\n{warning}\n\n" in text and f"<p>{warning}</p>" in page
    assert "| LRU | 0.001 | 5 | 3 |" in text and text.rstrip().splitlines()[-3].endswith("| 1/15 |")


def test_a_tuned_experiment_without_its_trials_cannot_be_drawn(experiments: Folder, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"tuning\.parquet"):
        draw("tuning_cost", experiments("usual"), tmp_path / "figure")
    folder = make_tuned(tmp_path / "results", ["lstm"])
    path = folder / "tuning.parquet"
    write_table(path, read_table(path).drop_columns(["objective"]))
    with pytest.raises(CorruptFileError, match=r"tuning\.parquet: column objective: missing"):
        draw("tuning_cost", folder, tmp_path / "figure")


SUITE = """\
experiments:
  one:
    base:
      task: {name: copy, symbols: 3, delay: 10}
      network: {name: sequence, mixer: lstm, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32}
    sweep: {seed: [0, 1]}%s
    figures: [%s]
"""


@pytest.mark.parametrize(
    ("tune", "figure", "message"),
    [
        ("", "tuning_cost", "expected a section 'tune', of which tuning_cost draws the trials"),
        ("", "accuracy_by_learning_rate", "expected a section 'tune', of which accuracy_by_learning_rate draws the trials"),
        (
            "\n    tune: {network.width: [8, 16]}",
            "accuracy_by_learning_rate",
            "key: 'learner.learning_rate' is not tuned; expected network.width",
        ),
    ],
)
def test_a_figure_of_what_was_tried_is_for_tuned_experiments(tune: str, figure: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(read_text(SUITE % (tune, figure), "c.yaml"))
    assert str(caught.value).endswith(f"experiments.one.figures[0]: {message}")


def test_a_tuned_experiment_has_these_figures() -> None:
    figures = "tuning_cost, {name: accuracy_by_learning_rate, key: network.width, metric: objective}"
    (experiment,) = expand(read_text(SUITE % ("\n    tune: {network.width: [8, 16]}", figures), "c.yaml")).experiments
    assert [figure.stem for figure in experiment.figures] == ["tuning_cost", "accuracy_by_learning_rate_objective_network_width"]
