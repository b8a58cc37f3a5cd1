from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.measurements.tokens import Tokens
from tests.evaluation.conftest import points_of

rows_of_hits = st.lists(st.lists(st.integers(0, 1), max_size=4), min_size=1, max_size=8)


def table(hits: list[list[int]], losses: list[float] | None = None, **metadata: list[int]) -> pa.Table:
    count = len(hits)
    scored = [len(row) for row in hits]
    columns = {
        "dataset": ["d"] * count,
        "row": list(range(count)),
        **metadata,
        "tokens": [10] * count,
        "state_bytes": [8] * count,
        "scored": pa.array(scored, pa.int32()),
        "correct": pa.array([sum(row) for row in hits], pa.int32()),
        "loss": pa.array(losses or [0.5 * size for size in scored], pa.float32()),
        "hits": pa.array(hits, pa.list_(pa.uint8())),
    }
    return pa.table(columns)


@given(rows_of_hits)
def test_accuracies_of_any_rows(hits: list[list[int]]) -> None:
    (point,) = points_of(table(hits), baseline=math.log(8))
    flat = [hit for row in hits for hit in row]
    assert point["scored"] == len(flat)
    assert point.get("accuracy") == (None if not flat else pytest.approx(np.mean(flat)))
    if flat:
        assert point["sequence_accuracy"] == pytest.approx(np.mean([all(row) for row in hits]))


@given(rows_of_hits)
def test_positions_of_any_rows(hits: list[list[int]]) -> None:
    found = Tokens().details(table(hits)).to_pylist()
    assert [point["position"] for point in found] == list(range(max(len(row) for row in hits)))
    for point in found:
        column = [row[point["position"]] for row in hits if len(row) > point["position"]]
        assert (point["rows"], point["accuracy"]) == (len(column), pytest.approx(np.mean(column)))


def test_points_are_the_distinct_metadata_in_order() -> None:
    found = points_of(table([[1], [0], [1], [1]], delay=[20, 5, 20, 5], symbols=[1, 1, 1, 1]), baseline=1.0)
    assert [(point["delay"], point["symbols"], point["accuracy"]) for point in found] == [(5, 1, 0.5), (20, 1, 1.0)]


def test_uniform_answers_recall_no_bits() -> None:
    (point,) = points_of(table([[1, 0]] * 3, [2 * math.log(8)] * 3), baseline=math.log(8))
    assert point["bits"] == pytest.approx(0.0, abs=1e-6)
    assert point["loss_over_baseline"] == pytest.approx(1.0)


def test_certain_answers_recall_every_bit_and_wrong_ones_none() -> None:
    (right,) = points_of(table([[1, 1]] * 3, [0.0] * 3), baseline=math.log(8))
    (wrong,) = points_of(table([[0, 0]] * 3, [50.0] * 3), baseline=math.log(8))
    assert (right["bits"], wrong["bits"]) == (pytest.approx(6.0), 0.0)


def test_squared_errors_are_no_bits() -> None:
    (point,) = points_of(table([[1, 0]] * 3, [0.5] * 3), baseline=1 / 6, unit="squared error")
    assert (point.get("bits"), point["loss"]) == (None, 0.25)
    assert point["loss_over_baseline"] == pytest.approx(1.5)


def test_no_rows_no_points() -> None:
    assert points_of(table([[1]]).slice(0, 0)) == []
