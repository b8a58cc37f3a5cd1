"""The adding problem: every sum added up again, the layout, the distributions and the splits."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tasks import Adding as Config
from pipeline.config.tasks import LengthEvaluation
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.adding import Adding
from tests.config.rich import SMALL, complaint

SPLITS = ("train", "validation", "test")


def generate(rows: int, *, key: int = 0, split: Any = "train", level: int | None = None, **fields: Any) -> Any:
    """Rows of a task with these fields."""
    return Adding(Config(**fields)).generate(rows, derive_key("test", key), level, split=split)


def marked(row: dict[str, Any]) -> list[float]:
    """The numbers to add."""
    return [value for value, token in zip(row["values"], row["tokens"], strict=True) if token == 1]


@given(
    bounds=st.tuples(st.integers(3, 20), st.integers(3, 20)).map(sorted).map(tuple),
    kind=st.sampled_from(["fixed", "uniform", "log_uniform"]),
    rows=st.integers(0, 20),
    split=st.sampled_from(SPLITS),
    key=st.integers(0, 1000),
)
def test_every_answer_is_the_sum_of_the_marked_numbers(bounds: Any, kind: str, rows: int, split: Any, key: int) -> None:
    config = Config.model_validate({"length": bounds[1] if kind == "fixed" else {kind: bounds}})
    batch = Adding(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        half = row["length"] // 2
        first, second = row["tokens"][:half], row["tokens"][half:]
        assert len(row["tokens"]) == len(row["values"]) == row["length"] <= config.longest
        assert sorted(first) == [0] * (len(first) - 1) + [1] and sorted(second) == [0] * (len(second) - 1) + [1]
        assert second[-1] == 0
        assert list(row["role"]) == [0] * (row["length"] - 1) + [3]
        assert row["target"] == [pytest.approx(sum(marked(row)), abs=1e-6)]
        assert all(0 <= value < 1 for value in row["values"])


def test_rows_depend_on_the_key_and_the_split_only() -> None:
    fields: dict[str, Any] = {"length": {"uniform": (20, 40)}}
    assert generate(50, **fields).equals(generate(50, **fields))
    rows = [generate(50, key=key, split=split).column("values").to_pylist() for key in (0, 1) for split in SPLITS]
    assert len({tuple(row) for part in rows for row in part}) == 300


def test_marks_and_numbers_are_uniform_and_independent() -> None:
    batch = generate(40_000, length=9)
    first, second = np.nonzero(np.array(batch.column("tokens").to_pylist()))[1].reshape(-1, 2).T
    places = np.bincount(4 * first + second - 4, minlength=16)
    assert places / 40_000 == pytest.approx(np.full(16, 1 / 16), abs=0.005)
    numbers = np.array([marked(row) for row in batch.to_pylist()])
    cells = np.bincount((10 * np.floor(10 * numbers[:, 0]) + np.floor(10 * numbers[:, 1])).astype(int), minlength=100)
    assert cells / 40_000 == pytest.approx(np.full(100, 1 / 100), abs=0.003)
    others = np.array(batch.column("values").to_pylist())[:, 8]
    assert np.histogram(others, 10, (0, 1))[0] / 40_000 == pytest.approx(np.full(10, 1 / 10), abs=0.01)
    assert abs(np.corrcoef(others, numbers.sum(1))[0, 1]) < 0.02


def test_chance_and_baseline_are_those_of_always_answering_one() -> None:
    target = np.array(generate(100_000, length=3).column("target").to_pylist())[:, 0]
    config = Config()
    assert (np.abs(target - 1) <= 0.04).mean() == pytest.approx(config.chance, abs=0.003)
    assert ((target - 1) ** 2).mean() == pytest.approx(config.baseline, abs=0.002)
    assert (config.chance, config.baseline) == pytest.approx((0.0784, 1 / 6))


def test_no_two_numbers_are_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of few different values, so that rows would meet if nothing kept them apart."""
    generator = np.random.Generator.random
    coarse = type("Coarse", (np.random.Generator,), {"random": lambda self, *args: np.floor(generator(self, *args) * 30) / np.float32(30)})
    monkeypatch.setattr("pipeline.tasks.adding.generator", lambda key: coarse(np.random.Philox(key[0])))
    found = [{tuple(marked(row)) for row in generate(6000, length=5, split=split).to_pylist()} for split in SPLITS]
    assert not any(one & two for one, two in combinations(found, 2))
    assert len(set.union(*found)) > 850
    assert Adding(Config()).overlap() == "No two marked numbers are in two splits."


def test_the_curriculum_bounds_the_length() -> None:
    assert set(generate(500, length={"log_uniform": (4, 40)}, level=6).column("length").to_pylist()) == {4, 5, 6}
    with pytest.raises(UserError, match="adding: no row has length <= 3, the smallest is 4"):
        generate(5, length={"uniform": (4, 40)}, level=3)


def test_lengths_are_measured_beyond_training() -> None:
    assert [point.length for point in LengthEvaluation(lengths=[400, 50]).points(Config())] == [50, 400]


def test_rows_too_short_are_one_line(tmp_path: Any) -> None:
    expected = "got a length of 2; expected at least 3 tokens: two marked numbers and the question"
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "{name: adding, length: 2}")
    assert complaint(text, tmp_path) == (4, "experiments.a.base.task.length", expected)
