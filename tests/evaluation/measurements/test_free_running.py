"""What an evaluation says of free runs: columns per row, scores per point, the tables of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.config.catalogue import implementation
from pipeline.config.spec_files import read_spec, write_spec
from pipeline.config.tasks import Column, Copy, IsTree
from pipeline.evaluation import collect as collecting
from pipeline.evaluation.collect import collect
from pipeline.evaluation.evaluate import measured
from pipeline.evaluation.measurements import free_running, measurement_named
from pipeline.evaluation.measurements.free_running import BINS, TYPES
from pipeline.evaluation.schemas import with_kind
from pipeline.evaluation.statistics import summarise, wilson_interval
from pipeline.storage.loader import MemoryRows
from pipeline.storage.rng import derive_key
from pipeline.storage.tables import read_table, write_table
from pipeline.tasks.base import INJECTED
from pipeline.tasks.copy import Copy as CopyTask
from pipeline.tasks.vocabulary import EOS, FALSE, NODES, SEARCH, SEP, TRUE
from tests.evaluation.conftest import Tiny, points_of
from tests.evaluation.scripted import NAMES, Chains, Links, Policy, Scripted, decode_slowly, play

CPU = torch.device("cpu")
VOCABULARY = NODES + NAMES
ROWS = 60


def slip(tokens: list[int]) -> int:
    """The rule, but where a row's first name is a multiple of three: then the first name of the second link is another."""
    token, after = play(tokens), len(tokens) - tokens.index(SEP) - 1
    return NODES + (token - NODES + 1) % NAMES if after == 5 and token >= NODES and tokens[1] % 3 == 0 else token


def hesitate(tokens: list[int]) -> int:
    """The rule, but every query asks for SEARCH, and rows whose first name is odd never come to an end."""
    token, after = play(tokens), len(tokens) - tokens.index(SEP) - 1
    if after % 5 == 2:
        return SEARCH
    return token if token != EOS or tokens[1] % 2 == 0 else SEARCH


def rows_of_chains(rows: int = ROWS) -> MemoryRows:
    return MemoryRows.of("chains", Chains().generate(rows, derive_key("free", 0)))


def evaluation_of(network: Any, task: Any, rows: MemoryRows, name: str, kind: str = "free_running") -> pa.Table:
    return measured(network, task, rows, name, measurement_named(kind), CPU)


def evaluated(policy: Policy, rows: int = ROWS) -> Any:
    return evaluation_of(Scripted(policy, VOCABULARY), Chains(), rows_of_chains(rows), "chains-test")


def test_a_perfect_network_is_right_in_every_respect() -> None:
    table = evaluated(play)
    (point, *others) = points_of(table, "free_running")
    assert [point["length"], *(other["length"] for other in others)] == [2, 3, 4]
    for found in (point, *others):
        assert (found["accuracy"], found["forced_accuracy"], found["exact"], found["no_answer"], found["valid_queries"]) == (1, 1, 1, 0, 1)
        assert (found["accuracy_low"], found["accuracy_high"]) == wilson_interval(found["rows"], found["rows"])
        assert (found["first_error"], found["first_errors"]) == (None, [0] * BINS)
        assert found["queries"] >= 2 * found["rows"]


@pytest.mark.parametrize("policy", [play, slip], ids=["rule", "slip"])
def test_columns_equal_a_plain_recomputation(policy: Policy) -> None:
    network, rows = Scripted(policy, VOCABULARY), rows_of_chains()
    whole = rows.gather(np.arange(ROWS))
    budget = int(np.ceil(1.2 * (whole.roles > 0).sum(axis=1).max()))
    for row in evaluated(policy).to_pylist():
        tokens = whole.tokens[row["row"], : row["tokens"]].tolist()
        prompt, after = tokens[: tokens.index(SEP) + 1], tokens[tokens.index(SEP) + 1 :]
        found = decode_slowly(AsForward(network), np.array(prompt), Links(prompt), True, budget)
        pairs = list(zip(found.tokens, after, strict=False))
        expected = None if found.tokens == after else min(place for place, (one, other) in enumerate(pairs) if one != other)
        assert (row["continuation"], row["first_error"], row["exact"]) == (len(after), expected, expected is None)
        assert row["outcome"] == ("no answer" if not found.stopped else "correct" if found.tokens[-1] == after[-1] else "wrong")
        known = [found.tokens[place - 2] in prompt for place in found.injected]
        assert (row["queries"], row["valid_queries"]) == (len(known), sum(known))


