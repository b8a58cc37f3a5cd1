"""Mystery Path: rules, paths and pixels against an oracle, and what an agent that knows the path gets out of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tasks import MysteryPath as Config
from pipeline.storage.arrow import from_numpy
from pipeline.storage.rng import derive_key
from pipeline.tasks.hidden_paths import BORDER, find_paths, sample_random_inputs, walls
from pipeline.tasks.mystery_path import MysteryPath, MysteryPaths
from tests.tasks import mystery_path_oracle as oracle

KEY = derive_key("test", 0)
SNAKE = [(0, 3), (1, 3), (1, 2), (2, 2), (3, 2), (3, 3), (3, 4), (4, 4), (5, 4), (6, 4)]


def tiles_of(path_N: Any) -> list[tuple[int, int]]:
    """The tiles of a path in their order."""
    placed = sorted((place, tile) for tile, place in enumerate(np.asarray(path_N).tolist()) if place)
    assert [place for place, _ in placed] == list(range(1, len(placed) + 1))
    return [(tile % 7, tile // 7) for _, tile in placed]


def episodes_of(*paths: list[tuple[int, int]]) -> pa.RecordBatch:
    """Episodes with these paths."""
    path_BN = np.zeros((len(paths), 49), np.uint8)
    for row, path in enumerate(paths):
        for place, (x, y) in enumerate(path, 1):
            path_BN[row, 7 * y + x] = place
    return pa.record_batch({"path": pa.FixedSizeListArray.from_arrays(from_numpy(path_BN.reshape(-1)), 49)})


def playing(*paths: list[tuple[int, int]], **fields: Any) -> MysteryPaths:
    """Boards with these paths, at their start."""
    env = MysteryPath(Config(**fields)).environment(len(paths), 0)
    env.play(episodes_of(*paths))
    return env


def forward(config: Config, facing: int, target: tuple[int, int], x: int, y: int) -> Any:
    """What brings an agent nearer to a neighbouring tile; facing in eighths of a turn to the left."""
    if config.moves == "continuous":
        right, down = target[0] * 12 + 6 - x, target[1] * 12 + 6 - y
        return [0 if abs(right) < 2 else 1 if right < 0 else 2, 0 if abs(down) < 2 else 1 if down < 0 else 2]
    wanted = {(0, -1): 0, (-1, 0): 2, (0, 1): 4, (1, 0): 6}[target[0] - x // 12, target[1] - y // 12]
    return {0: 3, 2: 1, 4: 1, 6: 2}[(wanted - facing) % 8]


@settings(max_examples=40)
@given(
    config=st.builds(
        Config,
        moves=st.sampled_from(["grid", "continuous"]),
        show_origin=st.booleans(),
        show_goal=st.booleans(),
        visual_feedback=st.booleans(),
        reward_goal=st.sampled_from([1.0, 3.0]),
        reward_path_progress=st.sampled_from([0.0, 0.1]),
        reward_fall_off=st.sampled_from([0.0, -0.25]),
        reward_step=st.sampled_from([0.0, -0.01]),
        max_episode_steps=st.sampled_from([None, 33]),
    ),
    key=st.integers(0, 1000),
)
def test_every_step_is_what_the_oracle_says(config: Config, key: int) -> None:
    task, batch = MysteryPath(config), 4
    episodes = task.episodes(batch, derive_key(key), "test")
    env = task.environment(batch, 0)
    seen, _ = env.play(episodes)
    paths = [tiles_of(path) for path in episodes.column("path").to_pylist()]
    boards = [oracle.Board(config, path) for path in paths]
    rng = np.random.default_rng(key)
    for _ in range(150):
        actions = np.array([wandering(config, board, rng) for board in boards])
        seen, reward, terminated, truncated, infos = env.step(actions)
        for copy, board in enumerate(boards):
            told = board.act(actions[copy].tolist())
            assert abs(reward[copy] - told[0]) < 1e-12 and (terminated[copy], truncated[copy]) == told[1:]
            if told[1] or told[2]:
                assert np.allclose(infos["final_obs"][copy], board.see())
                expected = (told[1], board.steps, board.fails)
                assert (infos["success"][copy], infos["length"][copy], infos["fails"][copy]) == expected
                boards[copy] = oracle.Board(config, paths[copy])
        assert np.allclose(seen, [board.see() for board in boards])


def wandering(config: Config, board: oracle.Board, rng: np.random.Generator) -> Any:
    """What an agent does that knows the path and often errs."""
    here = (board.x // 12, board.y // 12)
    if rng.random() < 0.25 or here not in board.path or here == board.path[-1]:
        return rng.integers(4) if config.moves == "grid" else rng.integers(3, size=2).tolist()
    names = oracle.EIGHTHS
    return forward(config, names.index(board.facing), board.path[board.path.index(here) + 1], board.x, board.y)


@pytest.mark.parametrize("moves", ["grid", "continuous"])
def test_who_knows_the_path_gets_all_there_is(moves: Any) -> None:
    config = Config(moves=moves)
    task = MysteryPath(config)
    episodes = task.episodes(200, KEY, "test")
    env = task.environment(200, 0)
    env.play(episodes)
    paths = [tiles_of(path) for path in episodes.column("path").to_pylist()]
    best = episodes.column("best").to_numpy()
    assert best == pytest.approx([1 + 0.1 * (len(path) - 2) for path in paths])
    assert episodes.column("tiles").to_pylist() == [len(path) for path in paths]
    told = np.full(200, np.nan)
    while np.isnan(told).any():
        state = zip(paths, env.facing_B.tolist(), env.at_B2.tolist(), strict=True)
        actions = [forward(config, facing, path[path.index((x // 12, y // 12)) + 1], x, y) for path, facing, (x, y) in state]
        infos = env.step(np.array(actions))[4]
        if infos:
            done = infos["_success"] & np.isnan(told)
            told[done] = infos["return"][done]
            assert infos["success"][infos["_success"]].all() and not infos["fails"].any()
    assert told == pytest.approx(best)


def test_paths_lead_from_a_side_to_the_one_across() -> None:
    drawn = MysteryPath(Config()).sample_episodes(400, KEY, "train")
    for path in map(tiles_of, drawn["path"]):
        assert all(abs(one[0] - other[0]) + abs(one[1] - other[1]) == 1 for one, other in pairwise(path))
        origin, goal = path[0], path[-1]
        assert any({origin[axis], goal[axis]} == {0, 6} for axis in (0, 1))
        assert len(set(path)) == len(path) >= 7


def test_paths_are_as_long_as_those_of_memory_gym() -> None:
    """150 of its paths were 7 to 14 tiles long, 10.07 on average; the standard error of that is 0.13."""
    path_BN = find_paths(sample_random_inputs(20_000, np.random.default_rng(1)))
    tiles_B = path_BN.max(1)
    assert tiles_B.mean() == pytest.approx(10.07, abs=0.3)
    assert np.mean((tiles_B >= 7) & (tiles_B <= 14)) > 0.99
    origin_B = (path_BN == 1).argmax(1)
    columns = np.bincount(origin_B % 7, minlength=7) / len(origin_B)
    assert columns == pytest.approx(np.array([9, 2, 2, 2, 2, 2, 9]) / 28, abs=0.015), "each side as often, its tiles as well"


def test_paths_are_what_the_oracle_finds() -> None:
    given_ = sample_random_inputs(400, np.random.default_rng(2))
    standing_NB, path_BN = walls(given_), find_paths(given_)
    for row in range(400):
        origin, goal = ((int(tile) % 7, int(tile) // 7) for tile in (given_.origin_B[row], given_.goal_B[row]))
        inner = {(tile % 7, tile // 7) for tile in np.flatnonzero(given_.inner_NB[:, row]).tolist()}
        outer = [(tile % 7, tile // 7) for tile in BORDER[np.argsort(given_.rank_NB[:, row])].tolist()]
        standing = oracle.walls(origin, goal, inner, outer, int(given_.outer_B[row]))
        assert standing == {(tile % 7, tile // 7) for tile in np.flatnonzero(standing_NB[:49, row]).tolist()}
        cost = given_.cost_DNB[:, :, row].tolist()
        found = oracle.search(origin, goal, standing, lambda tile, way, cost=cost: cost[way][7 * tile[1] + tile[0]])
        assert tiles_of(path_BN[row]) == found


def test_who_falls_stands_on_the_origin_at_the_next_step_whatever_it_does() -> None:
    env = playing(SNAKE, SNAKE, SNAKE, SNAKE)
    seen = env.step(np.full(4, 3))[0]
    assert env.fallen_B.all() and (env.at_B2 == (6, 2 * 12 + 6)).all(), "up, off the path"
    assert (seen[:, -1] == 1).all()
    seen, reward, *_ = env.step(np.arange(4))
    assert not env.fallen_B.any() and (env.at_B2 == (6, 3 * 12 + 6)).all()
    assert (env.facing_B == 0).all() and not reward.any() and not seen[:, -1].any()
    assert (env.fails_B == 1).all()


def test_a_tile_of_the_path_pays_once() -> None:
    env = playing(SNAKE)
    paid = [float(env.step(np.array([action]))[1][0]) for action in (2, 3, 1, 1, 3, 1, 1, 3)]
    assert paid == pytest.approx([0, 0.1, 0, 0, 0, 0, 0, 0]), "there, back to the origin, and there again"


@pytest.mark.parametrize(("agent", "text"), oracle.AGENTS.items())
@pytest.mark.parametrize("at", [(6, 6), (78, 78), (6, 42), (43, 8), (77, 30)])
def test_a_frame_is_the_picture(agent: tuple[str, bool], text: str, at: tuple[int, int]) -> None:
    env = playing(SNAKE, moves="continuous", view="pixels")
    env.facing_B[:], env.fallen_B[:] = oracle.EIGHTHS.index(agent[0]), agent[1]
    env.at_B2[:] = at
    expected = oracle.picture(text, at, {SNAKE[0]: (0, 0, 255), SNAKE[-1]: (0, 255, 0)})
    assert np.array_equal(env.render()[0], np.array(expected, np.uint8))


def test_hands_turn_with_the_agent() -> None:
    """The middles of the hands lie where the agent faces, and nothing of it leaves the stamp."""
    env = playing(*[SNAKE] * 8, moves="continuous", view="pixels", show_origin=False, show_goal=False)
    env.facing_B[:], env.at_B2[:] = np.arange(8), 42
    frames = env.render()
    ways = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]
    for frame, (right, down) in zip(frames, ways, strict=True):
        down_N, right_N = np.nonzero((frame == 50).all(-1))
        assert 16 <= len(down_N) <= 24
        middle = np.array([right_N.mean() - 41.5, down_N.mean() - 41.5])
        assert np.dot(middle, (right, down)) / np.hypot(*middle) / np.hypot(right, down) > 0.98
        assert not frame[:34].any() and not frame[50:].any() and not frame[:, :34].any() and not frame[:, 50:].any()


def test_symbols_say_what_pixels_show() -> None:
    assert Config().observation == ((49 * 3 + 4 + 1,), "vector")
    assert Config(moves="continuous", show_origin=False, visual_feedback=False).observation == ((49 * 2 + 8 + 2,), "vector")
    assert Config(view="pixels").observation == ((84, 84, 3), "pixels")
    assert (Config().longest, Config(moves="continuous").longest, Config(max_episode_steps=9).longest) == (128, 512, 9)
