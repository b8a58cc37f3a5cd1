"""Induction heads: every label against a look back through the row, the layout, the distributions and the splits."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tasks import Induction as Config
from pipeline.config.tasks import LengthEvaluation
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.induction import Induction
from tests.config.rich import SMALL, complaint

SPLITS = ("train", "validation", "test")


def generate(rows: int, *, key: int = 0, split: Any = "train", level: int | None = None, **fields: Any) -> Any:
    """Rows of a task with these fields."""
    return Induction(Config(**fields)).generate(rows, derive_key("test", key), level, split=split)


@given(
    bounds=st.tuples(st.integers(3, 20), st.integers(3, 20)).map(sorted).map(tuple),
    kind=st.sampled_from(["fixed", "uniform", "log_uniform"]),
    alphabet=st.integers(2, 20),
    rows=st.integers(0, 20),
    split=st.sampled_from(SPLITS),
    key=st.integers(0, 1000),
)
def test_every_answer_follows_the_special_token(bounds: Any, kind: str, alphabet: int, rows: int, split: Any, key: int) -> None:
    config = Config.model_validate({"length": bounds[1] if kind == "fixed" else {kind: bounds}, "alphabet": alphabet})
    batch = Induction(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        *before, last = row["tokens"]
        assert len(row["tokens"]) == row["length"] <= config.longest
        assert list(row["role"]) == [0] * len(before) + [3]
        assert last == alphabet and before.count(alphabet) == 1
        assert row["target"] == [before[before.index(alphabet) + 1]]
        assert set(before) <= set(range(alphabet + 1)) and row["target"][0] < config.classes < config.vocabulary


def test_rows_depend_on_the_key_and_the_split_only() -> None:
    fields: dict[str, Any] = {"length": {"uniform": (20, 40)}}
    assert generate(50, **fields).equals(generate(50, **fields))
    rows = [generate(50, key=key, split=split).column("tokens").to_pylist() for key in (0, 1) for split in SPLITS]
    assert len({tuple(row) for part in rows for row in part}) == 300


def test_the_place_and_the_answer_are_uniform_and_independent() -> None:
    batch = generate(40_000, length=12, alphabet=5)
    place = np.argmax(np.array(batch.column("tokens").to_pylist()) == 5, axis=1)
    both = np.bincount(5 * place + np.array(batch.column("target").to_pylist())[:, 0], minlength=50)
    assert both / 40_000 == pytest.approx(np.full(50, 1 / 50), abs=0.004)
    assert (Config(alphabet=5).chance, Config(alphabet=5).baseline) == pytest.approx((1 / 5, math.log(5)))


def test_no_letter_of_a_place_gives_the_answer_away() -> None:
    """What stands at one place is right by chance, but for the one time in ten that it is the answer; one in ten it is the special token."""
    batch = generate(40_000, length=12, alphabet=5)
    tokens, target = np.array(batch.column("tokens").to_pylist()), np.array(batch.column("target").to_pylist())[:, 0]
    for place in range(1, 11):
        assert (tokens[:, place] == target).mean() == pytest.approx(0.1 + (0.8 if place < 10 else 0.9) * 0.2, abs=0.01)
    assert set(tokens[:, 11]) == {5}


def test_no_row_is_in_two_splits_but_short_ones_and_that_is_said() -> None:
    for length, apart in ((6, True), (5, False)):
        found = [set(map(tuple, generate(8000, length=length, alphabet=6, split=split).column("tokens").to_pylist())) for split in SPLITS]
        assert any(one & two for one, two in combinations(found, 2)) is not apart
    assert Induction(Config(length=6, alphabet=6)).overlap() == "No row is in two splits."
    assert "except rows of fewer than 5 tokens" in Induction(Config(length=4)).overlap()


def test_the_curriculum_bounds_the_length() -> None:
    assert set(generate(500, length={"log_uniform": (4, 40)}, level=6).column("length").to_pylist()) == {4, 5, 6}
    with pytest.raises(UserError, match="induction: no row has length <= 3, the smallest is 4"):
        generate(5, length={"uniform": (4, 40)}, level=3)


def test_lengths_are_measured_beyond_training() -> None:
    points = LengthEvaluation(lengths=[1024, 64]).points(Config())
    assert [(point.length, point.alphabet) for point in points] == [(64, 15), (1024, 15)]


def test_rows_too_short_are_one_line(tmp_path: Any) -> None:
    expected = "got a length of 2; expected at least 3 tokens: the special token, its letter and the special token again"
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "{name: induction, length: 2}")
    assert complaint(text, tmp_path) == (4, "experiments.a.base.task.length", expected)
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "induction\n      evaluate: {lengths: [2, 64]}")
    assert complaint(text, tmp_path) == (5, "experiments.a.base.evaluate", f"{expected}, in a point of the evaluation")