class AsForward(Scripted):
    """The same rule asked for all positions of one row."""

    def __init__(self, network: Scripted) -> None:
        super().__init__(network.policy, network.classes)

    def forward(self, tokens_BT: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        last = torch.tensor([tokens_BT.shape[1] - 1])
        return super().forward(tokens_BT, last + 1, last)[0][None], None


def test_a_free_run_is_exact_where_every_choice_is_right_and_errs_first_where_the_first_is_wrong() -> None:
    table, rows = evaluated(slip), rows_of_chains()
    exact = 0
    for row in table.to_pylist():
        assert row["exact"] == (row["correct"] == row["scored"])
        roles = rows.gather(np.array([row["row"]])).roles[0]
        scored = np.flatnonzero(roles & 1) - int((roles > 0).argmax())
        wrong = [place for place, hit in zip(scored, row["hits"], strict=True) if not hit]
        assert row["first_error"] == (wrong[0] if wrong else None)
        exact += row["exact"]
    assert 0 < exact < ROWS


def test_rows_without_end_have_no_answer_and_queries_of_another_form_are_not_valid() -> None:
    table = evaluated(hesitate)
    assert set(table.column("outcome").to_pylist()) >= {"correct", "no answer"}
    assert sum(table.column("queries").to_pylist()) > 0 == sum(table.column("valid_queries").to_pylist())
    for row, tokens in zip(table.to_pylist(), rows_of_chains().gather(np.arange(ROWS)).tokens, strict=True):
        assert (row["outcome"] == "no answer") == bool(tokens[1] % 2)


def test_no_row_reads_beyond_the_context() -> None:
    """A row that never ends is stopped where the context is full; its last token is written and not read."""
    rows, read = rows_of_chains(), []
    longest = int(rows.lengths.max())

    def endless(tokens: list[int]) -> int:
        read.append(len(tokens))
        return SEARCH

    for context, expected in ((1 << 20, True), (longest, False)):
        read.clear()
        network = Scripted(endless, VOCABULARY)
        network.context = context
        assert set(evaluation_of(network, Chains(), rows, "chains-test").column("outcome").to_pylist()) == {"no answer"}
        assert (max(read) > longest) is expected
    assert max(read) == longest


def test_small_batches_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(slip)
    monkeypatch.setattr(free_running, "CHUNK", 7)
    monkeypatch.setattr(free_running, "STATE_BYTES", 8 * 60 * 3)
    assert evaluated(slip).equals(whole)


def test_other_tasks_have_the_columns_they_had() -> None:
    task = CopyTask(Copy(symbols=2, delay=3, alphabet=4))
    rows = MemoryRows.of("copy", task.generate(5, derive_key("free", 1)))
    table = evaluation_of(Scripted(lambda tokens: 0, 4), task, rows, "copy-test", "tokens")
    columns = ["tokens", "scored", "correct", "loss", "hits"]
    assert table.column_names == ["dataset", "row", "delay", "symbols", *columns, "state_bytes"]
    assert not {"forced_accuracy", "no_answer", "memory_bits"} & set(points_of(table)[0])
    assert measurement_named("free_running").refusal(task.config) == (
        "free_running measures rows that end with one answer; those of copy do not"
    )


class Held(Chains):
    """The small task, whose configuration says how much a row holds."""

    class Config(type(Chains().config)):
        @property
        def memory_bits(self) -> float:
            return 12.5

    def __init__(self) -> None:
        super().__init__()
        self.config = self.Config()


def test_what_a_row_holds_is_noted() -> None:
    table = evaluation_of(Scripted(play, VOCABULARY), Held(), rows_of_chains(9), "chains-test")
    assert {point["memory_bits"] for point in points_of(table, "free_running")} == {12.5}


OUTCOMES = ["correct", "correct", "wrong", "no answer"]
ERRORS = [None, 3, 0, 19]


@pytest.fixture
def free(tiny: Tiny) -> Tiny:
    """The tiny experiment, as if its networks had run freely: four rows a point, of which two end in the right answer and one is exact."""
    for run in tiny.rows:
        path = tiny.results / "evaluations" / run / "test-1.parquet"
        table = read_table(path)
        counts: dict[int, int] = {}
        turn = [counts.update({key: counts.get(key, -1) + 1}) or counts[key] for key in _points(table)]
        columns = {
            "outcome": pa.array([OUTCOMES[place] for place in turn]),
            "exact": pa.array([ERRORS[place] is None for place in turn]),
            "first_error": pa.array([ERRORS[place] for place in turn], pa.int32()),
            "continuation": pa.array([20] * len(turn), pa.int32()),
            "queries": pa.array([5] * len(turn), pa.int32()),
            "valid_queries": pa.array([place for place in turn], pa.int32()),
        }
        for name in TYPES:
            table = table.append_column(name, columns[name])
        write_table(path, with_kind(table, measurement_named("free_running")))
    return tiny


def _points(table: pa.Table) -> list[int]:
    return [
        100 * delay + symbols for delay, symbols in zip(*(table.column(name).to_pylist() for name in ("delay", "symbols")), strict=True)
    ]


def test_results_have_the_scores_of_free_runs(free: Tiny, tmp_path: Path) -> None:
    collect(free.experiment, free.results, tmp_path / "out")
    for row in read_table(tmp_path / "out" / "results.parquet").to_pylist():
        rows = [item for item in free.rows[row["run"]] if (item["delay"], item["symbols"]) == (row["delay"], row["symbols"])]
        forced = sum(sum(item["hits"]) for item in rows) / sum(len(item["hits"]) for item in rows)
        assert (row["accuracy"], row["forced_accuracy"]) == (0.5, pytest.approx(forced))
        assert (row["accuracy_low"], row["accuracy_high"]) == wilson_interval(2, 4)
        assert (row["no_answer"], row["exact"], row["first_error"]) == (0.25, 0.25, 3)
        assert row["first_errors"] == [1, 0, 0, 1] + [0] * 15 + [1]
        assert (row["queries"], row["valid_queries"]) == (20, 0.3)


def test_tables_show_free_runs_beside_teacher_forcing(free: Tiny, tmp_path: Path) -> None:
    collect(free.experiment, free.results, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    sections = {part.splitlines()[0]: part for part in text.split("## ")[1:]}
    title = "ight final answers, free running (%)"
    assert list(sections)[:3] == [f"R{title}", f"Every seed: r{title}", "Free running: delay 50 (beyond training), symbols 3"]
    cells = next(
        line for line in sections["Free running: delay 50 (beyond training), symbols 3"].splitlines() if line.startswith("| LSTM")
    ).split(" | ")
    half, quarter, third = (summarise([share, share], bounds=(0, 1)) for share in (0.5, 0.25, 0.3))
    expected = [f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]" for found in (half, quarter, quarter, third)]
    assert cells[1:6] == [*expected[:3], "3 [3, 3]", expected[3]]
    forced = summarise(
        sum(row["correct"] for row in rows) / sum(row["scored"] for row in rows)
        for rows in ([row for row in free.rows[f"lstm-s{seed}"] if row["delay"] == 50] for seed in (0, 1))
    )
    assert cells[6].startswith(f"{100 * forced.mean:.1f} [")
    assert "tokens, teacher-forced (%)" in sections["At the hardest point: delay 50 (beyond training), symbols 3"]
    page = (tmp_path / "out" / "table.html").read_text()
    assert "<h2>Free running: delay 50 (beyond training), symbols 3</h2>" in page


class Titled(Copy):
    """Copy, as if its numbers of symbols were names."""

    columns: ClassVar[Mapping[str, Column]] = {
        **Copy.columns,
        "symbols": Column("symbols", "symbols to remember", categories=("none", "one", "a pair", "a trio")),
    }


def test_values_that_are_names_are_written_as_names(free: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(collecting.TASKS, "copy", Titled)
    for run in free.rows:
        path = free.results / "runs" / run / "run.yaml"
        spec = read_spec(path)
        write_spec(path, {**spec, "task": {**spec["task"], "symbols": "a pair" if run.startswith("lstm") else ["one", "a pair"]}})
    collect(free.experiment, free.results, tmp_path / "out")
    header = next(line for line in (tmp_path / "out" / "table.md").read_text().splitlines() if line.startswith("| network"))
    assert (
        header == "| network | delay 20, symbols a pair | delay 20, symbols a trio | delay 50 (beyond training), symbols a trio | seeds |"
    )
    for row in read_table(tmp_path / "out" / "results.parquet").to_pylist():
        assert row["symbols_most_trained"] == row["symbols_least_trained"] == (2 if row["label"] == "lstm" else None)


def test_the_answer_alone_counts_where_there_is_no_trace() -> None:
    class Untraced(Chains):
        @property
        def traced(self) -> bool:
            return False

    rows = rows_of_chains(12)
    part = rows.gather(np.arange(12))
    answers = [int(tokens[length - 1]) for tokens, length in zip(part.tokens, part.lengths, strict=True)]
    table = evaluation_of(Scripted(lambda tokens: TRUE, VOCABULARY), Untraced(), rows, "chains-test")
    assert set(answers) == {TRUE, FALSE}
    assert [row["outcome"] == "correct" for row in table.to_pylist()] == [answer == TRUE for answer in answers]


class Replay:
    """Every true token of the rows it knows, but nonsense where a search is answered."""

    def __init__(self, rows: MemoryRows) -> None:
        whole = rows.gather(np.arange(len(rows)))
        self.rows = {}
        for tokens, roles, length in zip(whole.tokens.tolist(), whole.roles, whole.lengths, strict=True):
            begin = int((roles[:length] != 0).argmax())
            said = [0 if role == INJECTED else token for token, role in zip(tokens[:length], roles, strict=False)]
            self.rows[tuple(tokens[:begin])] = (tokens[:length], said)
        self.shortest = min(map(len, self.rows))

    def __call__(self, tokens: list[int]) -> int:
        known = (self.rows.get(tuple(tokens[:end])) for end in range(self.shortest, len(tokens) + 1))
        true, said = next(row for row in known if row)
        return said[len(tokens)] if tokens == true[: len(tokens)] else 0


@pytest.mark.parametrize(
    "fields",
    [{}, {"layout": "cot"}, {"layout": "icr"}, {"layout": "icr_regex"}, {"layout": "icr", "upstream": True}],
    ids=["direct", "cot", "icr", "icr_regex", "upstream"],
)
def test_is_tree_is_solved_by_who_says_every_token_and_searches(fields: dict[str, Any]) -> None:
    config = IsTree.model_validate({"nodes": 8, **fields})
    task = implementation(config)(config)
    rows = MemoryRows.of("is_tree", task.generate(12, derive_key("free", 2)))
    (point,) = points_of(evaluation_of(Scripted(Replay(rows), config.classes), task, rows, "is_tree-test"), "free_running", config.baseline)
    assert (point["accuracy"], point["exact"], point["no_answer"]) == (1, 1, 0)
    assert point["valid_queries"] == (1 if config.layout.startswith("icr") else None)
    assert point["memory_bits"] == config.memory_bits
    assert point["forced_accuracy"] == 1
