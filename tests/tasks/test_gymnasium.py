"""Gymnasium's environments behind our interface: what the adapter changes, and what it must not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pydantic import ValidationError

from pipeline.config.tasks import Gymnasium as Config
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key
from pipeline.tasks.gymnasium import Gymnasium, GymnasiumVectorEnv, _bins

KEY = derive_key("test", 0)


class Room(gymnasium.Env[Any, Any]):
    """Counts its steps; sees pixels or a dictionary, and is told with which space of actions it comes."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}

    def __init__(self, render_mode: str | None = None, pixels: str = "", actions: str = "discrete", fails: bool = False) -> None:
        self.render_mode, self.pixels = render_mode, pixels
        images = {"grey": (6, 5), "rgb": (6, 5, 3)}
        box: Any = spaces.Box(0, 255, images.get(pixels, (6, 5)), np.uint8)
        self.observation_space = box if pixels else spaces.Dict({"count": spaces.Discrete(40), "at": spaces.Box(-1, 1, (2, 2))})
        every: dict[str, spaces.Space[Any]] = {
            "discrete": spaces.Discrete(3, start=5),
            "many": spaces.MultiDiscrete([2, 3]),
            "bits": spaces.MultiBinary(2),
            "real": spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64),
            "unbounded": spaces.Box(-np.inf, np.inf, (1,)),
            "text": spaces.Text(3),
        }
        self.action_space = every[actions]
        self.taken: list[Any] = []
        if fails:
            raise ImportError("no engine")

    def see(self) -> Any:
        """What there is to see."""
        count = len(self.taken)
        if self.pixels:
            return np.full(self.observation_space.shape or (), count + self.first, np.uint8)
        return {"count": count, "at": np.full((2, 2), self.first / 100, np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.taken, self.first = [], int(self.np_random.integers(100))
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count."""
        assert self.action_space.contains(action), action
        self.taken.append(action)
        ended = len(self.taken) == 4
        return self.see(), 1.0, ended, False, {"success": ended and self.first % 2 == 0}

    def render(self) -> Any:
        """A frame in the colour of the count."""
        return np.full((4, 4, 3), len(self.taken), np.uint8)


@pytest.fixture(autouse=True)
def rooms() -> Iterator[None]:
    """Two ids: a room, and one that says of itself that it cannot be relied on."""
    room: Any = Room
    gymnasium.register("Room-v0", room, max_episode_steps=100)
    gymnasium.register("Dice-v0", room, nondeterministic=True, max_episode_steps=100)
    yield
    for name in ("Room-v0", "Dice-v0"):
        gymnasium.registry.pop(name)


def made(batch: int = 3, **fields: Any) -> GymnasiumVectorEnv:
    """Copies that have begun; a room, if nothing else is said."""
    env = Gymnasium(Config(**{"id": "Room-v0", "observation_shape": [44], "num_actions": [3], **fields})).environment(batch, 0)
    env.reset()
    return env


@pytest.mark.parametrize(
    ("fields", "convert"),
    [
        ({"id": "CartPole-v1", "observation_shape": [4], "num_actions": [2]}, int),
        ({"id": "CartPole-v1", "observation_shape": [4], "num_actions": [2], "max_episode_steps": 11}, int),
        (
            {"id": "Pendulum-v1", "observation_shape": [3], "num_actions": [9], "max_episode_steps": 30},
            lambda action: np.array([-2 + action * 0.5], np.float32),
        ),
        ({"id": "Acrobot-v1", "observation_shape": [6], "num_actions": [3], "max_episode_steps": 30, "kwargs": {}}, int),
    ],
)
def test_every_step_is_that_of_the_environment_itself(fields: dict[str, Any], convert: Any) -> None:
    task = Gymnasium(Config(**fields))
    episodes = task.episodes(3, KEY, "test")
    env = task.environment(3, 0)
    plain = [gymnasium.make(fields["id"], max_episode_steps=fields.get("max_episode_steps")) for _ in range(3)]
    seeds = episodes.column("seed").to_pylist()
    seen, _ = env.play(episodes)
    assert np.array_equal(seen, [one.reset(seed=seed)[0] for one, seed in zip(plain, seeds, strict=True)])
    env.action_space.seed(0)
    total = np.zeros(3)
    for _ in range(60):
        actions = env.action_space.sample()
        seen, reward, terminated, truncated, infos = env.step(actions)
        for copy, one in enumerate(plain):
            expected, paid, *ends, _ = one.step(convert(actions[copy]))
            total[copy] += paid
            assert (reward[copy], terminated[copy], truncated[copy]) == (paid, *ends)
            if any(ends):
                assert np.array_equal(infos["final_obs"][copy], np.asarray(expected, np.float32))
                assert infos["return"][copy] == pytest.approx(total[copy])
                expected, total[copy] = one.reset(seed=seeds[copy])[0], 0
            assert np.array_equal(seen[copy], np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("actions", "choices", "given", "taken"),
    [
        ("discrete", (3,), [0, 2], [5, 7]),
        ("many", (2, 3), [[1, 2], [0, 1]], [[1, 2], [0, 1]]),
        ("bits", (2, 2), [[1, 0], [1, 1]], [[1, 0], [1, 1]]),
        ("real", (3, 5), [[0, 0], [1, 3]], [[-1.0, 0.0], [0.0, 3.0]]),
    ],
)
def test_actions_become_those_of_the_environment(actions: str, choices: tuple[int, ...], given: list[Any], taken: list[Any]) -> None:
    env = made(2, num_actions=choices, kwargs={"actions": actions})
    env.step(np.array(given))
    assert [np.asarray(one.unwrapped.taken[0]).tolist() for one in env.envs] == taken  # type: ignore[attr-defined]


def test_pixels_are_seen_as_they_are_and_shown() -> None:
    for kind, shape in (("rgb", (6, 5, 3)), ("grey", (6, 5, 1))):
        env = made(2, observation_shape=list(shape), kwargs={"pixels": kind})
        seen = env.step(np.zeros(2, int))[0]
        assert seen.dtype == np.uint8 and seen.shape == (2, *shape)
        assert np.array_equal(env.render(), np.broadcast_to(seen, (2, 6, 5, 3)))
        assert Config(observation_shape=list(shape)).observation.kind == "pixels"
    flat = made(2, observation_shape=[90], kwargs={"pixels": "rgb"})
    assert flat.reset()[0].dtype == np.float32


def test_what_is_not_a_picture_is_drawn_by_the_environment() -> None:
    env = made(2)
    env.step(np.zeros(2, int))
    assert (env.render() == 1).all() and env.render().shape == (2, 4, 4, 3)


def test_success_is_what_the_environment_says_or_a_return() -> None:
    env, solved, unsolved = made(20), made(20, reward_threshold=4.0), made(20, reward_threshold=4.5)
    for _ in range(4):
        infos, good, bad = (one.step(np.zeros(20, int))[4] for one in (env, solved, unsolved))
    even = [round(float(seen[0]) * 100) % 2 == 0 for seen in infos["final_obs"]]
    assert infos["success"].tolist() == even and 0 < sum(even) < 20
    assert good["success"].all() and not bad["success"].any()


def test_what_cannot_be_relied_on_begins_again() -> None:
    env, other = made(id="Dice-v0"), made(id="Dice-v0")
    assert not env.reproducible and made().reproducible
    for _ in range(2):
        env.step(np.zeros(3, int))
    other.load_state_dict(env.state_dict())
    assert (other.length_B == 0).all()
    assert not other.step(np.zeros(3, int))[4], "episodes of four steps, from their start"


def test_seeds_are_different_and_small_enough() -> None:
    seeds = Gymnasium(Config()).sample_episodes(5000, KEY)["seed"]
    assert len(set(seeds.tolist())) > 4990 and seeds.min() >= 0 and seeds.max() < 2**31


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "Nowhere-v0"}, "gymnasium Nowhere-v0: cannot be made: Environment `Nowhere` doesn't exist."),
        ({"id": "no_such_module:Room-v0"}, "cannot be made: .*no_such_module"),
        ({"kwargs": {"colour": "red"}}, "gymnasium Room-v0: cannot be made: .*colour"),
        ({"kwargs": {"fails": True}}, "gymnasium Room-v0: cannot be made: no engine"),
        ({"observation_shape": [4]}, r"task.observation_shape: got \[4\]; expected \[44\], as its observations are Dict"),
        (
            {"observation_shape": [5, 6, 3], "kwargs": {"pixels": "rgb"}},
            r"task.observation_shape: got \[5, 6, 3\]; expected \[6, 5, 3\] or \[90\]",
        ),
        ({"num_actions": [2]}, r"task.num_actions: got \[2\]; expected \[3\], as its actions are Discrete\(3, start=5\)"),
        ({"num_actions": [3], "kwargs": {"actions": "many"}}, r"task.num_actions: got \[3\]; expected \[2, 3\]"),
        ({"num_actions": [3], "kwargs": {"actions": "real"}}, r"expected a number of values, at least 2, for each of its 2 parts"),
        ({"kwargs": {"actions": "unbounded"}}, "actions are Box.*; expected discrete ones, or bounded numbers"),
        ({"kwargs": {"actions": "text"}}, "actions are Text.*; expected discrete ones, or bounded numbers"),
    ],
)
def test_a_user_is_told_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        made(**fields)
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


def test_an_observation_is_a_vector_or_an_image() -> None:
    with pytest.raises(ValidationError, match=r"got \[84, 84\]; expected \[numbers\], or \[height, width, channels\] of pixels"):
        Config(observation_shape=[84, 84])


class Drifting(gymnasium.Env[Any, Any]):
    """Says that it is deterministic, and is not: what `part` says comes from a counter that all copies share and no seed sets back."""

    counter: ClassVar[int] = 0

    def __init__(self, part: str = "observation") -> None:
        self.observation_space, self.action_space = spaces.Box(0, 1e9, (1,)), spaces.Discrete(2)
        self.part = part

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Show the counter, pay it, end when it says so, or draw as many random numbers."""
        Drifting.counter += 1
        self.steps += 1
        if self.part == "generator":
            self.np_random.random(Drifting.counter)
        shown = Drifting.counter if self.part == "observation" or (self.part == "earlier observation" and self.steps == 1) else 0
        ended = self.part == "end" and Drifting.counter >= 7
        return np.full(1, shown, np.float32), float(self.part == "reward") * Drifting.counter, ended, False, {}


@pytest.mark.parametrize("part", ["observation", "earlier observation", "reward", "end", "generator", "nothing"])
def test_an_environment_that_does_not_come_back_is_noticed(part: str) -> None:
    room: Any = Drifting
    gymnasium.register("Drifting-v0", room, max_episode_steps=50)
    Drifting.counter = 0
    fields: dict[str, Any] = {"id": "Drifting-v0", "observation_shape": [1], "num_actions": [2], "kwargs": {"part": part}}
    env, other = made(2, **fields), made(2, **fields)
    for _ in range(3):
        env.step(np.zeros(2, np.int64))
    difference = other.load_state_dict(env.state_dict())
    gymnasium.registry.pop("Drifting-v0")
    expected = rf"seed {env.seed_B[0]}, step 3: not where the same actions led before"
    assert difference is None if part == "nothing" else re.fullmatch(expected, str(difference))


class Faulty(gymnasium.Env[Any, Any]):
    """Goes wrong at the third step of an episode, as `fault` says."""

    def __init__(self, fault: str = "", category: bool = False) -> None:
        self.observation_space: Any = spaces.Discrete(3) if category else spaces.Box(-1, 1, (3,))
        self.action_space, self.fault, self.category = spaces.Discrete(2), fault, category

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.steps = 0
        first = np.full(3, np.inf if self.fault == "reset" else 0, np.float32)
        return 0 if self.category else first, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Go wrong."""
        self.steps += 1
        fault = self.fault if self.steps == 3 else ""
        if fault == "raises":
            raise ZeroDivisionError("nothing there")
        shown: Any = {"nan": np.array([0, np.nan, 0], np.float32), "shape": np.zeros(1, np.float32), "outside": np.full(3, 2, np.float32)}
        categories = {"high": 3, "low": -1}
        seen = categories.get(fault, 1) if self.category else shown.get(fault, np.zeros(3, np.float32))
        reward = {"reward": np.nan, "no reward": None}.get(fault, 1.0)
        return seen, reward, False, False, {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("reset", r"seed \d+, step 0: observation\[0\] is inf; expected a finite number"),
        ("nan", r"seed \d+, step 3: observation\[1\] is nan; expected a finite number"),
        ("reward", r"seed \d+, step 3: reward is nan; expected a finite number"),
        ("shape", r"seed \d+, step 3: observation has shape \(1,\); expected one of its space Box.*"),
        ("raises", r"seed \d+, step 3: its step raises ZeroDivisionError \(nothing there\) at test_gymnasium.py:\d+"),
        ("no reward", r"seed \d+, step 3: its step raises TypeError \(.*\) at gymnasium.py:\d+"),
        ("high", r"seed \d+, step 3: observation 3 is not of its space Discrete\(3\) \(ValueError\)"),
        ("low", r"seed \d+, step 3: observation -1 is not of its space Discrete\(3\) \(ValueError\)"),
    ],
)
def test_a_faulty_environment_is_named_with_seed_and_step(fault: str, message: str) -> None:
    kind: Any = Faulty
    gymnasium.register("Faulty-v0", kind, max_episode_steps=9)
    options = {"fault": fault, "category": fault in ("high", "low")}
    with pytest.raises(UserError) as caught:
        env = made(2, id="Faulty-v0", observation_shape=[3], num_actions=[2], kwargs=options)
        for _ in range(5):
            env.step(np.zeros(2, np.int64))
    gymnasium.registry.pop("Faulty-v0")
    assert re.fullmatch(f"gymnasium Faulty-v0: {message}", str(caught.value)), str(caught.value)


def test_what_is_out_of_bounds_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    kind: Any = Faulty
    gymnasium.register("Faulty-v0", kind, max_episode_steps=9)
    env = made(2, id="Faulty-v0", observation_shape=[3], num_actions=[2], kwargs={"fault": "outside"})
    for _ in range(20):
        env.step(np.zeros(2, np.int64))
    gymnasium.registry.pop("Faulty-v0")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"gymnasium Faulty-v0: seed \d+, step 3: observation outside its space's bounds \(reported once\)", line)


def test_real_valued_actions_stay_within_their_bounds() -> None:
    """0.1 + 0.2 is more than 0.3: the largest of three values would be refused by an environment that goes up to 0.3."""
    space = spaces.Box(np.array([-0.1]), np.array([0.7]), dtype=np.float64)
    for count in range(2, 60):
        convert = _bins(Config(num_actions=[count]), space)
        assert all(space.contains(convert(action)) for action in range(count)), count
