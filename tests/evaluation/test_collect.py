from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.spec_files import read_spec, write_spec
from pipeline.evaluation import summary
from pipeline.evaluation.collect import collect
from pipeline.evaluation.statistics import summarise
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.tables import read_table, write_table
from tests.evaluation.conftest import CHANCE, FLOOR, HISTORIES, POINTS, Tiny

DIGESTED = ("results.parquet", "curves.parquet", "details.parquet", "table.md", "table.html")


@pytest.fixture
def out(tiny: Tiny, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    collect(tiny.experiment, tiny.results, folder)
    return folder


def at(rows: list[dict[str, Any]], point: tuple[int, int]) -> list[dict[str, Any]]:
    return [row for row in rows if (row["delay"], row["symbols"]) == point]


def test_scores_equal_a_plain_recomputation(tiny: Tiny, out: Path) -> None:
    found = read_table(out / "results.parquet").to_pylist()
    assert [(row["run"], row["delay"], row["symbols"]) for row in found] == [(run, *point) for run in tiny.rows for point in POINTS]
    for row in found:
        rows = at(tiny.rows[row["run"]], (row["delay"], row["symbols"]))
        scored = sum(len(item["hits"]) for item in rows)
        nats = sum(item["loss"] for item in rows)
        assert row["rows"] == len(rows) == 4
        assert row["accuracy"] == pytest.approx(sum(hit for item in rows for hit in item["hits"]) / scored, rel=1e-12)
        assert row["sequence_accuracy"] == sum(all(item["hits"]) for item in rows) / len(rows)
        assert row["loss"] == pytest.approx(nats / scored, rel=1e-12)
        assert row["loss_over_baseline"] == pytest.approx(nats / scored / FLOOR, rel=1e-12)
        left = [len(item["hits"]) * math.log2(4) - item["loss"] / math.log(2) for item in rows]
        assert row["bits"] == pytest.approx(max(0.0, sum(left) / len(rows)), rel=1e-9)


def test_identity_cost_and_chance(out: Path) -> None:
    for row in read_table(out / "results.parquet").to_pylist():
        assert row["experiment"] == "tiny"
        assert row["run"] == f"{row['label']}-s{row['seed']}"
        assert row["variant"] == (None if row["label"] == "lstm" else "control")
        assert (row["chance"], row["baseline"], row["unit"]) == (CHANCE, FLOOR, "nats per symbol")
        assert (row["parameters"], row["state_bytes"]) == ((120, 64) if row["label"] == "lstm" else (40, 0))
        assert (row["delay_least_trained"], row["delay_most_trained"]) == (1, 40)
        assert (row["symbols_least_trained"], row["symbols_most_trained"]) == (3, 3)


def test_coordinates_keep_their_dotted_names(out: Path) -> None:
    rows = read_table(out / "results.parquet").to_pylist()
    assert {row["network.mixer"] for row in rows} == {"lstm", "none"}
    assert {row["task.delay"] for row in rows} == {"40", '{"uniform":[1,40]}'}
    assert {row["learner.betas"] for row in rows} == {"[0.9,0.99]", None}


@pytest.mark.parametrize(
    ("run", "steps", "solved"),
    [("lstm-s0", (100, 200, 300), True), ("lstm-s1", (100, 200, 300), False), ("none-s0", (None, None, None), False)],
)
def test_milestones(out: Path, run: str, steps: tuple[int | None, ...], solved: bool) -> None:
    row = next(row for row in read_table(out / "results.parquet").to_pylist() if row["run"] == run)
    assert tuple(row[f"steps_to_{mark}"] for mark in (50, 90, 99)) == steps
    assert tuple(row[f"rows_to_{mark}"] for mark in (50, 90, 99)) == tuple(step and 32 * step for step in steps)
    assert row["solved"] is solved


def test_positions_equal_a_plain_recomputation(tiny: Tiny, out: Path) -> None:
    found = read_table(out / "details.parquet").to_pylist()
    assert len(found) == len(tiny.rows) * sum(symbols for _, symbols in POINTS)
    for row in found:
        hits = [item["hits"][row["position"]] for item in at(tiny.rows[row["run"]], (row["delay"], row["symbols"]))]
        assert row["accuracy"] == pytest.approx(sum(hits) / len(hits), rel=1e-12)
        assert row["rows"] == len(hits)


def test_curves_are_the_histories(out: Path) -> None:
    table = read_table(out / "curves.parquet")
    assert set(table.column_names) == {
        "experiment", "run", "label", "variant", "seed", "step", "rows", "level", "train_loss", "validation_loss", "validation_accuracy",
    }  # fmt: skip
    for run, accuracy in HISTORIES.items():
        assert [row["validation_accuracy"] for row in table.to_pylist() if row["run"] == run] == accuracy


def test_timing(out: Path) -> None:
    row = read_table(out / "timing.parquet").to_pylist()[0]
    assert (row["run"], row["cpu_seconds"], row["wall_seconds"]) == ("lstm-s0", 6.25, 12.5)
    assert [row[f"seconds_to_{mark}"] for mark in (50, 90, 99)] == [1.5, 3.0, 4.5]


def test_table_has_means_intervals_seeds_and_chance(tiny: Tiny, out: Path) -> None:
    lines = (out / "table.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| network"))
    assert (
        header == "| network | delay 20, symbols 2 (below training) | delay 20, symbols 3 | delay 50 (beyond training), symbols 3 | seeds |"
    )
    seeds = [at(tiny.rows[f"lstm-s{seed}"], POINTS[2]) for seed in (0, 1)]
    expected = summarise((sum(row["correct"] for row in rows) / sum(row["scored"] for row in rows) for rows in seeds), bounds=(0, 1))
    cells = next(line for line in lines if line.startswith("| LSTM")).split(" | ")
    assert cells[3] == f"{100 * expected.mean:.1f} [{100 * expected.low:.1f}, {100 * expected.high:.1f}]"
    assert cells[4] == "2 |"
    assert next(line for line in lines if line.startswith("| chance")) == "| chance | 25.0 | 25.0 | 25.0 |  |"


