"""The metadata columns that tasks declare: each says what it is, in which unit, and what an axis calls it."""

from __future__ import annotations

import pytest

from pipeline.config.tasks import TASKS
from pipeline.config.tasks.base import Column

COLUMNS = [pytest.param(column, id=f"{task}.{name}") for task, entry in TASKS.items() for name, column in entry.columns.items()]


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_has_label_meaning_and_unit(column: Column) -> None:
    assert column.label and column.meaning
    assert not (column.unit and column.categories), "numbers have a unit, categories have names"
    assert column.unit or column.categories or not column.point, "only what names a row, such as an identifier, has neither"
    assert len(set(column.categories)) == len(column.categories)


def test_the_label_of_an_axis_has_the_unit_once() -> None:
    assert Column("delay", "tokens before the answer", "tokens").axis == "delay (tokens)"
    assert Column("pairs", "different keys", "pairs").axis == "pairs"
    assert Column("family", "kind of graph", categories=("star", "path")).axis == "family"
