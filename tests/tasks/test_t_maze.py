"""The T-Maze: against an oracle step by step, and what scripted agents get out of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.tasks import TMaze as Config
from pipeline.storage.rng import derive_key
from pipeline.tasks.t_maze import DOWN, LEFT, RIGHT, UP, TMaze, TMazes
from tests.tasks.t_maze_oracle import Maze

KEY = derive_key("test", 0)


def configs() -> st.SearchStrategy[Config]:
    """Mazes of every kind, the corridor fixed or drawn."""
    corridor = st.integers(2, 12) | st.tuples(st.integers(2, 6), st.integers(6, 12)).map(lambda pair: {"uniform": pair})
    return st.builds(
        Config,
        corridor=corridor,  # type: ignore[arg-type]
        distractors=st.sampled_from([0, 1, 6, 64]),
        form=st.sampled_from(["position", "bakker"]),
        position_bits=st.integers(1, 10),
        max_episode_steps=st.integers(12, 30),
        allow_leave_junction=st.booleans(),
    )


def made(batch: int, seed: int = 0, **fields: Any) -> TMazes:
    """Mazes that have begun."""
    env = TMaze(Config(**fields)).environment(batch, seed)
    env.reset()
    return env


@settings(max_examples=60)
@given(config=configs(), key=st.integers(0, 1000))
def test_every_step_is_what_the_oracle_says(config: Config, key: int) -> None:
    task, batch = TMaze(config), 6
    episodes = task.episodes(batch, derive_key(key), "validation")
    env = task.environment(batch, 0)
    seen, _ = env.play(episodes)
    starts = [(row["corridor"], row["cue"], row["seed"]) for row in episodes.to_pylist()]
    mazes = [Maze(config, *start) for start in starts]
    assert seen.tolist() == [maze.see() for maze in mazes]
    rng = np.random.default_rng(key)
    for _ in range(40):
        actions = rng.choice(4, size=batch, p=[0.05, 0.05, 0.2, 0.7])
        seen, reward, terminated, truncated, infos = env.step(actions)
        for copy, maze in enumerate(mazes):
            *told, right = maze.act(int(actions[copy]))
            assert [reward[copy], terminated[copy], truncated[copy]] == told
            if told[1] or told[2]:
                assert infos["final_obs"][copy].tolist() == maze.see()
                assert (infos["success"][copy], infos["length"][copy]) == (right, maze.step)
                mazes[copy] = Maze(config, *starts[copy])
            assert seen[copy].tolist() == mazes[copy].see()


def finish(env: TMazes, turn: Any, episodes: int) -> dict[str, np.ndarray]:
    """Returns, lengths and successes of agents that walk to the junction and turn as `turn(cue_B)` says."""
    found: dict[str, list[Any]] = {"return": [], "length": [], "success": []}
    while len(found["return"]) < episodes:
        junction = env.position_B == env.last_B
        *_, infos = env.step(np.where(junction, turn(env.cue_B), RIGHT))
        for name, values in found.items():
            values += infos[name][infos["_success"]].tolist() if infos else []
    return {name: np.array(values[:episodes]) for name, values in found.items()}


@pytest.mark.parametrize("corridor", [2, 10, 200])
def test_who_remembers_gets_all_there_is(corridor: int) -> None:
    told = finish(made(50, corridor=corridor), lambda cue_B: cue_B, episodes=200)
    best = TMaze(Config(corridor=corridor)).sample_episodes(1, KEY)["best"][0]
    assert told["return"] == pytest.approx(4 - 0.1 * (corridor - 1)) and best == pytest.approx(4 - 0.1 * (corridor - 1))
    assert (told["length"] == corridor).all() and (told["success"] == 1).all()


def test_who_has_forgotten_is_right_half_the_time() -> None:
    rng = np.random.default_rng(0)
    for turn in (lambda cue_B: rng.integers(2, size=len(cue_B)), lambda cue_B: np.full(len(cue_B), UP)):
        told = finish(made(100, corridor=10), turn, episodes=2000)
        assert told["success"].mean() == pytest.approx(Config().chance, abs=0.03)
        assert told["return"].mean() == pytest.approx(1.5 - 0.9, abs=0.16)


def test_the_cue_is_seen_once() -> None:
    env = made(64, corridor=5)
    first, _ = env.reset()
    assert sorted(set(map(tuple, first[:, :2].tolist()))) == [(0, 1), (1, 0)]
    assert np.array_equal(first[:, 0], env.cue_B), "down is said by the first number, up by the second"
    for action in (RIGHT, LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT, LEFT):
        seen = env.step(np.full(64, action))[0]
        assert not seen[:, :2].any()
    assert (env.position_B == 4).all(), "one cannot leave the junction"


def test_the_junction_may_be_left_where_that_is_asked_for() -> None:
    env = made(3, corridor=3, allow_leave_junction=True)
    places = []
    for action in (RIGHT, RIGHT, RIGHT, LEFT, LEFT, LEFT):
        env.step(np.full(3, action))
        places.append(env.position_B.tolist())
    assert places == [[place] * 3 for place in (1, 2, 2, 1, 0, 0)]


def test_codes_of_neighbouring_positions_differ_in_one_bit() -> None:
    config = Config(corridor=300, distractors=0)
    env = made(1, corridor=300, distractors=0)
    codes = [env.reset()[0][0], *(env.step(np.array([RIGHT]))[0][0] for _ in range(299))]
    assert (config.bits, config.observation.shape) == (9, (11,))
    assert [int(np.abs(one[2:] - other[2:]).sum()) for one, other in pairwise(codes)] == [1] * 299
    assert len({tuple(code[2:].tolist()) for code in codes}) == 300


def test_distractors_are_fair_and_independent_coins() -> None:
    env = made(500, corridor=40, distractors=8)
    seen = np.stack([env.step(np.full(500, RIGHT))[0][:, -8:] for _ in range(39)])
    assert not env.reset()[0][:, -8:].any(), "none in the first observation"
    flat = 2 * seen.reshape(-1, 8) - 1
    assert np.abs(flat.mean(0)).max() < 4 / np.sqrt(len(flat))
    assert np.abs(flat.T @ flat / len(flat) - np.eye(8)).max() < 5 / np.sqrt(len(flat)), "between bits"
    signs = 2 * seen - 1
    assert abs((signs[1:] * signs[:-1]).mean()) < 5 / np.sqrt(signs.size), "between steps"
    assert abs((signs[:, 1:] * signs[:, :-1]).mean()) < 5 / np.sqrt(signs.size), "between copies"


def test_cues_and_corridors_are_drawn_evenly_and_apart() -> None:
    drawn = TMaze(Config(corridor={"uniform": (5, 8)})).sample_episodes(20_000, KEY)  # type: ignore[arg-type]
    for corridor in (5, 6, 7, 8):
        chosen = drawn["corridor"] == corridor
        assert chosen.mean() == pytest.approx(0.25, abs=0.02)
        assert drawn["cue"][chosen].mean() == pytest.approx(0.5, abs=0.04)
    assert len(set(drawn["seed"].tolist())) == 20_000


def test_an_episode_is_cut_off_at_the_limit_and_not_earlier() -> None:
    env = made(4, corridor=10, max_episode_steps=1000)
    ends = [env.step(np.full(4, DOWN))[2:4] for _ in range(1000)]
    assert not any(terminated.any() for terminated, _ in ends)
    assert [bool(truncated.all()) for _, truncated in ends] == [False] * 999 + [True]
    assert not any(truncated.any() for _, truncated in ends[:-1])


def test_a_turn_at_the_last_step_ends_the_episode_and_is_not_cut_off() -> None:
    env = made(8, corridor=5, max_episode_steps=5)
    for _ in range(4):
        assert not env.step(np.full(8, RIGHT))[4]
    _, reward, terminated, truncated, infos = env.step(env.cue_B)
    assert (reward == 4).all() and terminated.all() and not truncated.any() and (infos["success"] == 1).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corridor": 1}, "got a corridor of 1; expected at least 2 positions: start and junction"),
        ({"corridor": {"uniform": (1, 9)}}, "got a corridor of 1; expected"),
        (
            {"corridor": 30, "max_episode_steps": 29},
            "got a corridor of 30 and 29 steps; expected at least a step per position",
        ),
        ({"distractors": 65}, "less than or equal to 64"),
    ],
)
def test_mazes_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**fields)


def test_an_evaluation_measures_corridors() -> None:
    config = Config(corridor={"uniform": (5, 9)}, position_bits=9)  # type: ignore[arg-type]
    assert [task.corridor for task in Config.evaluation.model_validate({"corridors": [300, 20]}).points(config)] == [20, 300]
    assert [task.corridor for task in Config.evaluation().points(config)] == [9]
    assert {task.observation for task in Config.evaluation.model_validate({"corridors": [300, 20]}).points(config)} == {config.observation}
