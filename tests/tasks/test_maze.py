"""Mazes against networkx: shortest paths, what can be reached, perfect mazes, symmetries, splits, files, and the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.tasks.puzzles import Maze, MazeEvaluation
from pipeline.storage.errors import UserError
from pipeline.tasks import maze, puzzles
from pipeline.tasks.maze import GOAL, MARKED, OPEN, START, WALL
from tests.tasks.puzzle_rows import Boards, boards_of, task_of

KINDS: dict[str, dict[str, Any]] = {
    "perfect": {},
    "even": {"side": 12, "min_path": 20},
    "percolation": {"walls": "percolation", "side": 12, "min_path": 8},
    "reach": {"walls": "percolation", "asks": "reach", "side": 11, "min_path": 6},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, rows: int, *key: int, **fields: Any) -> tuple[Any, Boards]:
    """A task and its rows."""
    task = task_of(Maze(**{**KINDS[kind], **fields}))
    return task, boards_of(task, rows, "train", kind, *key)


def graph_of(board_T: np.ndarray, side: int) -> nx.Graph:
    """Open cells, with an edge between neighbours."""
    graph = nx.grid_2d_graph(side, side)
    graph.remove_nodes_from([divmod(int(cell), side) for cell in np.flatnonzero(board_T == WALL)])
    return graph


def cell_of(board_T: np.ndarray, token: int, side: int) -> tuple[int, int]:
    """Row and column of the one cell with a token."""
    (place,) = np.flatnonzero(board_T == token).tolist()
    return divmod(place, side)


def marked(answer_T: np.ndarray, side: int) -> set[tuple[int, int]]:
    """The marked cells."""
    return {divmod(int(cell), side) for cell in np.flatnonzero(answer_T == MARKED)}


@every_kind
def test_labels_are_shortest_paths_or_what_can_be_reached(kind: str) -> None:
    task, rows = made(kind, 60)
    side, least = task.config.side, task.config.min_path
    for board, answer, rating in zip(rows.tokens_BT, rows.target_BT, rows.columns["rating"], strict=True):
        graph, start = graph_of(board, side), cell_of(board, START, side)
        distances = nx.single_source_shortest_path_length(graph, start)
        assert np.array_equal(np.where(answer == MARKED, OPEN, answer), board)
        if kind == "reach":
            assert marked(answer, side) == set(distances) - {start} and rating == len(distances) - 1
            assert max(distances.values()) >= least and not (board == GOAL).any()
            continue
        goal = cell_of(board, GOAL, side)
        assert rating == distances[goal] >= least and len(marked(answer, side)) == rating - 1
        assert nx.has_path(graph.subgraph(marked(answer, side) | {start, goal}), start, goal)


def test_perfect_mazes_are_trees_over_all_rooms() -> None:
    for kind in ("perfect", "even"):
        task, rows = made(kind, 40)
        side = task.config.side
        for board in rows.tokens_BT:
            assert nx.is_tree(graph_of(board, side))
            assert (board.reshape(side, side)[::2, ::2] != WALL).all() and (board.reshape(side, side)[1::2, 1::2] == WALL).all()
        assert len(np.unique(rows.tokens_BT, axis=0)) == 40


def test_walls_are_as_dense_as_said() -> None:
    _, rows = made("percolation", 300, side=40, min_path=1)
    density = (rows.tokens_BT == WALL).mean(axis=1)
    assert 0.25 < density.min() < 0.33 and 0.47 < density.max() < 0.55 and density.mean() == pytest.approx(0.4, abs=0.02)
    _, rows = made("reach", 300, side=40, min_path=1)
    assert (rows.tokens_BT == WALL).mean() == pytest.approx(0.38, abs=0.005)


def test_mazes_as_hard_as_the_published_ones() -> None:
    for walls in ("perfect", "percolation"):
        rows = boards_of(task_of(Maze(side=30, min_path=111, walls=walls)), 20)  # type: ignore[arg-type]
        assert rows.columns["rating"].min() >= 111 and rows.tokens_BT.shape == (20, 900)


def test_ties_are_broken_from_the_goal_upwards_first() -> None:
    board = task_of(Maze(side=5)).parse("S....\n.....\n.....\n.....\n....G")
    answer, moves = maze.solve(5, board[None], True)
    assert moves == [8] and task_of(Maze(side=5)).text(answer[0]) == "Soooo\n    o\n    o\n    o\n    G"


@every_kind
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 7))
def test_a_symmetry_keeps_the_maze_what_it_is(kind: str, seed: int, number: int) -> None:
    task, rows = made(kind, 1, seed)
    numbers = np.array([number])
    board, answer = (task.symmetric(rows.tokens_BT, numbers, given) for given in (rows.tokens_BT, rows.target_BT))
    assert task.valid(board, answer).all() and np.array_equal(task.split_hash(board), task.split_hash(rows.tokens_BT))
    assert np.array_equal(task.symmetric(rows.tokens_BT, numbers, board, inverse=True), rows.tokens_BT)
    assert np.array_equal(task.symmetric(rows.tokens_BT, np.array([0]), board), board)


def test_the_symmetries_are_the_eight_of_the_square() -> None:
    task, rows = made("percolation", 1)
    ways = task.symmetric(np.repeat(rows.tokens_BT, 8, 0), np.arange(8), np.repeat(rows.tokens_BT, 8, 0))
    square = rows.tokens_BT[0].reshape(12, 12)
    expected = {np.rot90(way, turns).tobytes() for way in (square, square[:, ::-1]) for turns in range(4)}
    assert {way.reshape(12, 12).tobytes() for way in ways} == expected and len(expected) == 8


@every_kind
@pytest.mark.parametrize("count", [None, 50])
def test_splits_do_not_meet_up_to_symmetry(kind: str, count: int | None) -> None:
    task = task_of(Maze(**KINDS[kind], puzzles=count))
    hashes = [set(task.split_hash(boards_of(task, 200, split).tokens_BT).tolist()) for split in ("train", "validation", "test")]
    assert not (hashes[0] & hashes[1] or hashes[0] & hashes[2] or hashes[1] & hashes[2])
    assert len(hashes[2]) > 150
    if count:
        assert hashes[0] <= set(task.split_hash(task.puzzles.question_BC[task.pool("train")]).tolist()) and len(task.pool("train")) == count


@every_kind
def test_the_rules(kind: str) -> None:
    task, rows = made(kind, 30)
    assert task.valid(rows.tokens_BT, rows.target_BT).all()
    assert not task.valid(rows.tokens_BT, rows.tokens_BT)[(rows.target_BT == MARKED).any(axis=1)].any(), "nothing is marked"
    wall = rows.target_BT.copy()
    wall[np.arange(30), (rows.tokens_BT == WALL).argmax(axis=1)] = MARKED
    dead_end = rows.target_BT.copy()
    dead_end[np.arange(30), (rows.target_BT == OPEN).argmax(axis=1)] = MARKED
    for wrong in (wall, dead_end):
        assert not task.valid(rows.tokens_BT, wrong)[(rows.target_BT == OPEN).any(axis=1)].any()


def test_every_shortest_path_is_a_solution() -> None:
    task = task_of(Maze(side=5))
    board = task.parse("S....\n.###.\n.....\n.###.\n....G")
    for answer, valid in {
        "Soooo\n ###o\n    o\n ###o\n    G": True,
        "S    \no### \no    \no### \nooooG": True,
        "S    \no### \nooooo\n ###o\n    G": True,
        "So   \no### \nooooo\n ###o\n    G": False,
        "Soooo\n ###o\nooooo\no### \nooooG": False,
        "Soooo\n ### \n    o\n ###o\n   oG": False,
        "S    \no### \no    \no### \nooooS": False,
    }.items():
        tokens = np.array([maze.LETTERS[letter] for letter in answer.replace("\n", "")], np.uint8)
        assert task.valid(board[None], tokens[None]) == [valid], answer


def test_text() -> None:
    task, rows = made("perfect", 5)
    for tokens in rows.tokens_BT:
        text = task.text(tokens)
        assert np.array_equal(task.parse(text), tokens) and np.array_equal(task.parse(text.replace("\n", "")), tokens)
        assert np.array_equal(task.parse("\n".join(line.rstrip() for line in text.split("\n")) + "\n"), tokens)
    small = task_of(Maze(side=5))
    lines = ["S....", ".....", ".....", ".....", "....G"]
    for changed, error in {
        ("S...",) * 3: "got 3 lines; expected 5",
        ("S......", *lines[1:]): "got 7 cells in line 1; expected at most 5",
        ("S..o.", *lines[1:]): "got 'o' in line 1, column 4; expected # for a wall",
        ("S.S..", *lines[1:]): "got 2 cells S; expected exactly one",
        (*lines[:4], "....."): "got 0 cells G; expected exactly one",
        (*lines[:3], "...##", "...#G"): "got a maze without a path from S to G; expected one",
    }.items():
        with pytest.raises(UserError, match=f"^line 3: {error}"):
            small.parse("\n".join(changed), "line 3")


def test_a_file(tmp_path: Path) -> None:
    task, rows = made("percolation", 80)
    letters = {token: letter for letter, token in maze.LETTERS.items()}
    lines = [
        ",".join("".join(letters[token] for token in board.tolist()) for board in pair)
        for pair in zip(rows.tokens_BT, rows.target_BT, strict=True)
    ]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["question,answer", *lines]) + "\n")
    config = Maze(side=12, origin=str(path))
    own = boards_of(task_of(config), 100)
    assert task.valid(own.tokens_BT, own.target_BT).all() and set(own.columns["rating"]) <= set(rows.columns["rating"])
    assert set(own.columns["augmentation"]) == set(range(8))
    with pytest.raises(UserError, match=r"own.csv:2: question has 144 characters; expected 81"):
        boards_of(task_of(Maze(origin=str(path))), 4)
    with pytest.raises(ValueError, match="expected no sides"):
        MazeEvaluation(sides=[9]).points(config)


@pytest.mark.parametrize(
    ("question", "answer", "error"),
    [
        ("S    #### #### #### ####G", "S    #### #### #### ####G", ":2: the answer is not the maze with a shortest path"),
        ("S    #### #### ##########", "S    #### #### ##########", ":2: 0 cells G in the question; expected exactly 1"),
        ("S    #### #### #########G", "S    #### #### #########G", ":2: no path from S to G"),
        ("So   #### #### #### ####G", "Soooo####o####o####o####G", ":2: 'o' in the question"),
        ("S    #### #### #### ####x", "Soooo####o####o####o####G", ":2: question has 'x' in cell 25"),
    ],
)
def test_mistakes_in_a_file_are_named(question: str, answer: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puzzles, "in_split", lambda hash_B, split: np.ones(len(hash_B), bool))
    path = tmp_path / "wrong.csv"
    path.write_text(f"question,answer\n{question},{answer}\n")
    with pytest.raises(UserError, match=f"wrong.csv{error}"):
        boards_of(task_of(Maze(side=5, origin=str(path))), 4)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected walls: percolation with asks: reach"):
        Maze(asks="reach")
    with pytest.raises(ValidationError, match="got min_path 55 with side 9; expected at most 54 moves"):
        Maze(min_path=55)
    with pytest.raises(UserError, match="none of 200,000 mazes of side 9 has a path of 40 moves; expected a smaller min_path"):
        boards_of(task_of(Maze(walls="percolation", min_path=40)), 4)
    assert [task.side for task in MazeEvaluation(sides=[9, 13]).points(Maze())] == [9, 13]
    with pytest.raises(ValueError, match="got side 3; expected 5 to 128"):
        MazeEvaluation(sides=[3]).points(Maze())


def test_training_on_more_mazes_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"got puzzles 1,000,000; expected at most [\d,]+, those that differ up to symmetry"):
        boards_of(task_of(Maze(side=5, min_path=10, puzzles=10**6)), 4)


def test_the_largest_maze() -> None:
    for walls in ("perfect", "percolation"):
        task = task_of(Maze(side=128, walls=walls))  # type: ignore[arg-type]
        rows = boards_of(task, 3)
        assert task.valid(rows.tokens_BT, rows.target_BT).all()
