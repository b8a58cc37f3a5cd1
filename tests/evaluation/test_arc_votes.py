"""Votes on ARC's test pairs: ranking, pass@k and the submission, against counts in plain Python."""

from __future__ import annotations

import copy
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tasks import Arc as Config
from pipeline.evaluation.arc_votes import Candidate, as_grid, check_submission, count_votes, pass_at, ranked, submission
from pipeline.evaluation.measurements.arc import ATTEMPTS
from pipeline.storage.errors import UserError
from pipeline.tasks.arc import Arc
from pipeline.tasks.arc_grids import augment, encode

Q = st.floats(0, 1, allow_subnormal=False)
NAMES = ["one", "two", "three"]
SHAPES = [[[1, 2]], [[1], [2]], [[0]], [[3, 4], [5, 6]]]
"""Grids to answer with."""
PREDICTION = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1000), st.integers(0, len(SHAPES) - 1), Q)
"""Puzzle, pair, symmetry, answer, q."""
SOLUTIONS = {(group, pair): np.array(SHAPES[(group + pair) % len(SHAPES)]) for group in range(3) for pair in range(2)}


def votes(predictions: list[tuple[int, int, int, int, float]]) -> Any:
    """Count predictions: each answers with a grid under the symmetry that it was asked under."""
    tokens = np.stack([encode(augment(np.array(SHAPES[shape]), NAMES[group], k), 4) for group, _, k, shape, _ in predictions])
    group, pair, k, _, q = (np.array(values) for values in zip(*predictions, strict=True))
    return count_votes(NAMES, group, pair, k, tokens, q)


@settings(max_examples=50)
@given(predictions=st.lists(PREDICTION, min_size=1, max_size=20), order=st.randoms())
def test_votes_are_counted_in_any_order(predictions: list[Any], order: Any) -> None:
    found = votes(predictions)
    shuffled = list(predictions)
    order.shuffle(shuffled)
    assert votes(shuffled) == found
    for (group, pair), candidates in found.items():
        cast = [(shape, q) for one, other, _, shape, q in predictions if (one, other) == (group, pair)]
        assert sum(candidate.count for candidate in candidates) == len(cast)
        for candidate in candidates:
            qs = [q for shape, q in cast if as_grid(np.array(SHAPES[shape])) == candidate.grid]
            assert candidate.count == len(qs) and candidate.q == pytest.approx(sum(qs) / len(qs))
        keys = [(candidate.count, candidate.q) for candidate in candidates]
        assert keys == sorted(keys, reverse=True)


@given(st.lists(Q, min_size=1, max_size=8))
def test_of_equally_many_votes_q_decides(qs: list[float]) -> None:
    found = ranked({((cell,),): [q] for cell, q in enumerate(qs)})
    assert [candidate.q for candidate in found] == sorted(qs, reverse=True)


def test_a_majority_wins_whatever_its_q() -> None:
    found = votes([(0, 0, 3, 0, 0.0), (0, 0, 4, 0, 0.0), (0, 0, 5, 1, 1.0), (0, 1, 6, 1, 0.5)])
    assert pass_at(found, SOLUTIONS)[1] == (1.0, 1.0)


@settings(max_examples=50)
@given(predictions=st.lists(PREDICTION, min_size=1, max_size=20))
def test_more_attempts_never_solve_less(predictions: list[Any]) -> None:
    passed = pass_at(votes(predictions), SOLUTIONS)
    assert list(passed) == list(ATTEMPTS)
    for few, many in pairwise(ATTEMPTS):
        assert passed[few].mean <= passed[many].mean and passed[few].all <= passed[many].all
    assert all(0 <= at.all <= at.mean <= 1 for at in passed.values())


def test_puzzles_count_by_the_mean_of_their_pairs_or_by_all_of_them() -> None:
    """The first puzzle has one pair right, at the second attempt; the second has both; the third was not asked."""
    found = {
        (0, 0): [Candidate(((9,),), 2, 0.5), Candidate(as_grid(SOLUTIONS[0, 0]), 1, 0.9)],
        (1, 0): [Candidate(as_grid(SOLUTIONS[1, 0]), 1, 0.9)],
        (1, 1): [Candidate(as_grid(SOLUTIONS[1, 1]), 1, 0.9)],
    }
    passed = pass_at(found, SOLUTIONS)
    assert passed[1] == (0.5, 0.5) and passed[2] == (0.75, 0.5)
    assert pass_at({}, SOLUTIONS) == {}


