"""Multi-query associative recall: every label against a dictionary, the layout, the distributions and the splits."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.base import FieldConflict
from pipeline.config.tasks import Mqar as Config
from pipeline.config.tasks import MqarEvaluation
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.mqar import Mqar
from tests.config.rich import SMALL, complaint

SPLITS = ("train", "validation", "test")


@st.composite
def configs(draw: Any) -> Config:
    """Possible configs, some with hardly room and hardly words."""
    few, many = sorted((draw(st.integers(1, 6)), draw(st.integers(1, 6))))
    forgetting = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    needed = 4 * many + 2 * round(forgetting * many)
    shortest = needed + draw(st.integers(0, 5))
    length = draw(st.just(shortest) | st.just({"uniform": (shortest, shortest + 7)}))
    return Config.model_validate(
        {
            "pairs": draw(st.just(many) | st.just({draw(st.sampled_from(["uniform", "log_uniform"])): (few, many)})),
            "length": length,
            "forgetting": forgetting,
            "vocab_size": 2 * (many + round(forgetting * many)) + draw(st.integers(2, 60)),
            "power_a": draw(st.sampled_from([0.01, 0.5, 1.0])),
            "filler": draw(st.sampled_from(["zero", "random"])),
            "updates": draw(st.sampled_from(["mixed", "last"])),
        }
    )


def generate(rows: int, *, key: int = 0, split: Any = "train", level: int | None = None, column: str | None = None, **fields: Any) -> Any:
    """Rows of a task with these fields."""
    return Mqar(Config(**fields)).generate(rows, derive_key("test", key), level, column, split)


def written(row: dict[str, Any], config: Config) -> list[tuple[int, int]]:
    """The pairs that a row begins with."""
    count = row["pairs"] + config.changed(row["pairs"])
    return list(zip(row["tokens"][: 2 * count : 2], row["tokens"][1 : 2 * count : 2], strict=True))


def answers(row: dict[str, Any], config: Config) -> dict[int, int]:
    """What each key must be answered with: a dictionary, written in the order of reading."""
    return dict(written(row, config))


def check_row(row: dict[str, Any], config: Config) -> None:
    """Assert everything that the task promises of one row."""
    tokens, half = row["tokens"], config.vocab_size // 2
    pairs, known = written(row, config), answers(row, config)
    assert len(tokens) == len(row["role"]) == row["length"]
    assert len(known) == row["pairs"] and all(0 < word < half for word in known)
    values = [value for _, value in pairs]
    assert len(set(values)) == len(values) and all(half <= value < config.vocab_size for value in values)
    assert max(Counter(word for word, _ in pairs).values()) <= 2
    asked = [place for place, role in enumerate(row["role"]) if role == 3]
    assert set(row["role"]) <= {0, 3}
    assert sorted(tokens[place] for place in asked) == sorted(known)
    assert all(place >= 2 * len(pairs) and place % 2 == 0 for place in asked)
    assert [known[tokens[place]] - half for place in asked] == row["target"]
    rest = [tokens[place] for place in range(2 * len(pairs), row["length"]) if place not in asked]
    assert not set(rest) & known.keys()
    assert max(rest, default=0) < config.vocab_size and (config.filler == "random" or not any(rest))


@settings(max_examples=150)
@given(config=configs(), rows=st.integers(0, 20), split=st.sampled_from(SPLITS), key=st.integers(0, 1000))
def test_every_row_is_what_the_dictionary_says(config: Config, rows: int, split: Any, key: int) -> None:
    batch = Mqar(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        check_row(row, config)
        assert row["length"] <= config.longest and max(row["tokens"]) < config.vocabulary and max(row["target"]) < config.classes


def test_the_answer_stands_behind_the_last_earlier_occurrence_of_the_key() -> None:
    """The rule that a network can learn needs neither the number of pairs nor their end."""
    for row in generate(300, length=40, pairs={"uniform": (1, 6)}, vocab_size=30, forgetting=0.5).to_pylist():
        tokens = row["tokens"]
        for place, answer in zip((place for place, role in enumerate(row["role"]) if role), row["target"], strict=True):
            before = max(earlier for earlier in range(place) if tokens[earlier] == tokens[place])
            assert tokens[before + 1] - 15 == answer


def test_the_rows_of_the_docstring() -> None:
    (row,) = generate(1, length=12, pairs=2, vocab_size=16, filler="zero").to_pylist()
    assert [len(row["tokens"]), len(row["target"]), row["length"], row["pairs"]] == [12, 2, 12, 2]
    schema = generate(2, length=12, pairs=2).schema
    assert [str(schema.field(name).type).split("<")[0] for name in ("tokens", "target")] == ["fixed_size_list", "fixed_size_list"]
    schema = generate(2, length={"uniform": (12, 14)}, pairs={"uniform": (1, 2)}).schema
    assert [str(schema.field(name).type).split("<")[0] for name in ("tokens", "target")] == ["list", "list"]


def test_the_sizes_of_the_paper_and_the_most_words() -> None:
    cases: list[dict[str, Any]] = [{"length": 512, "pairs": 64}, {"length": 512, "pairs": 128}, {"vocab_size": 65_536}]
    for fields in cases:
        for row in generate(5, **fields).to_pylist():
            check_row(row, Config(**fields))


def test_rows_depend_on_the_key_and_the_split_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"length": {"uniform": (30, 40)}, "pairs": {"uniform": (2, 5)}, "forgetting": 0.5, "vocab_size": 100}
    assert generate(50, **fields).equals(generate(50, **fields))
    seen = {tuple(row["tokens"]) for key in (0, 1) for split in SPLITS for row in generate(50, key=key, split=split, **fields).to_pylist()}
    assert len(seen) == 300
    monkeypatch.setattr("pipeline.tasks.mqar.CELLS", 700)  # seven rows at a time
    for row in generate(50, **fields).to_pylist():
        check_row(row, Config(**fields))


# Distributions


def chi_square(counts: Any) -> float:
    """Standard deviations by which counts are further from even than chance would have them."""
    counts = np.asarray(counts, float)
    freedom = len(counts) - 1
    return (((counts - counts.mean()) ** 2 / counts.mean()).sum() - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("words", [10, 60], ids=["shuffled", "drawn again"])
def test_every_choice_of_keys_and_of_values_is_equally_likely(words: int) -> None:
    tokens = np.array(generate(30_000, length=8, pairs=2, vocab_size=words, split="train").column("tokens").to_pylist())
    keys, values = Counter(map(tuple, tokens[:, [0, 2]])), Counter(map(tuple, tokens[:, [1, 3]]))
    assert len(keys) == len(list(permutations(range(1, words // 2), 2)))
    if words == 60:  # with few words the split's own rows are few, and their answers not quite even
        assert abs(chi_square(list(keys.values()))) < 5
        assert len(values) == len(list(permutations(range(words // 2), 2)))


def test_the_answer_cannot_be_guessed_from_its_key() -> None:
    batch = generate(60_000, length=16, pairs=4, vocab_size=20)
    tokens, target = np.array(batch.column("tokens").to_pylist()), np.array(batch.column("target").to_pylist())
    asked = np.array([list(role) for role in batch.column("role").to_pylist()]) == 3
    table = np.zeros((10, 10))
    np.add.at(table, (tokens[asked], target.ravel()), 1)
    best = table.max(axis=1).sum() / target.size
    assert best == pytest.approx(Config(vocab_size=20).chance, abs=0.01)
    assert Config(vocab_size=20).baseline == pytest.approx(math.log(10))


def places(alpha: float, pairs: int) -> np.ndarray:
    """The offset of each question from the end of the pairs, in twos, of rows with ten places for them."""
    batch = generate(20_000, length=2 * pairs + 20, pairs=pairs, power_a=alpha, vocab_size=1000)
    roles = np.array([list(role) for role in batch.column("role").to_pylist()])
    return np.nonzero(roles)[1].reshape(-1, pairs) // 2 - pairs


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0])
def test_questions_follow_the_power_law(alpha: float) -> None:
    law = np.arange(1, 11) ** (alpha - 1)
    law /= law.sum()
    single = np.bincount(places(alpha, 1)[:, 0], minlength=10) / 20_000
    assert single == pytest.approx(law, abs=0.015)
    both = Counter(map(tuple, places(alpha, 2).tolist()))
    for one, two in combinations(range(10), 2):
        expected = law[one] * law[two] / (1 - law[one]) + law[two] * law[one] / (1 - law[two])
        assert both[one, two] / 20_000 == pytest.approx(expected, abs=0.015)


def test_forgotten_values_stand_anywhere_before_the_one_that_counts() -> None:
    config = Config(length=40, pairs=4, forgetting=0.5, vocab_size=1000)
    first, again, asked = Counter(), Counter(), Counter()
    for row in Mqar(config).generate(6000, derive_key(3)).to_pylist():
        keys = [key for key, _ in written(row, config)]
        for key in {key for key in keys if keys.count(key) == 2}:
            one, two = (place for place, other in enumerate(keys) if other == key)
            first[one], again[two] = first[one] + 1, again[two] + 1
        asked[len({keys.index(key) for key in keys})] += 1
    assert asked == {4: 6000}
    expected = [(5 - place) / 15 for place in range(5)]  # of the pairs of six places
    assert [first[place] / 12_000 for place in range(5)] == pytest.approx(expected, abs=0.015)
    assert [again[5 - place] / 12_000 for place in range(5)] == pytest.approx(expected, abs=0.015)


def test_updates_may_stand_behind_all_other_pairs() -> None:
    """As zoology makes rows: every key once, then an ordered choice of them with new values, each such choice equally likely."""
    config = Config.model_validate(
        {"length": {"uniform": (30, 34)}, "pairs": {"uniform": (2, 4)}, "forgetting": 0.5, "updates": "last", "vocab_size": 200}
    )
    chosen: Counter[tuple[int, ...]] = Counter()
    for row in Mqar(config).generate(24_000, derive_key(4)).to_pylist():
        check_row(row, config)
        count, pairs = row["pairs"], written(row, config)
        first, second = pairs[:count], pairs[count:]
        keys = [key for key, _ in first]
        assert len(set(keys)) == count and len(second) == round(count / 2) == len({key for key, _ in second})
        known = dict(first)
        known |= dict(second)
        places = [place for place, role in enumerate(row["role"]) if role == 3]
        asked = {row["tokens"][place]: answer for place, answer in zip(places, row["target"], strict=True)}
        assert asked == {key: value - 100 for key, value in known.items()}
        chosen[count, *(keys.index(key) for key, _ in second)] += 1
    for count in (2, 3, 4):
        choices = list(permutations(range(count), round(count / 2)))
        assert abs(chi_square([chosen[count, *choice] for choice in choices])) < 5


def test_levels_bound_length_or_pairs() -> None:
    fields: dict[str, Any] = {"length": {"uniform": (24, 40)}, "pairs": {"uniform": (2, 6)}}
    assert set(generate(2000, level=26, **fields).column("length").to_pylist()) == {24, 25, 26}
    batch = generate(2000, level=3, column="pairs", **fields)
    assert set(batch.column("pairs").to_pylist()) == {2, 3} and len(set(batch.column("length").to_pylist())) == 17
    with pytest.raises(UserError, match="mqar: no row has pairs <= 1, the smallest is 2; start the curriculum there"):
        generate(3, level=1, column="pairs", **fields)


# Splits


def questions(batch: pa.RecordBatch, config: Config) -> set[frozenset[tuple[int, int]]]:
    return {frozenset(answers(row, config).items()) for row in batch.to_pylist()}


@pytest.mark.parametrize("forgetting", [0.0, 0.5])
def test_no_row_is_in_two_splits(forgetting: float) -> None:
    config = Config(length=30, pairs=4, vocab_size=16, forgetting=forgetting)
    found = {split: questions(Mqar(config).generate(6000, derive_key(split), split=split), config) for split in SPLITS}
    assert not any(found[one] & found[two] for one, two in combinations(SPLITS, 2))
    assert all(len(rows) > 1500 for rows in found.values())
    assert Mqar(config).overlap() == "Rows of one split never have all keys and their answers of another's."


def test_tasks_too_small_to_be_kept_apart_work_and_say_so() -> None:
    config = Config(length=12, pairs=2, vocab_size=10)
    found = [questions(Mqar(config).generate(3000, derive_key(split), split=split), config) for split in SPLITS]
    assert len(set(map(frozenset, found))) == 1
    assert "except rows of fewer than 6 pairs" in Mqar(config).overlap()
    assert "except rows of fewer than 2 pairs" in Mqar(Config.model_validate({"pairs": {"uniform": (1, 4)}, "vocab_size": 1000})).overlap()


# Entry


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 15}, "got 4 pairs in 15 tokens; expected at least 16 tokens"),
        ({"length": {"uniform": (19, 30)}, "forgetting": 0.5}, "got 4 pairs in 19 tokens; expected at least 20 tokens"),
        ({"vocab_size": 9}, "got 4 keys and 4 values in a row; vocab_size 9 has 3 and 5"),
        ({"vocab_size": 10, "forgetting": 0.5}, "got 4 keys and 6 values in a row; vocab_size 10 has 4 and 5"),
    ],
)
def test_what_does_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config(**fields)
    assert str(caught.value.errors()[0]["ctx"]["error"]) == message  # pyright: ignore[reportTypedDictNotRequiredAccess]


def test_the_evaluation_is_a_grid_of_lengths_and_pairs() -> None:
    task = Config.model_validate({"length": {"uniform": (32, 64)}, "pairs": {"uniform": (2, 8)}})
    assert [(point.length, point.pairs) for point in MqarEvaluation().points(task)] == [(64, 8)]
    grid = MqarEvaluation(lengths=[128, 64], pairs=[16, 4])
    assert [(point.length, point.pairs) for point in grid.points(task)] == [(64, 4), (64, 16), (128, 4), (128, 16)]
    with pytest.raises(FieldConflict, match="got 16 pairs in 32 tokens; expected at least 64 tokens"):
        MqarEvaluation(lengths=[32], pairs=[16]).points(task)


def test_impossible_configs_are_one_line(tmp_path: Any) -> None:
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "{name: mqar, pairs: 20}")
    assert complaint(text, tmp_path) == (4, "experiments.a.base.task.pairs", "got 20 pairs in 64 tokens; expected at least 80 tokens")
    text = SMALL.replace("{name: copy, symbols: 3, delay: 9}", "mqar\n      evaluate: {pairs: [4, 20]}")
    line, path, message = complaint(text, tmp_path)
    assert (line, path) == (5, "experiments.a.base.evaluate")
    assert message == "got 20 pairs in 64 tokens; expected at least 80 tokens, in a point of the evaluation"
