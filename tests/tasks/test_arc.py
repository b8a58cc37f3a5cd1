"""The task arc: symmetries, tokens, and which pairs are in which split, against plain Python and the published files."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import pipeline.config.arc_puzzles as lists
from pipeline.config.base import FieldConflict, canonical, filled
from pipeline.config.spec_files import write_spec
from pipeline.config.tasks import Arc as Config
from pipeline.storage.errors import CorruptFileError, MissingFileError, UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks import arc_grids as grids
from pipeline.tasks.arc import Arc
from pipeline.tasks.base import BUCKETS, Split
from pipeline.tasks.generate import generate_shard, seal_dataset
from tests.tasks import arc_oracle as oracle
from tests.tasks.arc_index import FOLDER, SETS, Grid, forms, index, puzzles
from tests.tasks.arc_index import canonical as form

SMALL: dict[str, Any] = {"training_sets": ["arc1_training"], "test_set": "concept_minimal", "side": 10}


def a_grid(side: int) -> st.SearchStrategy[Grid]:
    return st.tuples(st.integers(1, side), st.integers(1, side)).flatmap(
        lambda size: st.lists(st.lists(st.integers(0, 9), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0])
    )


@cache
def task(**fields: Any) -> Arc:
    return Arc(Config.model_validate({**SMALL, **fields}))


def rows(maker: Arc, count: int, split: Split = "train", *parts: str | int) -> list[dict[str, Any]]:
    return maker.generate(count, derive_key("arc", *parts), split=split).to_pylist()


def labels(row: dict[str, Any]) -> list[int]:
    """The label of every cell, 0 where there is none."""
    target = iter(row["target"])
    return [next(target) if role else 0 for role in row["role"]]


def pair_of(maker: Arc, row: dict[str, Any]) -> dict[str, Grid]:
    """The published pair that a row is made of."""
    listed = maker.config.selection.puzzles[row["group"]]
    puzzle = puzzles(listed.set)[listed.name]
    return [*puzzle["test"], *puzzle["train"]][row["pair"]]


def test_the_list_of_puzzles_is_that_of_the_files() -> None:
    assert (FOLDER / "puzzles.csv").read_text(encoding="utf-8") == index()
    assert set(lists.listed()) == set(SETS) == set(grids.SHA256)
    assert range(*BUCKETS["validation"]) == lists.HELD_OUT


def test_no_other_puzzles_have_a_test_pair_in_common() -> None:
    holders: dict[str, set[tuple[str, bool]]] = {}
    for name in SETS:
        for puzzle in puzzles(name):
            for part, texts in forms(name, puzzle).items():
                for text in texts:
                    holders.setdefault(text, set()).add((puzzle, part == "test"))
    found = {
        tuple(sorted((one, other)))
        for holder in holders.values()
        for (one, tested), (other, also) in combinations(sorted(holder), 2)
        if one != other and (tested or also)
    }
    assert found == {tuple(sorted(pair)) for pair in lists.TWINS}


def test_the_files_are_found_from_anywhere_and_only_when_needed(tmp_path: Path) -> None:
    code = (
        "import pipeline.config.tasks as t, pipeline.config.arc_puzzles as a\n"
        "assert not a.listed.cache_info().currsize\n"
        "from pipeline.tasks.arc import Arc\n"
        f"Arc(t.Arc(**{SMALL!r})).generate(3, (1,))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_missing_or_changed_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "ARC_FOLDER", tmp_path)
    read = grids.read_set.__wrapped__
    with pytest.raises(MissingFileError, match=r"concept\.json\.xz: no such file"):
        read("concept")
    (tmp_path / "concept.json.xz").write_bytes(b"{}")
    with pytest.raises(CorruptFileError, match="not the published puzzles"):
        read("concept")


# Symmetries


@given(grid=a_grid(30), puzzle=st.text(max_size=12), k=st.integers(0, 10**6))
def test_a_symmetry_and_its_inverse_are_the_identity(grid: Grid, puzzle: str, k: int) -> None:
    cells = np.array(grid)
    turned = grids.augment(cells, puzzle, k)
    assert grids.inverse(turned, puzzle, k).tolist() == grid
    number, colours = grids.symmetry(puzzle, k)
    assert oracle.undo(turned.tolist(), number, colours.tolist()) == grid
    assert colours[0] == 0 and sorted(colours.tolist()) == list(range(10))
    assert k or (number, colours.tolist()) == (0, list(range(10)))


@given(grid=a_grid(6), number=st.integers(0, 7), colours=st.permutations(range(1, 10)))
def test_every_turn_and_every_permutation_is_undone(grid: Grid, number: int, colours: list[int]) -> None:
    mapped = np.array([0, *colours])
    turned = grids.turn(mapped[np.array(grid)], number)
    assert oracle.undo(turned.tolist(), number, mapped.tolist()) == grid
    assert np.argsort(mapped)[grids.turn(turned, grids.INVERSE[number])].tolist() == grid


def test_the_turns_are_a_group() -> None:
    grid = np.arange(6).reshape(2, 3)
    forms = [json.dumps(grids.turn(grid, number).tolist()) for number in range(8)]
    assert len(set(forms)) == 8
    twice = {json.dumps(grids.turn(grids.turn(grid, one), other).tolist()) for one in range(8) for other in range(8)}
    assert twice == set(forms)


def test_permutations_are_all_different_and_equally_likely() -> None:
    first = grids._permutations(np.arange(5040))
    assert len({tuple(row) for row in first.tolist()}) == 5040 and first[0].tolist() == list(range(9))
    assert grids._permutations(np.array([grids.PERMUTATIONS - 1]))[0].tolist() == list(range(8, -1, -1))
    turn_B, colours_BC = grids.symmetries(np.full(80_000, grids.seed_of("00576224"), np.uint64), np.arange(1, 80_001))
    assert np.bincount(turn_B, minlength=8) == pytest.approx(10_000, rel=0.05)
    assert all(np.bincount(colours_BC[:, colour], minlength=10)[1:] == pytest.approx(80_000 / 9, rel=0.06) for colour in range(1, 10))


# Tokens


@given(grid=a_grid(30))
def test_a_grid_comes_back_from_its_tokens(grid: Grid) -> None:
    tokens = grids.encode(np.array(grid), 30)
    assert tokens.tolist() == oracle.tokens(grid, 30)
    assert grids.crop(tokens).tolist() == grid
    height, width = len(grid), len(grid[0])
    assert (tokens == grids.END).sum() == width * (height < 30) + height * (width < 30)


def test_a_grid_that_fills_the_square_has_no_end() -> None:
    assert set(grids.encode(np.full((30, 30), 9), 30).tolist()) == {11}


@given(tokens=st.lists(st.sampled_from([0, 1, 2, 5, 11, 12]), min_size=36, max_size=36), ones=st.integers(0, 36))
def test_the_crop_is_the_largest_rectangle(tokens: list[int], ones: int) -> None:
    tokens[:ones] = [7] * ones
    cells, wanted = grids.crop(np.array(tokens)), oracle.crop(tokens, 6)
    assert cells.size == sum(map(len, wanted)) and (not wanted or cells.tolist() == wanted)


@given(st.lists(st.tuples(a_grid(6), st.integers(0, 99)), min_size=1, max_size=5), st.text(max_size=3))
def test_many_rows_decode_as_each_alone(drawn: list[tuple[Grid, int]], puzzle: str) -> None:
    made = [grids.encode(grids.augment(np.array(grid), puzzle, k), 6) for grid, k in drawn]
    decoded = grids.decode(np.stack(made), [puzzle] * len(made), np.array([k for _, k in drawn]))
    assert [cells.tolist() for cells in decoded] == [grid for grid, _ in drawn]


# Rows


@settings(max_examples=20, deadline=None)
@given(key=st.integers(0, 2**32), split=st.sampled_from(["train", "validation", "test"]), side=st.sampled_from([10, 30]))
def test_rows_are_symmetries_of_published_pairs(key: int, split: Split, side: int) -> None:
    """Both grids, turned back by plain Python, are those of the file; both stand at the same place, in the corner in tests."""
    maker = task(side=side, votes=3)
    for row in rows(maker, 20, split, key):
        puzzle = maker.names[row["group"]]
        number, colours = grids.symmetry(puzzle, row["augmentation"])
        corners, pair, pair_labels = [], pair_of(maker, row), labels(row)
        coloured = [place for cells in (row["tokens"], pair_labels) for place, token in enumerate(cells) if token >= 2]
        top, left = min(place // side for place in coloured), min(place % side for place in coloured)
        for end, cells in (("input", row["tokens"]), ("output", pair_labels)):
            grid = grids.augment(np.array(pair[end]), puzzle, row["augmentation"]).tolist()
            assert oracle.undo(grid, number, colours.tolist()) == pair[end]
            assert cells == oracle.tokens(grid, side, top, left)
            corners.append((top, left))
        assert split == "train" or (top, left) == (0, 0)
        assert row["identifier"] == 1 + row["group"] * 1001 + row["augmentation"] < maker.config.identifiers
        assert list(row["role"]) == [int(label > 0) for label in pair_labels]


def test_moves_reach_every_place_and_one_pair_of_each_puzzle_stays() -> None:
    maker = task(training_sets=("concept",), side=30, augmentations=0)
    still, counted, places = 0, 0.0, set()
    for row in rows(maker, 4000):
        pair = pair_of(maker, row)
        sizes = [max(len(pair[end]) if axis == 0 else len(pair[end][0]) for end in ("input", "output")) for axis in range(2)]
        if max(sizes) > 12:
            continue
        coloured = [place for place, token in enumerate(row["tokens"]) if token >= 2]
        corner = (min(place // 30 for place in coloured), min(place % 30 for place in coloured))
        assert corner[0] <= 30 - sizes[0] and corner[1] <= 30 - sizes[1]
        places |= {("last row",)} if corner[0] == 30 - sizes[0] else set()
        places |= {("last column",)} if corner[1] == 30 - sizes[1] else set()
        listed = maker.config.selection.puzzles[row["group"]]
        hidden = row["group"] < len(maker.config.selection.measured) or listed.held_out
        count = listed.demonstrations + (0 if hidden else listed.tests)
        still, counted = still + (corner == (0, 0)), counted + 1 / count
    assert len(places) == 2
    assert still == pytest.approx(counted, rel=0.12)


def test_puzzles_symmetries_and_pairs_are_equally_likely() -> None:
    maker = task(augmentations=3)
    batch = maker.generate(60_000, derive_key("arc", "uniform"))
    group, k = (np.array(batch.column(name).to_pylist()) for name in ("group", "augmentation"))
    expected = 60_000 / len(maker.names)
    assert np.abs(np.bincount(group, minlength=len(maker.names)) - expected).max() < 5 * expected**0.5
    assert np.bincount(k, minlength=4) == pytest.approx(15_000, rel=0.05)


@pytest.mark.parametrize(
    "fields",
    [{}, {"training_sets": ("arc1_training", "concept"), "test_set": "arc1_evaluation", "side": 12, "augmentations": 1}],
    ids=["minimal", "published"],
)
def test_no_test_pair_and_no_validation_pair_is_in_training(fields: dict[str, Any]) -> None:
    """By puzzle and pair, and by content up to symmetry, but for the test pairs that their own puzzle demonstrates."""
    maker = task(**fields)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    kept = {split: {(row["group"], row["pair"]) for row in rows(maker, maker.available(split) or 40_000, split)} for split in splits}
    chosen = maker.config.selection
    tested = {(group, pair) for group, puzzle in enumerate(chosen.measured) for pair in range(puzzle.tests)}
    assert kept["test"] == tested and not kept["test"] & kept["validation"]
    assert not kept["train"] & (kept["test"] | kept["validation"])
    assert {group for group, _ in kept["train"]} == set(range(len(maker.names))), "every puzzle has trained identifiers"
    every = {(group, pair) for group, puzzle in enumerate(chosen.puzzles) for pair in range(puzzle.tests + puzzle.demonstrations)}
    assert kept["train"] == every - kept["test"] - kept["validation"], "and no other pair is lost"
    pairs = {place: form(pair_of(maker, {"group": place[0], "pair": place[1]})) for place in every}
    trained: dict[str, set[int]] = {}
    for place in kept["train"]:
        trained.setdefault(pairs[place], set()).add(place[0])
    for group, pair in kept["test"] | kept["validation"]:
        assert trained.get(pairs[group, pair], set()) <= {group}
    repeated = sum(pairs[place] in trained for place in kept["test"])
    assert (f"{repeated} of {len(tested)} test pairs are a symmetry of a demonstration" in maker.overlap()) == (repeated > 0)


def test_a_validation_puzzle_is_one_in_every_task() -> None:
    one, other = task(), task(training_sets=("arc1_training", "concept"), side=30)
    held_out = [{maker.names[group] for group, _ in maker.listed("validation")} for maker in (one, other)]
    assert held_out[0] <= held_out[1]


def test_a_test_lists_pairs_with_their_votes_and_is_refused_more() -> None:
    maker = task(votes=4)
    batch = maker.generate(maker.config.test_rows, (0,), split="test")
    group, pair, k = (batch.column(name).to_pylist() for name in ("group", "pair", "augmentation"))
    assert k == [0, 1, 2, 3] * 33 and list(zip(group, pair, strict=True))[::4] == maker.listed("test")
    assert group != sorted(group), "in a fixed order that is not the sets'"
    assert batch.slice(0, 7).equals(maker.generate(7, (1,), split="test"))
    with pytest.raises(UserError, match=r"^arc: 133 test rows; expected at most 132: 33 test pairs x 4 symmetries$"):
        maker.generate(133, (0,), split="test")
    with pytest.raises(UserError, match=r"expected at most 10010: 10 test pairs x 1001 symmetries"):
        maker.generate(20_000, (0,), split="validation")
    with pytest.raises(UserError, match="expected no curriculum"):
        maker.generate(4, (0,), 3, "rating")


def test_validation_lists_all_pairs_under_one_symmetry_after_the_other() -> None:
    found = rows(task(), 25, "validation")
    assert [row["augmentation"] for row in found] == [0] * 10 + [1] * 10 + [2] * 5
    assert [(row["group"], row["pair"]) for row in found[10:20]] == task().listed("validation")


def test_shards_continue_the_list(tmp_path: Path) -> None:
    """Each shard has rows of its own: together they are the list, whatever their number."""
    whole = rows(task(), 33, "test")
    for shards in (1, 3):
        folder = tmp_path / str(shards)
        write_spec(
            folder / "dataset.yaml", {"id": "arc-12345678", "task": filled(task().config), "split": "test", "rows": 33, "shards": shards}
        )
        written = [pq.read_table(generate_shard(folder, index)) for index in range(shards)]
        assert pa.concat_tables(written).to_pylist() == whole


def test_the_card_names_the_puzzles_licences(tmp_path: Path) -> None:
    write_spec(tmp_path / "dataset.yaml", {"id": "arc-12345678", "task": filled(task().config), "split": "test", "rows": 3, "shards": 1})
    generate_shard(tmp_path, 0)
    seal_dataset(tmp_path)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "ARC-AGI-1 (github.com/fchollet/ARC-AGI, Apache-2.0), ConceptARC (github.com/victorvikram/ConceptARC, MIT)." in card
    assert "license: other" in card and "CC0" not in card
    assert "Demonstrations of the test puzzles are trained on, as published" in card


# The config


def problem(**fields: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        Config.model_validate(fields)
    return str(raised.value.errors()[0]["msg"])


def test_sets_that_share_puzzles_are_refused() -> None:
    assert "376 of the 400 puzzles of arc1_evaluation are in arc2_training too" in problem(training_sets=["arc2_training"])
    assert "6 of the 400 puzzles of arc1_evaluation are in arc2_evaluation too" in problem(training_sets=["concept", "arc2_evaluation"])
    assert "its demonstrations are trained on anyway" in problem(training_sets=["concept"], test_set="concept")
    assert "expected different sets" in problem(training_sets=["concept", "concept"])
    assert "no test row has grids of at most 3 x 3" in problem(test_set="arc2_evaluation", side=3)
    assert "no validation row has grids" in problem(training_sets=["concept_minimal"], side=7)
    assert "expected at most 11" in problem(augmentations=10, votes=12)


def test_puzzles_are_counted_once() -> None:
    config = Config(training_sets=["arc2_training", "arc1_training"], test_set="arc2_evaluation")
    names = [puzzle.name for puzzle in config.selection.puzzles]
    assert len(names) == len(set(names)) == 120 + 400 + (1000 - 391) - config.selection.twins
    assert config.training_sets == ["arc1_training", "arc2_training"], "the order says nothing"
    assert Config().identifiers == 1 + (400 + 400 + 160 - 2) * 1001
    assert Config().sizes == {"vocabulary": 12, "classes": 12, "identifiers": Config().identifiers, "cells": 900}


def test_identifiers_can_be_switched_off() -> None:
    config = task(puzzle_identifiers=False).config
    assert (config.identifiers, config.inputs, "identifiers" in config.sizes) == (0, (), False)
    assert {row["identifier"] for row in rows(task(puzzle_identifiers=False), 9)} == {0}
    assert task().config.inputs == ("identifier",)


def test_the_evaluation_sets_votes_and_rows() -> None:
    evaluation, config = Config.evaluation.model_validate({"votes": 3, "supervision": [4, 16]}), task().config
    (measured,) = evaluation.points(config)
    assert measured.votes == 3 and evaluation.rows_of(measured) == 99 and measured.sizes == config.sizes
    assert canonical(measured) == canonical(task(votes=3).config)
    assert Config.evaluation.model_validate({"rows": 5}).rows_of(config) == 5
    with pytest.raises(FieldConflict, match="got 100 rows; expected at most 99: 33 test pairs x 3 votes"):
        Config.evaluation.model_validate({"rows": 100, "votes": 3}).points(config)
    with pytest.raises(FieldConflict, match="expected at most 1001"):
        Config.evaluation.model_validate({"votes": 1002}).points(config)


# Answers


@settings(max_examples=50)
@given(wanted=a_grid(4), given_=a_grid(4), rest=st.lists(st.integers(0, 11), min_size=25, max_size=25))
def test_an_answer_is_valid_if_its_grid_is_right(wanted: Grid, given_: Grid, rest: list[int]) -> None:
    maker = task(training_sets=("arc1_training", "arc2_training"), test_set="arc2_evaluation", side=12)
    label, answer = (grids.encode(np.array(grid), 12)[None] for grid in (wanted, given_))
    assert maker.valid(label, label, label).tolist() == [True]
    assert maker.valid(label, answer, label).tolist() == [wanted == given_]
    answer = grids.encode(np.array(wanted), 12)
    answer[-25:] = rest
    assert maker.valid(label, answer[None], label).tolist() == [oracle.crop(answer.tolist(), 12) == wanted]
    assert maker.valid(label, np.zeros_like(label), np.zeros_like(label)).tolist() == [False]


def test_solutions_are_the_labels_of_the_first_votes() -> None:
    maker = task()
    solutions = maker.solutions()
    for row in rows(maker, 33, "test"):
        wanted = pair_of(maker, row)["output"]
        assert solutions[row["group"], row["pair"]].tolist() == wanted == oracle.crop(labels(row), 10)


@given(grid=a_grid(10))
def test_text_and_json_round_trip(grid: Grid) -> None:
    puzzle = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": grid}, {"input": [[0]]}]}
    first, second = task().parse(json.dumps(puzzle))
    assert first.tolist() == oracle.tokens(grid, 10) and second.tolist() == oracle.tokens([[0]], 10)
    assert [[int(cell) for cell in line] for line in task().text(first).split("\n")] == grid


def test_text_shows_what_is_no_colour() -> None:
    tokens = np.zeros(100, np.uint16)
    assert task().text(tokens) == "."
    tokens[[0, 12]] = 5
    assert task().text(tokens) == "3..\n..3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a puzzle"),
        ('{"train": []}', "expected a puzzle"),
        ('{"train": [], "test": []}', "expected a puzzle"),
        ('{"train": [], "test": [1]}', "expected a puzzle"),
        ('{"train": [], "test": [{}]}', "test 0 input: expected a grid"),
        ('{"train": [{"input": [[1]]}], "test": [{"input": [[1]]}]}', "train 0 output: expected a grid"),
        ('{"train": [], "test": [{"input": [[]]}]}', "expected a grid"),
        ('{"train": [], "test": [{"input": [[1, 2], [3]]}]}', "rows of 1 and of 2 cells"),
        ('{"train": [], "test": [{"input": [[10]]}]}', "colour 10; expected 0..9"),
        ('{"train": [], "test": [{"input": [[true]]}]}', "colour True"),
        ('{"train": [], "test": [{"input": [["a"]]}]}', "colour 'a'"),
        (json.dumps({"train": [], "test": [{"input": [[0]] * 31}]}), "31 x 1 cells; expected at most 30 x 30"),
        (json.dumps({"train": [], "test": [{"input": [[0] * 31]}]}), "1 x 31 cells"),
    ],
)
def test_wrong_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        task(side=30).parse(text)
    assert message in str(raised.value) and "\n" not in str(raised.value) and str(raised.value).startswith("arc: ")


def test_the_docstring_shows_a_row() -> None:
    shown = grids.encode(np.array([[3, 0, 7], [0, 3, 7]]), 4), grids.encode(np.array([[7, 0, 3], [7, 3, 0]]), 4)
    assert shown[0].tolist() == [5, 2, 9, 1, 2, 5, 9, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert shown[1].tolist() == [9, 2, 5, 1, 9, 5, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0]
