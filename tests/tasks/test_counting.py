"""Counting: yes and no are equally likely whatever is known without counting, and nothing tells which letter will be asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.config.tasks import Counting as Config
from pipeline.storage.rng import derive_key
from pipeline.tasks.counting import Counting
from pipeline.tasks.vocabulary import CNT, NODES, TRUE

ROWS = 12_000


def table(rows: int = ROWS, split: Any = "train", **fields: Any) -> dict[str, np.ndarray]:
    """Letters (-1 behind the row), the letter asked for, k, its count and the answer."""
    config = Config(**fields)
    found = Counting(config).generate(rows, derive_key(7), split=split).to_pylist()
    width = max(row["length"] for row in found)
    letters = np.array([[*row["tokens"][1 : row["length"] + 1], *[NODES - 1] * (width - row["length"])] for row in found]) - NODES
    place = [row["tokens"].index(CNT) for row in found]
    letter = np.array([row["tokens"][at - 1] for row, at in zip(found, place, strict=True)]) - NODES
    bound = np.array([row["tokens"][at + 1] for row, at in zip(found, place, strict=True)]) - NODES - config.alphabet
    return {
        "letters": letters,
        "letter": letter,
        "bound": bound,
        "count": (letters == letter[:, None]).sum(axis=1),
        "true": np.array([row["tokens"][-1] == TRUE for row in found]),
        "length": np.array([row["length"] for row in found]),
    }


@pytest.mark.parametrize("margin", ["one", "any"])
@pytest.mark.parametrize("rows", [0, 1, 2, 101, 400])
def test_half_of_all_rows_are_true(margin: Any, rows: int) -> None:
    batch = Counting(Config(margin=margin)).generate(rows, derive_key(rows))
    assert sum(row[-1] == TRUE for row in batch.column("tokens").to_pylist()) in {rows // 2, rows - rows // 2}


def test_the_bound_is_the_count_or_one_more() -> None:
    found = table()
    assert (found["bound"] == found["count"] + ~found["true"]).all()
    far = table(margin="any", length=20, alphabet=2)
    assert set((far["bound"] - far["count"]).tolist()) >= set(range(-18, 19))  # so that no remainder of a count is enough


@pytest.mark.parametrize("margin", ["one", "any"])
def test_the_answer_does_not_follow_from_the_question(margin: Any) -> None:
    found = table(margin=margin, length={"uniform": (8, 16)}, alphabet=4)
    for known in ("bound", "letter", "length"):
        for value in set(found[known].tolist()):
            chosen = found["true"][found[known] == value]
            assert abs(chosen.sum() - len(chosen) / 2) < 4 * np.sqrt(len(chosen)) / 2, (known, value)


@pytest.mark.parametrize("margin", ["one", "any"])
def test_no_simple_classifier_beats_chance(margin: Any) -> None:
    """Least squares on what is known without asking which letters are the one asked for."""
    found = table(margin=margin, length={"uniform": (8, 12)}, alphabet=4)
    bound, sign = found["bound"][:, None], np.where(found["true"], 1.0, -1.0)
    hot = [
        np.eye(5)[found["letters"]].reshape(ROWS, -1),
        np.eye(4)[found["letter"]],
        np.eye(14)[found["bound"]],
        np.eye(13)[found["length"]],
    ]
    features = np.concatenate([*hot, bound / found["length"][:, None]], axis=1)
    weights = np.linalg.lstsq(features[: ROWS // 2], sign[: ROWS // 2], rcond=None)[0]
    assert (np.sign(features[ROWS // 2 :] @ weights) == sign[ROWS // 2 :]).mean() == pytest.approx(0.5, abs=0.02)
    assert (np.sign(found["count"] - found["bound"] + 0.5) == sign).all()


@pytest.mark.parametrize("margin", ["one", "any"])
@pytest.mark.parametrize("alphabet", [2, 4])
def test_nothing_tells_which_letter_will_be_asked_for(margin: Any, alphabet: int) -> None:
    found = table(margin=margin, length=24, alphabet=alphabet)
    counts = np.array([(found["letters"] == letter).sum(axis=1) for letter in range(alphabet)]).T
    drawn = np.random.default_rng(0).random(counts.shape)  # ties in any order
    rank = np.argsort(np.argsort(counts + drawn, axis=1), axis=1)[np.arange(ROWS), found["letter"]]
    assert np.bincount(rank) / ROWS == pytest.approx(np.full(alphabet, 1 / alphabet), abs=0.05)
    assert np.bincount(found["letter"]) / ROWS == pytest.approx(np.full(alphabet, 1 / alphabet), abs=0.02)


@pytest.mark.parametrize("margin", ["one", "any"])
def test_counts_are_as_likely_as_the_entry_says(margin: Any) -> None:
    found = table(margin=margin, length=12, alphabet=3)
    likely = Config(margin=margin, length=12, alphabet=3).counts(12)
    assert sum(likely) == pytest.approx(1)
    assert np.bincount(found["count"], minlength=13) / ROWS == pytest.approx(likely, abs=0.012)
    for place in range(12):
        assert (found["letters"][:, place] == found["letter"]).sum() == pytest.approx(found["count"].mean() / 12 * ROWS, rel=0.06)
