"""Parity: every label against a count of ones, the splits, and that one token alone says nothing."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.base import FieldConflict
from pipeline.config.tasks import LengthEvaluation
from pipeline.config.tasks import Parity as Config
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.parity import Parity
from tests.config.rich import SMALL, complaint

SPLITS = ("train", "validation", "test")


def generate(rows: int, length: Any, *, key: int = 0, split: Any = "train", level: int | None = None) -> Any:
    """Rows of these lengths."""
    return Parity(Config(length=length)).generate(rows, derive_key("test", key), level, split=split)


@given(
    bounds=st.tuples(st.integers(2, 30), st.integers(2, 30)).map(sorted).map(tuple),
    kind=st.sampled_from(["fixed", "uniform", "log_uniform"]),
    rows=st.integers(0, 20),
    split=st.sampled_from(SPLITS),
    key=st.integers(0, 1000),
)
def test_every_label_is_a_count_of_ones(bounds: Any, kind: str, rows: int, split: Any, key: int) -> None:
    config = Config.model_validate({"length": bounds[1] if kind == "fixed" else {kind: bounds}})
    batch = Parity(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        tokens = row["tokens"]
        assert len(tokens) == row["length"] <= config.longest and set(tokens) <= {0, 1}
        assert list(row["role"]) == [0] + [3] * (len(tokens) - 1)
        assert row["target"] == [tokens[: place + 1].count(1) % 2 for place in range(1, len(tokens))]


def test_rows_depend_on_the_key_and_the_split_only() -> None:
    spread = {"uniform": (30, 50)}
    assert generate(50, spread).equals(generate(50, spread))
    seen = {tuple(row) for key in (0, 1) for split in SPLITS for row in generate(50, 30, key=key, split=split).column("tokens").to_pylist()}
    assert len(seen) == 300


def test_a_bit_alone_says_nothing_about_its_label() -> None:
    batch = generate(20_000, 20)
    tokens, target = (np.array(batch.column(name).to_pylist()) for name in ("tokens", "target"))
    for place in range(1, 20):
        counts = np.bincount(2 * tokens[:, place] + target[:, place - 1], minlength=4)
        assert counts / 20_000 == pytest.approx(np.full(4, 0.25), abs=0.02)
    assert (Config().chance, Config().baseline) == (0.5, pytest.approx(math.log(2)))


def test_no_row_is_in_two_splits_but_short_ones_and_that_is_said() -> None:
    for length, apart in ((10, True), (9, False)):
        found = [set(map(tuple, generate(3000, length, split=split).column("tokens").to_pylist())) for split in SPLITS]
        assert any(one & two for one, two in combinations(found, 2)) is not apart
    assert Parity(Config(length=10)).overlap() == "No row is in two splits."
    assert "except rows of fewer than 10 tokens" in Parity(Config.model_validate({"length": {"uniform": (3, 40)}})).overlap()


def test_the_curriculum_bounds_the_length() -> None:
    assert set(generate(500, {"uniform": (4, 40)}, level=6).column("length").to_pylist()) == {4, 5, 6}
    with pytest.raises(UserError, match="parity: no row has length <= 3, the smallest is 4"):
        generate(5, {"uniform": (4, 40)}, level=3)


def test_lengths_are_measured_beyond_training() -> None:
    task = Config.model_validate({"length": {"uniform": (3, 40)}})
    assert [point.length for point in LengthEvaluation().points(task)] == [40]
    assert [point.length for point in LengthEvaluation(lengths=[256, 40]).points(task)] == [40, 256]
    with pytest.raises(FieldConflict, match="got a length of 1; expected at least 2 tokens"):
        LengthEvaluation(lengths=[1]).points(task)


def test_rows_without_an_answer_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValidationError, match="got a length of 1"):
        Config.model_validate({"length": {"log_uniform": (1, 40)}})
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "{name: parity, length: 1}")
    line, path, message = complaint(text, tmp_path)
    assert (line, path) == (4, "experiments.a.base.task.length")
    assert message == "got a length of 1; expected at least 2 tokens: the first is not scored"
