"""The contracts of every environment task: over the catalogue, and over variants that have code of their own."""

from __future__ import annotations

import copy
import hashlib
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from pipeline.config.base import filled
from pipeline.config.spec_files import write_spec
from pipeline.config.tasks import MysteryPath, TMaze
from pipeline.storage.loader import read_dataset
from pipeline.storage.rng import derive_key
from pipeline.tasks import environment as module
from pipeline.tasks.environment import BatchedEnvironment, EpisodeStream
from pipeline.tasks.generate import generate_shard, seal_dataset
from tests.tasks.environments import KINDS, SMALL, Single, made, some_actions, task_of

KEY = derive_key("test", 0)
STEPS = 60
DRAWS = find_spec("pygame") is not None
each = pytest.mark.parametrize("name", SMALL)


def rows_of(batch: Any) -> list[str]:
    return [str(row) for row in batch.to_pylist()]


def trace(env: BatchedEnvironment, actions: list[np.ndarray]) -> list[Any]:
    """All that happens, as bytes."""
    told = []
    for action in actions:
        seen, reward, terminated, truncated, infos = env.step(action)
        told.append([values.tobytes() for values in (seen, reward, terminated, truncated)])
        told[-1] += [(key, infos[key].tobytes()) for key in sorted(infos)]
    return told


@each
def test_episodes_follow_from_their_key(name: str) -> None:
    task = task_of(SMALL[name])
    one, same, other = (task.episodes(50, key) for key in (KEY, KEY, derive_key("test", 1)))
    assert one.equals(same) and not one.equals(other)
    assert set(one.schema.names) == {*task.config.columns, *task.meanings}
    assert set(task.config.columns) <= set(one.schema.names)
    assert task.episodes(0, KEY).num_rows == 0 and task.episodes(0, KEY).schema.equals(one.schema)


@each
def test_no_episode_is_in_two_splits(name: str) -> None:
    task = task_of(SMALL[name])
    found = {split: set(rows_of(task.episodes(500, KEY, split))) for split in ("train", "validation", "test")}
    if task.config.overlap and len(found["train"]) < 100:
        return  # so few episodes that every split has all of them, and the entry says so
    assert not found["train"] & found["test"] and not found["train"] & found["validation"] and not found["validation"] & found["test"]


@each
def test_spaces_are_what_the_config_says(name: str) -> None:
    config, env = SMALL[name], made(SMALL[name])
    space: Any = env.single_observation_space
    assert space.shape == config.observation.shape
    assert space.dtype == (np.uint8 if config.observation.kind == "pixels" else np.float32)
    action: Any = env.single_action_space
    assert tuple(action.nvec if hasattr(action, "nvec") else [action.n]) == config.actions
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.observation_space.contains(env.reset()[0])
    for actions in some_actions(env, 40):
        seen, reward, terminated, truncated, infos = env.step(actions)
        assert env.observation_space.contains(seen)
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
        assert reward.shape == terminated.shape == truncated.shape == (5,)
        assert not infos or env.observation_space.contains(infos["final_obs"])


