"""Every table that a stage reads, written and sealed in another form than its readers expect: one line names the file and the column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.evaluation import schemas
from pipeline.evaluation.collect import collect
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.schemas import read_collected, read_evaluation, read_history, read_profile, read_results, read_timing
from pipeline.storage.errors import CorruptFileError
from pipeline.storage.table_schema import Schema
from pipeline.storage.tables import read_table, write_table
from tests.evaluation.conftest import Tiny

READERS: dict[str, tuple[Callable[[Path], Any], Schema]] = {
    "evaluations/lstm-s0/test-1.parquet": (read_evaluation, schemas.evaluation_schema(measurement_named("tokens"))._replace(others=None)),
    "runs/lstm-s0/history.parquet": (read_history, schemas.HISTORY),
    "runs/lstm-s0/timing.parquet": (lambda path: read_timing(path, read_history(path.with_name("history.parquet"))), schemas.TIMING),
    "profiles/net-lstm.parquet": (read_profile, schemas.PROFILE),
    "experiments/tiny/results.parquet": (
        read_results,
        Schema({**schemas.RESULTS, **measurement_named("tokens").score_columns()}, ("run",)),
    ),
    **{f"experiments/tiny/{name}.parquet": (read_collected, schema) for name, schema in schemas.TABLES.items()},
}


@pytest.fixture
def made(tiny: Tiny) -> Path:
    """The results folder, collected."""
    collect(tiny.experiment, tiny.results, tiny.experiment.parent)
    return tiny.results


def refused(read: Callable[[Path], Any], path: Path, table: pa.Table, *words: str) -> None:
    """The table in place of the file is refused in one line that names the file and has these words."""
    write_table(path, table.replace_schema_metadata(read_table(path).schema.metadata))
    with pytest.raises(CorruptFileError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "; expected " in message, message
    assert all(word in message for word in words), message


def replaced(table: pa.Table, name: str, values: list[Any], kind: Any = None) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


@pytest.mark.parametrize("file", READERS)
def test_every_column_of_every_table_is_checked(file: str, made: Path) -> None:
    read, schema = READERS[file]
    path = made / file
    table = read_table(path)
    read(path)
    for name, column in schema.columns.items():
        if name not in table.column_names:
            assert column.optional
            continue
        where, rows = f"column {name}: ", len(table)
        if not column.optional:
            refused(read, path, table.drop_columns([name]), where)
        wrong: list[Any] = [1.5] * rows if column.type == "text" else ["1"] * rows
        if rows:
            refused(read, path, replaced(table, name, wrong), where, "; expected ")
        if rows and not column.null:
            refused(
                read,
                path,
                replaced(table, name, [None, *table.column(name).to_pylist()[1:]], table.schema.field(name).type),
                where,
                "1 of ",
            )
        low = -1 if column.type == "whole" else -0.5
        if rows and column.least is not None:
            refused(
                read,
                path,
                replaced(table, name, [low, *table.column(name).to_pylist()[1:]], table.schema.field(name).type),
                where,
                f"{low:g}",
            )
        if rows and column.most is not None:
            refused(
                read,
                path,
                replaced(table, name, [7, *table.column(name).to_pylist()[1:]], table.schema.field(name).type),
                where,
                "7; expected",
            )
    if len(table) and schema.key:
        refused(read, path, pa.concat_tables([table, table.slice(0, 1)]), "rows repeat ")
    refused(read, path, table.append_column(table.column_names[0], table.column(0)), "occurs twice")


@pytest.mark.parametrize("chosen", [slice(0, 6), slice(0, 12, 2)], ids=["first half", "every second"])
def test_half_of_an_evaluation_is_refused(chosen: slice, made: Path) -> None:
    path = made / "evaluations/lstm-s0/test-1.parquet"
    table = read_table(path)
    rows = {name: table.column("dataset").to_pylist().count(name) for name in ("copy-test-20", "copy-test-50")}
    assert len(read_evaluation(path, rows)[0]) == 12
    half = table.take(list(range(12))[chosen])
    refused(lambda path: read_evaluation(path, rows), path, half, "copy-test-20 (", "expected copy-test-20 (8), copy-test-50 (4)")


def test_what_an_evaluation_says_twice_must_agree(made: Path) -> None:
    path = made / "evaluations/lstm-s0/test-1.parquet"
    table = read_table(path)
    for name in ("scored", "correct"):
        values = table.column(name).to_pylist()
        values[3] += 1
        refused(
            read_evaluation,
            path,
            replaced(table, name, values, pa.int32()),
            f"column {name}: ",
            "row 3",
            "as hits say",
        )


def test_steps_ascend_and_timings_have_those_of_the_history(made: Path) -> None:
    path = made / "runs/lstm-s0/history.parquet"
    table = read_table(path)
    refused(read_history, path, table.take([1, 0, 2, 3, 4]), "column step: ")
    write_table(path, table.slice(0, 3))
    timing = path.with_name("timing.parquet")
    refused(READERS["runs/lstm-s0/timing.parquet"][0], timing, read_table(timing), "5 rows; expected the 3 steps of history.parquet")


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"points": ["delay"]}', b'{"points": 3, "coordinates": []}', b"\xff"])
def test_results_without_their_note_are_refused(note: bytes, made: Path) -> None:
    path = made / "experiments/tiny/results.parquet"
    write_table(path, read_table(path).replace_schema_metadata({b"recurlab": note} if note else None))
    with pytest.raises(CorruptFileError, match="no note of its coordinates and points; expected what 'pipeline collect' writes"):
        read_results(path)


def test_a_point_that_the_note_names_is_there(made: Path) -> None:
    path = made / "experiments/tiny/results.parquet"
    table = read_table(path)
    refused(read_results, path, table.drop_columns(["delay"]), "column delay: missing")
    refused(read_results, path, pa.concat_tables([table, table.slice(2, 1)]), "rows repeat a combination of run, label, delay, symbols")
