"""Figures fit a paper: size, type, vectors, zeros where they belong, every line with a name, whatever a user's matplotlib says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text

from pipeline.config.figures import COLUMN, TEXT
from pipeline.figures import style
from pipeline.figures.frames import read_results
from tests.figures.conftest import DRAWN, Folder, cases_of, draw, frame, shown

SAMPLES = [(name, cases_of(name)[0]) for name in DRAWN]


def said(figure: Any) -> list[str]:
    """All text of a figure, each with plain spaces and on one line."""
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize(("name", "case"), SAMPLES)
def test_figures_are_as_wide_as_paper_and_their_text_is_legible(
    name: str, case: str, experiments: Folder, tmp_path: Path, drawn: Any
) -> None:
    for width in (None, "column", "text"):
        draw(name, experiments(case), tmp_path / "figure", width=width)
    assert {figure.get_size_inches()[0] for figure in drawn} <= {COLUMN, TEXT}
    assert [figure.get_size_inches()[0] for figure in drawn[1:]] == [COLUMN, TEXT]
    for figure in drawn:
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


@pytest.mark.parametrize(("name", "case"), SAMPLES)
def test_every_line_that_is_no_network_is_in_the_key(name: str, case: str, experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw(name, experiments(case), tmp_path / "figure")
    (figure,) = drawn
    across = [line for axis in figure.axes for line in axis.lines if len(line.get_xdata()) == 2 and line.get_transform() != axis.transData]
    across = [line for line in across if list(line.get_xdata()) == [0, 1] or list(line.get_ydata()) == [0, 1]]
    named = {line.get_linestyle() for line in figure.artists if isinstance(line, Line2D) and line.get_marker() in ("", "None")}
    assert {line.get_gid() for line in across} <= {"reference"}
    assert {line.get_linestyle() for line in across} <= named


def test_nothing_of_a_users_settings_is_in_a_figure(experiments: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw("cost_quality", experiments("usual"), tmp_path / "plain")
    mine: dict[Any, Any] = {
        "font.size": 20,
        "axes.facecolor": "black",
        "lines.linewidth": 9,
        "savefig.bbox": "tight",
        "figure.dpi": 33,
        "text.usetex": True,
    }
    mine |= {
        "axes.formatter.limits": (0, 0),
        "errorbar.capsize": 8,
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(mine):
        draw("cost_quality", experiments("usual"), tmp_path / "mine")
    for kind in ("svg", "pdf", "png", "csv"):
        assert (tmp_path / f"plain.{kind}").read_bytes() == (tmp_path / f"mine.{kind}").read_bytes(), kind


def test_vectors_carry_their_fonts(experiments: Folder, tmp_path: Path) -> None:
    draw("accuracy_at_longest", experiments("usual"), tmp_path / "figure")
    pdf, svg = (tmp_path / "figure.pdf").read_bytes(), (tmp_path / "figure.svg").read_text()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    assert "<text" not in svg and "<!-- LSTM -->" in svg, "text is paths, said in comments"
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)
    assert box is not None and float(box[1]) == pytest.approx(72 * COLUMN)


def test_a_network_without_state_stands_at_zero(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("step_cost", experiments("mazes"), tmp_path / "figure")
    axis, line_style = drawn[0].axes[1], read_results(experiments("mazes")).line_styles["none"]
    (line,) = [line for line in axis.lines if line.get_color() == line_style.colour]
    assert set(line.get_ydata()) == {0} and shown(tmp_path / "figure").query("label == 'none'")["state_bytes"].eq(0).all()
    with style.page():
        drawn[0].canvas.draw()
    labels = {label.get_text(): place for label, place in zip(axis.get_yticklabels(), axis.get_yticks(), strict=True)}
    assert labels["0"] == 0
    least = min(value for other in axis.lines if other is not line for value in other.get_ydata())
    heights = axis.transAxes.inverted().transform(axis.transData.transform([(128, 0), (128, least)]))[:, 1]
    assert 0 < heights[0] < heights[1] - 0.05, "apart from the smallest state that there is"


def test_a_loss_of_zero_is_drawn_at_zero(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    from shutil import copytree

    import pyarrow as pa

    from pipeline.storage.tables import write_table

    folder = Path(copytree(experiments("usual"), tmp_path / experiments("usual").name))
    curves = frame(folder / "curves.parquet")
    curves.loc[curves["label"] == "lstm", "validation_loss"] = 0.0
    write_table(folder / "curves.parquet", pa.Table.from_pandas(curves, preserve_index=False))
    draw("learning_curves", folder, tmp_path / "figure")
    axis = drawn[0].axes[0]
    assert axis.get_yscale() == "symlog" and axis.get_ylim()[0] < 0
    assert min(min(line.get_ydata()) for line in axis.lines) == 0


def test_the_point_is_a_trained_one_unless_asked_for_another(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    results = frame(experiments("usual") / "results.parquet")
    for at, delay, name in (({}, 100, "delay 100"), ({"delay": 200}, 200, "delay 200 (beyond training)"), ({"delay": 20}, 20, "delay 20")):
        draw("cost_quality", experiments("usual"), tmp_path / "figure", at=at)
        expected = 100 * results[results.delay == delay].groupby("label")["accuracy"].mean()
        assert shown(tmp_path / "figure").set_index("label")["mean"].to_dict() == pytest.approx(expected.to_dict())
        assert f"symbol accuracy at {name} (%)" in said(drawn[-1])


def test_where_training_covered_nothing_the_nearest_point_says_so(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("cost_quality", experiments("twelve"), tmp_path / "figure")
    draw("cost_quality", experiments("many_delays"), tmp_path / "other")
    assert "symbol accuracy at delay 20 (beyond training) (%)" in said(drawn[0])
    assert "symbol accuracy at delay 10 (below training) (%)" in said(drawn[1])


def test_one_panel_of_a_grid(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_delay", experiments("grid"), tmp_path / "figure", at={"symbols": 20})
    assert len(drawn[0].axes) == 1 and set(shown(tmp_path / "figure")["symbols"]) == {20}


def test_names_are_those_of_papers_or_the_users(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_delay", experiments("usual"), tmp_path / "figure", labels={"lstm": "Ours"}, title="")
    words = said(drawn[0])
    assert {"Ours", "GRU", "LRU", "Attention", "no memory"} <= set(words) and "LSTM" not in words
    assert set(shown(tmp_path / "figure")["label"]) == {"lstm", "gru", "lru", "attention", "none"}, "the numbers keep the labels"


def test_every_seed_is_a_dot_and_every_interval_a_bar(experiments: Folder, tmp_path: Path, drawn: Any) -> None:
    draw("accuracy_by_delay", experiments("usual"), tmp_path / "figure")
    table, results = shown(tmp_path / "figure"), frame(experiments("usual") / "results.parquet")
    axis = drawn[0].axes[0]
    dots = np.concatenate([line.get_ydata() for line in axis.lines if line.get_markersize() == 1.9])
    assert sorted(dots) == pytest.approx(sorted(100 * results["accuracy"]))
    ends = [np.asarray(part)[:, 1] for bars in axis.collections for part in bars.get_segments()]
    for place, side in enumerate(("low", "high")):
        assert sorted(end[place] for end in ends) == pytest.approx(sorted(table[side]))