@each
def test_gymnasium_finds_nothing_to_complain_about(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity")  # of any vector without bounds
        warnings.filterwarnings("ignore", message=".*(spec|render modes)")  # it is ours alone, and registered nowhere
        check_env(Single(SMALL[name]), skip_render_check=not DRAWS and name.startswith("gymnasium"), skip_close_check=True)


@each
def test_a_seed_is_everything(name: str) -> None:
    one, same, other = made(SMALL[name], seed=3), made(SMALL[name], seed=3), made(SMALL[name], seed=4)
    actions = some_actions(one, STEPS)
    first = one.reset()[0]
    assert np.array_equal(first, same.reset()[0])
    other.reset()
    told = trace(one, actions)
    assert told == trace(same, actions)
    assert told != trace(other, actions)
    assert np.array_equal(first, other.reset(seed=3)[0])
    assert told == trace(other, actions)


@each
def test_an_end_is_told_and_the_next_episode_begins_at_once(name: str) -> None:
    env = made(SMALL[name], batch=7)
    env.reset()
    total, length = np.zeros(7), np.zeros(7, int)
    ends = 0
    for actions in some_actions(env, 2 * STEPS):
        seen, reward, terminated, truncated, infos = env.step(actions)
        total, length = total + reward, length + 1
        ended = terminated | truncated
        assert not (terminated & truncated).any()
        assert bool(infos) == ended.any()
        if not infos:
            continue
        ends += ended.sum()
        for key in ("final_obs", "success", "return", "length"):
            assert np.array_equal(infos[f"_{key}"], ended)
            assert not infos[key][~ended].any(), "nothing is said of those who go on"
        assert infos["return"][ended] == pytest.approx(total[ended])
        assert np.array_equal(infos["length"][ended], length[ended])
        assert set(infos["success"].tolist()) <= {0, 1}
        total[ended], length[ended] = 0, 0
    assert ends > 10


@each
def test_gymnasiums_wrappers_understand_it(name: str) -> None:
    env = RecordEpisodeStatistics(made(SMALL[name], batch=4))
    env.reset(seed=0)
    told = [env.step(actions)[4] for actions in some_actions(made(SMALL[name], batch=4), STEPS)]
    ends = [infos for infos in told if infos]
    assert ends
    for infos in ends:
        ended = infos["_episode"]
        assert np.array_equal(ended, infos["_length"])
        assert infos["episode"]["r"][ended] == pytest.approx(infos["return"][ended])
        assert np.array_equal(infos["episode"]["l"][ended], infos["length"][ended])


@each
def test_what_was_given_out_stays_as_it_was(name: str) -> None:
    env = made(SMALL[name])
    given, kept = [env.reset()[0]], []
    kept.append(given[0].copy())
    for actions in some_actions(env, STEPS):
        *arrays, infos = env.step(actions)
        given += [*arrays, *infos.values()]
        kept += [values.copy() for values in [*arrays, *infos.values()]]
    assert all(np.array_equal(one, other) for one, other in zip(given, kept, strict=True))


@each
def test_it_goes_on_bit_by_bit(name: str) -> None:
    env, other = made(SMALL[name], seed=1), made(SMALL[name], seed=2)
    assert env.reproducible
    actions = some_actions(env, STEPS + 17)
    for copies, steps in ((env, 17), (other, 5)):
        copies.reset()
        trace(copies, actions[:steps])
    state = copy.deepcopy(env.state_dict())
    told = trace(env, actions[17:])
    other.load_state_dict(state)
    assert trace(other, actions[17:]) == told
    env.load_state_dict(state)
    assert trace(env, actions[17:]) == told


@each
def test_coming_back_is_noticed_to_have_worked(name: str) -> None:
    env, other = made(SMALL[name], seed=1), made(SMALL[name], seed=2)
    for copies in (env, other):
        copies.reset()
    trace(env, some_actions(env, 17))
    assert other.load_state_dict(copy.deepcopy(env.state_dict())) is None


@pytest.mark.parametrize("forgotten", ["position_B", "word_B", "last_B", "cue_B"])
def test_what_a_state_forgets_is_noticed_where_it_shows(forgotten: str) -> None:
    task = task_of(SMALL["t_maze"])
    env, other = task.environment(5, 1), task.environment(5, 2)
    for copies in (env, other):
        copies.state_arrays = tuple(name for name in copies.state_arrays if name != forgotten)
        copies.reset()
    env.step(np.full(5, 3))
    difference = other.load_state_dict(copy.deepcopy(env.state_dict()))
    hidden = forgotten in ("last_B", "cue_B")
    assert difference is None if hidden else re.fullmatch(r"environment \d shows another observation", str(difference))


@each
def test_its_state_is_plain(name: str) -> None:
    env = made(SMALL[name])
    env.play(task_of(SMALL[name]).episodes(5, KEY, "test"))
    trace(env, some_actions(env, 5))

    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(item)
        assert isinstance(value, dict | list | int | str) or (isinstance(value, np.ndarray) and value.dtype != object)

    check(env.state_dict())


@each
def test_held_out_episodes_are_the_same_for_every_player(name: str) -> None:
    """Whoever plays, in whatever company, and whatever was played before: the same actions meet the same episode."""
    config = SMALL[name]
    episodes = task_of(config).episodes(6, KEY, "test")
    env = made(config, batch=6)
    actions = some_actions(env, 20)
    first = env.play(episodes)[0]
    told = [first, *(env.step(action)[0] for action in actions)]
    order = np.array([4, 1, 5])
    other = made(config, batch=3, seed=9)
    other.reset()
    trace(other, some_actions(other, 7, seed=5))
    again = [other.play(episodes.take(order))[0], *(other.step(action[order])[0] for action in actions)]
    assert all(np.array_equal(one[order], two) for one, two in zip(told, again, strict=True))


REWARDED: dict[str, Any] = {
    "every step rewarded": MysteryPath(reward_step=0.5, max_episode_steps=15),
    "steps and falls cost": MysteryPath(reward_step=-0.1, reward_fall_off=-1, max_episode_steps=15),
    "falls rewarded": MysteryPath(reward_fall_off=0.5, max_episode_steps=15),
    "goal to be avoided": MysteryPath(reward_goal=-1, reward_path_progress=-0.1, max_episode_steps=15),
}


@pytest.mark.parametrize("name", [*SMALL, *REWARDED])
def test_no_return_leaves_the_range_that_the_config_gives(name: str) -> None:
    config = (SMALL | REWARDED)[name]
    if config.returns is None:
        pytest.skip("no range is known")
    lowest, highest = config.returns
    batch = 60
    env = made(config, batch)
    episodes = task_of(config).episodes(batch, KEY, "test")
    highest_B = np.full(batch, highest) if highest is not None else episodes.column("best").to_numpy()
    constant = [[np.full_like(action, value) for action in some_actions(env, STEPS)] for value in range(min(config.actions))]
    for actions in (some_actions(env, STEPS), *constant):
        env.play(episodes)
        playing_B = np.ones(batch, bool)
        for action in actions:
            infos = env.step(action)[4]
            if infos:
                now_B = infos["_return"] & playing_B
                assert (infos["return"][now_B] >= lowest - 1e-9).all()
                assert (infos["return"][now_B] <= highest_B[now_B] + 1e-9).all()
                playing_B &= ~now_B


def test_the_lowest_return_of_the_t_maze_is_reached() -> None:
    """Waiting at the start, and the wrong turn in the last step."""
    config = TMaze(corridor=3, distractors=0, max_episode_steps=7)
    env = made(config, 8)
    episodes = task_of(config).episodes(8, KEY, "test")
    env.play(episodes)
    for direction in (2, 2, 2, 2, 3, 3):
        env.step(np.full(8, direction))
    infos = env.step(1 - episodes.column("cue").to_numpy())[4]
    assert infos["return"] == pytest.approx(config.returns.lowest)


@each
def test_a_played_episode_begins_again_when_it_ends_and_the_state_knows(name: str) -> None:
    config = SMALL[name]
    env, other = made(config), made(config, seed=8)
    actions = some_actions(env, STEPS)
    first = env.play(task_of(config).episodes(5, KEY, "test"))[0]
    ended = np.zeros(5, bool)
    for at, action in enumerate(actions):
        seen, _, terminated, truncated, _ = env.step(action)
        ends = terminated | truncated
        assert np.array_equal(seen[ends], first[ends])
        ended |= ends
        if at == 10:
            other.reset()
            other.load_state_dict(copy.deepcopy(env.state_dict()))
    assert ended.all()
    env.play(task_of(config).episodes(5, KEY, "test"))
    trace(env, actions[:11])
    assert trace(env, actions[11:]) == trace(other, actions[11:])
    assert made(config).reset()[0].tobytes() == env.reset(seed=0)[0].tobytes(), "reset goes back to training"


@each
def test_episodes_survive_a_sealed_dataset(name: str, tmp_path: Path) -> None:
    config = SMALL[name]
    spec = {"id": "x-12345678", "task": filled(config), "split": "test", "rows": 9, "shards": 2}
    write_spec(tmp_path / "dataset.yaml", spec)
    for index in (1, 0):
        generate_shard(tmp_path, index)
    seal_dataset(tmp_path)
    table = read_dataset(tmp_path)
    assert table.num_rows == 9
    task = task_of(config)
    expected = [
        row for index, rows in ((0, 5), (1, 4)) for row in rows_of(task.episodes(rows, derive_key("rows", "x-12345678", index), "test"))
    ]
    assert rows_of(table) == expected
    assert np.array_equal(made(config, batch=9).play(table)[0][5:], made(config, batch=4).play(table.slice(5))[0])
    card = (tmp_path / "card.md").read_text()
    assert "bytes per row" in card and "tokens" not in card.split("## Specification")[0]
    assert all(f"| {column} | {meaning} |" in card for column, meaning in task.meanings.items())


@each
def test_frames_show_every_copy(name: str) -> None:
    env = made(SMALL[name])
    env.reset()
    if name.startswith("gymnasium") and not DRAWS:
        pytest.skip("no pygame, which gymnasium's own environments draw with")
    frames = [env.render()]
    for actions in some_actions(env, 10):
        env.step(actions)
        frames.append(env.render())
    for frame in frames:
        assert frame.dtype == np.uint8 and frame.ndim == 4 and (len(frame), frame.shape[3]) == (5, 3)
    assert any(not np.array_equal(frames[0][index], frame[index]) for frame in frames for index in range(5))


@pytest.mark.parametrize(("name", "digest"), [("t_maze", "afd04d055a640cd9"), ("mystery_path", "ecfcf63f3b1879ba")])
def test_golden_content(name: str, digest: str) -> None:
    """What 8 copies with the defaults meet in 300 steps of training; a change here makes every training in them a different one."""
    env, rng = made(KINDS[name](), batch=8), np.random.default_rng(0)
    content = hashlib.sha256(env.reset()[0].tobytes())
    for _ in range(300):
        seen, reward, *_ = env.step(rng.integers(4, size=8))
        content.update(seen.tobytes())
        content.update(reward.tobytes())
    assert content.hexdigest()[:16] == digest


def test_training_goes_through_the_pools_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL", 8)
    task = task_of(SMALL["t_maze"])
    supply = EpisodeStream(task, seed=5)
    found = [supply.take(count) for count in (3, 5, 1, 20, 0, 6)]
    seeds = np.concatenate([columns["seed"] for columns in found])
    pools = [task.sample_episodes(8, derive_key("episodes", 5, pool))["seed"] for pool in range(5)]
    assert np.array_equal(seeds, np.concatenate(pools)[: len(seeds)])
    assert len(set(seeds.tolist())) == len(seeds) == 35
    assert (supply.pool, supply.place) == (4, 3)


def test_a_config_needs_neither_torch_nor_gymnasium() -> None:
    code = (
        "import sys\n"
        "from pipeline.config.tasks import TASKS\n"
        "print([TASKS[name]().sizes for name in ('t_maze', 'mystery_path', 'gymnasium')])\n"
        "print(sorted({'torch', 'gymnasium', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
