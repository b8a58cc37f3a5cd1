"""The word problem of a group: every label against things that are moved about, the groups, and that one token alone says nothing."""

from __future__ import annotations

import math
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tasks import GroupWord as Config
from pipeline.config.tasks import LengthEvaluation
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.group_word import GroupWord, elements
from tests.config.rich import SMALL, complaint

SPLITS = ("train", "validation", "test")
GROUPS = ("S3", "A5", "S5")


def generate(rows: int, length: Any, group: Any, *, key: int = 0, split: Any = "train", level: int | None = None) -> Any:
    """Rows of a group and these lengths."""
    return GroupWord(Config(length=length, group=group)).generate(rows, derive_key("test", key), level, split=split)


def swaps(item: tuple[int, ...]) -> int:
    """Exchanges that sort a permutation."""
    things, count = list(item), 0
    for place in range(len(things)):
        while things[place] != place:
            other = things[place]
            things[place], things[other] = things[other], things[place]
            count += 1
    return count


def numbered(group: str) -> list[tuple[int, ...]]:
    """The permutations of a group, as the page describes them."""
    everything = sorted(permutations(range(3 if group == "S3" else 5)))
    return [item for item in everything if group != "A5" or swaps(item) % 2 == 0]


def products(tokens: list[int], group: str) -> list[int]:
    """The number of the arrangement that each permutation leaves, from things laid out in order."""
    known = numbered(group)
    things, found = list(range(len(known[0]))), []
    for token in tokens:
        things = [things[place] for place in known[token]]
        found.append(known.index(tuple(things)))
    return found


@given(
    bounds=st.tuples(st.integers(2, 12), st.integers(2, 12)).map(sorted).map(tuple),
    kind=st.sampled_from(["fixed", "uniform", "log_uniform"]),
    group=st.sampled_from(GROUPS),
    rows=st.integers(0, 8),
    split=st.sampled_from(SPLITS),
    key=st.integers(0, 1000),
)
def test_every_label_is_the_product_of_all_so_far(bounds: Any, kind: str, group: Any, rows: int, split: Any, key: int) -> None:
    config = Config.model_validate({"length": bounds[1] if kind == "fixed" else {kind: bounds}, "group": group})
    batch = GroupWord(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        assert len(row["tokens"]) == row["length"] <= config.longest
        assert list(row["role"]) == [0] + [3] * (row["length"] - 1)
        assert row["target"] == products(row["tokens"], group)[1:]
        assert max(row["tokens"] + row["target"]) < config.classes == config.vocabulary - 1


def test_the_row_of_the_docstring() -> None:
    assert products([1, 2, 0, 5, 5], "S3") == [1, 4, 4, 2, 4]


@pytest.mark.parametrize("group", GROUPS)
def test_the_elements_are_a_group(group: Any) -> None:
    config = Config(group=group)
    table = GroupWord(config).product_GG
    size = len(elements(group))
    assert elements(group) == numbered(group)
    assert table.shape == (size, size) == (config.classes, config.classes)
    assert (table[0] == np.arange(size)).all() and (table[:, 0] == np.arange(size)).all()
    assert (np.sort(table, axis=0) == np.arange(size)[:, None]).all() and (np.sort(table, axis=1) == np.arange(size)).all()
    assert (table[table] == table[:, table]).all()  # (ab)c = a(bc)
    assert (table != table.T).any()


def test_rows_depend_on_the_key_and_the_split_only() -> None:
    spread = {"uniform": (5, 9)}
    assert generate(50, spread, "A5").equals(generate(50, spread, "A5"))
    rows = [generate(50, 9, "A5", key=key, split=split).column("tokens").to_pylist() for key in (0, 1) for split in SPLITS]
    assert len({tuple(row) for part in rows for row in part}) == 300


def deviation(counts: np.ndarray) -> float:
    """Standard deviations by which counts are further from even than chance would have them: chi-square's."""
    freedom = counts.size - 1
    return float((((counts - counts.mean()) ** 2 / counts.mean()).sum() - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("group", GROUPS)
def test_elements_and_labels_are_uniform_and_independent(group: Any) -> None:
    batch, size = generate(80_000, 8, group), Config(group=group).classes
    tokens, target = (np.array(batch.column(name).to_pylist()) for name in ("tokens", "target"))
    for place in range(1, 8):
        assert abs(deviation(np.bincount(tokens[:, place], minlength=size))) < 5
        both = np.bincount(size * tokens[:, place] + target[:, place - 1], minlength=size * size)
        assert abs(deviation(both)) < 5
    assert (Config(group=group).chance, Config(group=group).baseline) == pytest.approx((1 / size, math.log(size)))


def test_no_row_is_in_two_splits_but_short_ones_and_that_is_said() -> None:
    for group, length, apart in (("S3", 4, True), ("S3", 3, False), ("S5", 2, True)):
        found = [set(map(tuple, generate(3000, length, group, split=split).column("tokens").to_pylist())) for split in SPLITS]
        assert any(one & two for one, two in combinations(found, 2)) is not apart
    assert GroupWord(Config(length=2)).overlap() == "No row is in two splits."
    assert "except rows of fewer than 4 tokens" in GroupWord(Config(length=3, group="S3")).overlap()


def test_the_curriculum_bounds_the_length() -> None:
    assert set(generate(500, {"uniform": (4, 40)}, "S3", level=6).column("length").to_pylist()) == {4, 5, 6}
    with pytest.raises(UserError, match="group_word: no row has length <= 3, the smallest is 4"):
        generate(5, {"uniform": (4, 40)}, "S3", level=3)


def test_every_length_is_measured_on_the_same_group() -> None:
    points = LengthEvaluation(lengths=[64, 8]).points(Config(group="A5"))
    assert [(point.length, point.group) for point in points] == [(8, "A5"), (64, "A5")]


def test_mistakes_are_one_line(tmp_path: Any) -> None:
    for written, path, message in (
        ("length: 1", "length", "got a length of 1; expected at least 2 tokens: the first is not scored"),
        ("group: s3", "group", "got 's3'; expected one of A5, S3, S5"),
    ):
        text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", f"{{name: group_word, {written}}}")
        assert complaint(text, tmp_path) == (4, f"experiments.a.base.task.{path}", message)
