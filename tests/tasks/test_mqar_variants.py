"""Associative recall with keys of two words, and with keys of real numbers: every label against a look back, layout, splits."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.tasks import Mqar as Config
from pipeline.storage.rng import derive_key
from pipeline.tasks.mqar import Mqar

SPLITS = ("train", "validation", "test")


@st.composite
def configs(draw: Any, **fields: Any) -> Config:
    """Possible configs, some with hardly room and hardly words."""
    few, many = sorted((draw(st.integers(1, 11)), draw(st.integers(1, 11))))
    forgetting = draw(st.sampled_from([0.0, 0.3, 1.0]))
    again = round(forgetting * many)
    tokens = 3 if fields.get("compositional") else 2
    shortest = tokens * (2 * many + again) + draw(st.integers(0, 4))
    return Config.model_validate(
        {
            "pairs": draw(st.just(many) | st.just({"uniform": (few, many)})),
            "length": draw(st.just(shortest) | st.just({"uniform": (shortest, shortest + 7)})),
            "forgetting": forgetting,
            "vocab_size": 2 * (many + again) + 6 + draw(st.integers(0, 40)),
            "power_a": draw(st.sampled_from([0.01, 1.0])),
            "filler": draw(st.sampled_from(["zero", "random"])),
            **fields,
        }
    )


def generate(rows: int, split: Any = "train", **fields: Any) -> list[dict[str, Any]]:
    """Rows of a task with these fields, as plain Python."""
    return Mqar(Config(**fields)).generate(rows, derive_key("test", 0), split=split).to_pylist()


# Keys of two words


def triples(row: dict[str, Any], config: Config) -> list[tuple[tuple[int, int], int]]:
    """The pairs that a row begins with: a key of two words, and its value."""
    tokens, count = row["tokens"], row["pairs"] + config.changed(row["pairs"])
    return [((tokens[3 * pair], tokens[3 * pair + 1]), tokens[3 * pair + 2]) for pair in range(count)]


@settings(max_examples=100, deadline=None)
@given(config=configs(compositional=True), rows=st.integers(0, 12), split=st.sampled_from(SPLITS), key=st.integers(0, 1000))
def test_two_words_are_answered_as_the_dictionary_says(config: Config, rows: int, split: Any, key: int) -> None:
    batch = Mqar(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows and "values" not in batch.schema.names
    for row in batch.to_pylist():
        tokens, pairs = row["tokens"], triples(row, config)
        known = dict(pairs)
        assert len(tokens) == len(row["role"]) == row["length"] and len(known) == row["pairs"]
        assert len({value for _, value in pairs}) == len(pairs) and min(value for _, value in pairs) >= config.vocab_size // 2
        asked = [place for place, role in enumerate(row["role"]) if role == 3]
        assert sorted((tokens[place - 1], tokens[place]) for place in asked) == sorted(known)
        assert all((place - 1) % 3 == 0 and place > 3 * len(pairs) for place in asked)
        assert [known[tokens[place - 1], tokens[place]] - config.vocab_size // 2 for place in asked] == row["target"]
        rest = [token for place, token in enumerate(tokens[3 * len(pairs) :], 3 * len(pairs)) if not {place, place + 1} & set(asked)]
        words = {word for key in known for word in key}
        assert not words & set(rest) and all(0 < word < config.vocab_size // 2 for word in words)
        for place, answer in zip(asked, row["target"], strict=True):  # the last earlier occurrence decides
            before = max(early for early in range(place - 1) if tokens[early : early + 2] == tokens[place - 1 : place + 1])
            assert tokens[before + 2] - config.vocab_size // 2 == answer


@pytest.mark.parametrize("pairs", [*range(1, 21), 64])
def test_keys_lie_in_the_smallest_square_and_no_word_stands_in_one_key_only(pairs: int) -> None:
    config = Config(compositional=True, pairs=pairs, length=6 * pairs)
    for row in Mqar(config).generate(20, derive_key(pairs)).to_pylist():
        keys = [key for key, _ in triples(row, config)]
        firsts, seconds = Counter(key[0] for key in keys), Counter(key[1] for key in keys)
        assert max(len(firsts), len(seconds)) == math.ceil(math.sqrt(pairs)) and not set(firsts) & set(seconds)
        for counts in (firsts, seconds):
            assert max(counts.values()) - min(counts.values()) <= 1
            assert min(counts.values()) >= (2 if pairs == 4 or pairs >= 6 else 1)


@pytest.mark.parametrize("half", [0, 1])
def test_one_word_of_a_key_says_no_more_than_its_row_of_the_grid(half: int) -> None:
    config = Config(compositional=True, pairs=9, length=54, vocab_size=60)
    right, asked = 0, 0
    for row in Mqar(config).generate(3000, derive_key(1)).to_pylist():
        pairs = triples(row, config)
        for place, answer in zip((place for place, role in enumerate(row["role"]) if role == 3), row["target"], strict=True):
            first = next(value for key, value in pairs if key[half] == row["tokens"][place - 1 + half])
            right, asked = right + (first - 30 == answer), asked + 1
    assert right / asked == pytest.approx(1 / 3, abs=0.01)


def test_neither_the_key_nor_its_words_tell_the_value() -> None:
    tables = np.zeros((2, 10, 10))
    for row in generate(20_000, compositional=True, pairs=4, length=24, vocab_size=20):
        asked = [place for place, role in enumerate(row["role"]) if role == 3]
        for half in (0, 1):
            np.add.at(tables[half], ([row["tokens"][place - 1 + half] for place in asked], row["target"]), 1)
    best = tables.max(axis=2).sum(axis=1) / 80_000
    assert best == pytest.approx(np.full(2, Config(vocab_size=20).chance), abs=0.01)


@pytest.mark.parametrize("forgetting", [0.0, 0.5])
def test_no_row_of_two_words_is_in_two_splits(forgetting: float) -> None:
    config = Config(compositional=True, length=40, pairs=4, vocab_size=16, forgetting=forgetting)
    found = [
        {frozenset(dict(triples(row, config)).items()) for row in Mqar(config).generate(6000, derive_key(split), split=split).to_pylist()}
        for split in SPLITS
    ]
    assert not any(one & two for one, two in combinations(found, 2))


# Keys of real numbers


def numbers(row: dict[str, Any], features: int) -> list[tuple[float, ...]]:
    """What each token brings."""
    flat = row["values"]
    return [tuple(flat[place : place + features]) for place in range(0, len(flat), features)]


@settings(max_examples=100, deadline=None)
@given(
    config=st.integers(1, 5).flatmap(lambda features: configs(continuous=features)),
    rows=st.integers(0, 12),
    split=st.sampled_from(SPLITS),
    key=st.integers(0, 1000),
)
def test_real_keys_are_answered_as_the_dictionary_says(config: Config, rows: int, split: Any, key: int) -> None:
    batch = Mqar(config).generate(rows, derive_key(key), split=split)
    assert batch.num_rows == rows
    for row in batch.to_pylist():
        tokens, count = row["tokens"], row["pairs"] + config.changed(row["pairs"])
        assert len(row["values"]) == config.features * row["length"] and len(tokens) == row["length"]
        brought = numbers(row, config.features)
        assert [token == 1 for token in tokens] == [any(given) for given in brought]
        assert max(tokens) < config.vocabulary == config.classes + 2
        assert set(tokens[: 2 * count : 2]) == {1} and min(tokens[1 : 2 * count : 2]) >= 2
        known = dict(zip(brought[: 2 * count : 2], tokens[1 : 2 * count : 2], strict=True))
        asked = [place for place, role in enumerate(row["role"]) if role == 3]
        assert len(known) == row["pairs"] and sorted(brought[place] for place in asked) == sorted(known)
        assert all(place >= 2 * count and place % 2 == 0 and tokens[place] == 1 for place in asked)
        assert [known[brought[place]] - 2 for place in asked] == row["target"]
        others = [brought[place] for place in range(2 * count, row["length"]) if tokens[place] == 1 and place not in asked]
        assert len(set(others)) == len(others) and not set(others) & set(known)
        assert config.filler == "random" or not others


def test_real_keys_are_standard_normal_and_new_in_every_row_of_every_split() -> None:
    fields: dict[str, Any] = {"continuous": 3, "length": 24, "vocab_size": 40}
    batches = [generate(1500, split, **fields) for split in SPLITS]
    keys = [[key for row in rows for key in numbers(row, 3)[:8:2]] for rows in batches]
    assert len(set(sum(keys, []))) == 3 * 1500 * 4
    drawn = np.array(keys[0])
    assert (drawn.mean(0), drawn.std(0)) == (pytest.approx(np.zeros(3), abs=0.05), pytest.approx(np.ones(3), abs=0.05))
    assert np.corrcoef(drawn.T) == pytest.approx(np.eye(3), abs=0.05)
    fillers = [given for row in batches[0] for place, given in enumerate(numbers(row, 3)) if not row["role"][place] and any(given)]
    assert np.array(fillers).std(0) == pytest.approx(np.ones(3), abs=0.05)
    assert Mqar(Config(**fields)).overlap() == "No two rows share a key."


def test_real_keys_change_nothing_else_in_a_row() -> None:
    """The same key gives the same places, values and answers as with words."""
    fields: dict[str, Any] = {"length": 40, "vocab_size": 50, "forgetting": 0.5}
    for plain, real in zip(generate(200, **fields), generate(200, continuous=2, **fields), strict=True):
        assert (plain["role"], plain["target"]) == (real["role"], real["target"])
        assert [min(token, 1) if token < 25 else token - 23 for token in plain["tokens"]] == real["tokens"]


# Entry


@pytest.mark.parametrize("fields", [{"compositional": True, "length": 64}, {"continuous": 4}])
def test_chance_and_baseline_are_those_of_the_values(fields: dict[str, Any]) -> None:
    config = Config(vocab_size=20, **fields)
    assert (config.classes, config.chance, config.baseline) == (10, 0.1, math.log(10))
    assert (config.features, config.tolerance) == (fields.get("continuous", 0), None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compositional": True, "continuous": 2}, "got compositional and continuous; expected at most one of them"),
        ({"compositional": True, "length": 23}, "got 4 pairs in 23 tokens; expected at least 24 tokens"),
        ({"compositional": True, "length": 29, "forgetting": 0.5}, "got 4 pairs in 29 tokens; expected at least 30 tokens"),
        ({"compositional": True, "vocab_size": 9}, "got 4 words of keys and 4 values in a row; vocab_size 9 has 3 and 5"),
        ({"continuous": 2, "vocab_size": 9}, "got 4 keys and 4 values in a row; vocab_size 9 has 3 and 5"),
    ],
)
def test_what_does_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config(**fields)
    assert str(caught.value.errors()[0]["ctx"]["error"]) == message  # pyright: ignore[reportTypedDictNotRequiredAccess]