def test_table_shows_every_seed(tiny: Tiny, out: Path) -> None:
    section = (out / "table.md").read_text().split("## ")[2]
    assert section.startswith("Every seed: symbol accuracy (%)")
    found = [at(tiny.rows[f"lstm-s{seed}"], POINTS[2]) for seed in (0, 1)]
    seeds = [f"{100 * sum(row['correct'] for row in rows) / sum(row['scored'] for row in rows):.1f}" for rows in found]
    assert next(line for line in section.splitlines() if line.startswith("| LSTM")).rstrip(" |").split(" | ")[3] == " ".join(seeds)


def test_many_points_are_several_tables(tiny: Tiny, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for every value of the first column, with the cells that one table would have."""
    monkeypatch.setattr(summary, "WIDEST", 2)
    collect(tiny.experiment, tiny.results, tmp_path / "split")
    one, split = [(folder / "table.md").read_text().split("## ")[1:] for folder in (out, tmp_path / "split")]
    titles = [section.splitlines()[0] for section in split]
    assert titles[:4] == [f"{title}: {delay}" for title in ("Symbol accuracy (%)", "Every seed: symbol accuracy (%)") for delay in DELAYS]
    assert split[4:] == one[2:]
    for title, before, after in (("seeds", one[0], split[:2]), ("", one[1], split[2:4])):
        whole, (first, second) = table_of(before), [table_of(section) for section in after]
        assert [first[0], second[0]] == [
            ["network", "symbols 2 (below training)", "symbols 3", *([title] if title else [])],
            ["network", "symbols 3", *([title] if title else [])],
        ]
        joined = [left[:3] + right[1:] for left, right in zip(first[1:], second[1:], strict=True)]
        assert joined == whole[1:]
    assert "test rows per point and seed" in split[0] and "test rows" not in split[1]


DELAYS = ("delay 20", "delay 50 (beyond training)")


def table_of(section: str) -> list[list[str]]:
    """The cells of a Markdown table, without the line below its header."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return [lines[0], *lines[2:]]


def test_one_seed_has_the_interval_over_its_rows_and_says_so(tiny: Tiny, out: Path, tmp_path: Path) -> None:
    both = (out / "table.md").read_text()
    assert "¹" not in both
    spec = read_spec(tiny.experiment)
    write_spec(tiny.experiment, {**spec, "runs": [run for run in spec["runs"] if run["run"] == "lstm-s0"]})
    collect(tiny.experiment, tiny.results, tmp_path / "one")
    row = read_table(tmp_path / "one" / "results.parquet").to_pylist()[-1]
    assert 0 <= row["accuracy_low"] < row["accuracy"] < row["accuracy_high"] <= 1
    text = (tmp_path / "one" / "table.md").read_text()
    assert "¹ One seed: the interval is over its rows" in text
    written = " ".join(f"{100 * row[f'accuracy_{end}']:.1f}" for end in ("low", "high")).replace(" ", ", ")
    assert f"{100 * row['accuracy']:.1f} [{written}]¹" in text
    assert "Every seed" not in text


def test_a_network_that_was_not_measured_everywhere_still_has_its_learning(tiny: Tiny, tmp_path: Path) -> None:
    for seed in (0, 1):
        path = tiny.results / "evaluations" / f"lstm-s{seed}" / "test-1.parquet"
        table = read_table(path)
        write_table(path, table.filter([delay < 50 for delay in table.column("delay").to_pylist()]))
    collect(tiny.experiment, tiny.results, tmp_path / "out")
    accuracy, each, hardest, learning = (
        line for line in (tmp_path / "out" / "table.md").read_text().splitlines() if line.startswith("| LSTM")
    )
    assert accuracy.split(" | ")[3] == each.rstrip(" |").split(" | ")[3] == "–"
    assert hardest.count("–") == 6
    assert learning == "| LSTM | 120 | 3,200 (2/2) | 6,400 (2/2) | 9,600 (2/2) | 1/2 |"


class Cells(HTMLParser):
    """The text of every table cell."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.cells = False, []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("td", "th"):
            self.open = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.cells[-1] += data


def test_a_real_task_says_what_its_losses_are(tiny: Tiny, tmp_path: Path) -> None:
    spec = read_spec(tiny.experiment)
    write_spec(tiny.experiment, {**spec, "runs": [{**run, "unit": "squared error"} for run in spec["runs"]]})
    collect(tiny.experiment, tiny.results, tmp_path / "out")
    results = read_table(tmp_path / "out" / "results.parquet")
    assert set(results.column("unit").to_pylist()) == {"squared error"} and set(results.column("bits").to_pylist()) == {None}
    table = (tmp_path / "out" / "table.md").read_text()
    assert "loss (squared error)" in table and "nats" not in table
    baseline = next(line for line in table.splitlines() if line.startswith("| memoryless baseline"))
    assert baseline.split(" | ")[5] == "–"


def test_html_says_what_markdown_says_and_needs_nothing_else(out: Path) -> None:
    page, reader = (out / "table.html").read_text(), Cells()
    reader.feed(page)
    lines = [line for line in (out / "table.md").read_text().splitlines() if line.startswith("|") and "---" not in line]
    assert reader.cells == [cell.strip() for line in lines for cell in line.strip("|").split("|")]
    assert not re.search(r"(src|href|url)\s*[=(]", page)


def test_bytes_are_a_function_of_the_inputs(tiny: Tiny, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    collect(tiny.experiment, tiny.results, again)
    for name in DIGESTED:
        assert (out / name).read_bytes() == (again / name).read_bytes(), name


def test_seconds_touch_nothing_digested(tiny: Tiny, out: Path, tmp_path: Path) -> None:
    timing = tiny.results / "runs" / "lstm-s0" / "timing.parquet"
    write_table(timing, read_table(timing).set_column(1, "cpu_seconds", [[9.0] * 5]))
    again = tmp_path / "again"
    collect(tiny.experiment, tiny.results, again)
    for name in DIGESTED:
        assert (out / name).read_bytes() == (again / name).read_bytes(), name


def test_points_are_noted_for_the_figures(out: Path) -> None:
    note = json.loads(read_table(out / "results.parquet").schema.metadata[b"recurlab"])
    assert (note["coordinates"], note["points"]) == (["learner.betas", "network.mixer", "task.delay"], ["delay", "symbols"])
    assert note["measurement"] == {"name": "tokens", "version": 1}
    assert note["labels"] == {name: {"network.mixer": [name, ""]} for name in ("lstm", "none")}


def test_neither_torch_nor_matplotlib_is_imported(tiny: Tiny, tmp_path: Path) -> None:
    paths = ", ".join(f"Path({str(path)!r})" for path in (tiny.experiment, tiny.results, tmp_path / "out"))
    script = f"import sys; from pathlib import Path; from pipeline.evaluation.collect import collect; collect({paths}); "
    script += "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["runs/lstm-s0/history.parquet", "evaluations/none-s1/test-1.parquet", "profiles/net-lstm.parquet"])
def test_a_missing_input_is_named(tiny: Tiny, tmp_path: Path, name: str) -> None:
    (tiny.results / name).unlink()
    with pytest.raises(MissingFileError, match=re.escape(name)):
        collect(tiny.experiment, tiny.results, tmp_path / "out")


def test_a_damaged_input_is_named(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.results / "evaluations" / "lstm-s0" / "test-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=re.escape(str(path))):
        collect(tiny.experiment, tiny.results, tmp_path / "out")


def test_an_experiment_without_runs(tiny: Tiny, tmp_path: Path) -> None:
    write_spec(tiny.experiment, {"name": "tiny", "columns": [], "runs": []})
    with pytest.raises(UserError, match="runs: got an empty list, expected a list of at least 1"):
        collect(tiny.experiment, tiny.results, tmp_path / "out")