def test_a_prediction_without_a_grid_is_no_candidate() -> None:
    """It takes no place before the right answer either: what counts is what is submitted."""
    found = count_votes(NAMES, np.array([0]), np.array([0]), np.array([7]), np.zeros((1, 16), np.int64), np.array([0.5]))
    assert found == {(0, 0): []}
    assert pass_at(found, SOLUTIONS)[1000] == (0.0, 0.0)
    assert submission(found, NAMES, [(0, 0)]) == {"one": [{"attempt_1": [[0]], "attempt_2": [[0]]}]}
    solution = as_grid(SOLUTIONS[0, 0])
    counted = {(0, 0): ranked({(): [0.9] * 5, ((8,),): [0.9] * 4, solution: [0.5]})}
    assert [candidate.count for candidate in counted[0, 0]] == [4, 1]
    assert pass_at(counted, {(0, 0): SOLUTIONS[0, 0]})[2].all == 1
    assert submission(counted, NAMES, [(0, 0)])["one"][0]["attempt_2"] == list(map(list, solution))


@cache
def small() -> Arc:
    return Arc(Config(training_sets=["arc1_training"], test_set="concept_minimal", side=10, votes=5))


def test_right_answers_to_all_symmetries_solve_all_puzzles() -> None:
    maker = small()
    batch = maker.generate(165, (0,), split="test")
    columns = {name: np.array(batch.column(name).to_pylist()) for name in maker.config.columns}
    answers = np.zeros((165, 100), np.int64)
    answers[np.array([list(role) for role in batch.column("role").to_pylist()]) > 0] = np.concatenate(batch.column("target").to_pylist())
    found = count_votes(maker.names, columns["group"], columns["pair"], columns["augmentation"], answers, np.full(165, 0.5))
    assert all(len(candidates) == 1 and candidates[0].count == 5 for candidates in found.values())
    assert pass_at(found, maker.solutions())[1] == (1.0, 1.0)
    submitted = submission(found, maker.names, maker.listed("test"))
    check_submission(submitted, {puzzle.name: puzzle.tests for puzzle in maker.config.selection.measured})
    for (group, pair), cells in maker.solutions().items():
        assert submitted[maker.names[group]][pair] == {"attempt_1": cells.tolist(), "attempt_2": cells.tolist()}


def test_the_second_attempt_is_the_second_candidate() -> None:
    found = {(1, 1): [Candidate(((cell,),), 2, 0.5) for cell in range(3)]}
    assert submission(found, NAMES, [(1, 1), (1, 0)])["two"] == [
        {"attempt_1": [[0]], "attempt_2": [[0]]},
        {"attempt_1": [[0]], "attempt_2": [[1]]},
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("one",), None, "one: no list; expected 2"),
        (("one",), [], "one: 0 answers; expected 2, one per test pair"),
        (("four",), [], "four: no such puzzle; expected exactly the 1 puzzles"),
        (("one", 0), {"attempt_1": [[0]]}, r"one\[0\]: expected attempt_1 and attempt_2, nothing else"),
        (("one", 1, "attempt_2"), [], r"one\[1\].attempt_2: 0 rows of 0 cells"),
        (("one", 1, "attempt_2"), [[]], "1 rows of 0 cells"),
        (("one", 1, "attempt_2"), [[0]] * 31, "31 rows of 1 cells; expected 1..30 rows of equally many colours 0..9"),
        (("one", 1, "attempt_2"), [[0, 1], [2]], "rows of different lengths"),
        (("one", 1, "attempt_2"), [[10]], "colour 10"),
        (("one", 1, "attempt_2"), [[True]], "colour True"),
        (("one", 1, "attempt_2"), [[1.0]], "colour 1.0"),
        (("one", 1, "attempt_2"), [0], "not a list of rows"),
    ],
)
def test_a_wrong_submission_is_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    right: Any = {"one": [{"attempt_1": [[0]], "attempt_2": [[9] * 30] * 30}] * 2}
    check_submission(right, {"one": 2})
    wrong = copy.deepcopy({"one": [dict(answer) for answer in right["one"]]})
    part: Any = wrong
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(UserError, match=message) as raised:
        check_submission(wrong, {"one": 2})
    assert "\n" not in str(raised.value)


def test_a_submission_answers_exactly_the_puzzles() -> None:
    with pytest.raises(UserError, match="expected an object of puzzles"):
        check_submission([], {"one": 1})
    with pytest.raises(UserError, match="submission: one: not answered"):
        check_submission({}, {"one": 1})
