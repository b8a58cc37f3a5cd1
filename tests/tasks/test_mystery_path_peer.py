"""Mystery Path against memory-gym, step by step: the same path and actions, the same rewards, ends, infos and pixels.

memory-gym pins an old gymnasium, so it lives in an environment of its own: RECURLAB_MEMORY_GYM names that environment's Python.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.tasks import MysteryPath as Config
from pipeline.storage.arrow import from_numpy
from pipeline.tasks.environment import BatchedEnvironment
from pipeline.tasks.hidden_paths import BORDER, find_paths, sample_random_inputs
from pipeline.tasks.mystery_path import MysteryPath

VARIABLE = "RECURLAB_MEMORY_GYM"
PEER = os.environ.get(VARIABLE) or (sys.executable if importlib.util.find_spec("memory_gym") else None)
pytestmark = pytest.mark.skipif(PEER is None, reason=f"no memory-gym; {VARIABLE} may name the Python of an environment that has it")


def ask(what: str, question: Any) -> Any:
    """What the peer answers."""
    command = [str(PEER), "-W", "ignore", str(Path(__file__).with_name("memory_gym_peer.py")), what]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, input=json.dumps(question), env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def placed(path: list[list[int]]) -> np.ndarray:
    """A path as an episode has it."""
    row = np.zeros(49, np.uint8)
    for place, (x, y) in enumerate(path, 1):
        row[7 * y + x] = place
    return row


def test_paths_are_the_same_where_the_random_numbers_are() -> None:
    given = sample_random_inputs(300, np.random.default_rng(0))
    questions = [
        {
            "origin": int(given.origin_B[row]),
            "goal": int(given.goal_B[row]),
            "inner": given.inner_NB[:, row].tolist(),
            "outer": int(given.outer_B[row]),
            "rank": dict(zip(map(str, BORDER.tolist()), given.rank_NB[:, row].tolist(), strict=True)),
            "cost": given.cost_DNB[:, :, row].tolist(),
        }
        for row in range(300)
    ]
    assert find_paths(given).tolist() == [placed(path).tolist() for path in ask("paths", questions)]


def started(config: Config, episodes: list[Any]) -> tuple[BatchedEnvironment, np.ndarray]:
    """Copies of ours at the start of the peer's episodes."""
    path_BN = np.stack([placed(episode["path"]) for episode in episodes])
    rows = pa.record_batch({"path": pa.FixedSizeListArray.from_arrays(from_numpy(path_BN.reshape(-1)), 49)})
    env = MysteryPath(config).environment(len(episodes), seed=0)
    return env, env.play(rows)[0]


def digests(frames: np.ndarray) -> list[str]:
    return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames]


def compare_ends(infos: dict[str, Any], copy: int, told: dict[str, float]) -> None:
    """What is said of an episode that ended."""
    found = {name: infos[name][copy] for name in ("return", "length", "success", "fails")}
    expected = {"return": told["reward"], "length": told["length"], "success": told["success"], "fails": told["num_fails"]}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("moves", "options"),
    [
        ("grid", {"show_origin": True, "show_goal": True, "reward_path_progress": 0.1}),
        ("grid", {"visual_feedback": False, "reward_fall_off": -0.5, "reward_step": -0.01, "reward_goal": 2.0, "max_steps": 30}),
        ("continuous", {"show_origin": True, "show_goal": True}),
        ("continuous", {"show_goal": True, "reward_path_progress": 0.25, "max_steps": 100}),
    ],
)
def test_every_step_is_the_same(moves: str, options: dict[str, Any]) -> None:
    hard = {"show_origin": False, "show_goal": False, "reward_path_progress": 0.0 if moves == "grid" else 0.1}
    fields = {**hard, **options}
    own = {"max_episode_steps" if key == "max_steps" else key: value for key, value in fields.items()}
    config = Config(moves=moves, view="pixels", **own)  # type: ignore[arg-type]
    episodes = ask("play", {"moves": moves, "seeds": list(range(24)), "kwargs": options})
    env, frames = started(config, episodes)
    assert digests(frames) == [episode["frames"][0] for episode in episodes]
    idle: Any = 0 if moves == "grid" else [0, 0]
    for step in range(max(len(episode["actions"]) for episode in episodes)):
        actions = [episode["actions"][step] if step < len(episode["actions"]) else idle for episode in episodes]
        frames, rewards, terminated, truncated, infos = env.step(np.array(actions))
        for copy, episode in enumerate(episodes):
            if step >= len(episode["actions"]):
                continue
            last = step + 1 == len(episode["actions"])
            assert (terminated | truncated)[copy] == last
            assert rewards[copy] == pytest.approx(episode["rewards"][step], abs=1e-12)
            seen = infos["final_obs"] if last else frames
            assert digests(seen[copy : copy + 1]) == [episode["frames"][step + 1]], f"step {step} of {episode['path']}"
            if last:
                assert terminated[copy] == episode["info"]["success"]
                compare_ends(infos, copy, episode["info"])
    assert any(episode["info"]["num_fails"] for episode in episodes) and any(episode["info"]["success"] for episode in episodes)
