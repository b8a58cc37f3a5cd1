"""Stepping the control family's environments against what its studies step: environment steps per CPU second.

t_maze: 64 and 1024 environments vectorized in numpy, against as many ordinary gymnasium environments, one Python object each, behind
gymnasium's vector interface, as the original study has them. mystery_path: 64 boards at once against one of memory-gym 1.0.2, which has no
other form than pixels; so `mystery_path` (symbols) leaves out work that memory-gym cannot leave out, and the rows `_pixels` do not. Episode ends,
infos and resets are included everywhere. Rounds are interleaved; medians.

`--peer PYTHON` names the Python of an environment with memory-gym, which is measured in the same run. Without it, the peer's numbers are
those recorded on two shared cores of an AMD EPYC under load, so the ratios hold only for a similar machine.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from benchmarks.common import Row, compare, cpu_seconds, report
from pipeline.config.catalogue import implementation
from pipeline.config.tasks import EnvironmentTask, MysteryPath, TMaze

RECORDED = {"grid": 19_000.0, "continuous": 18_300.0}
"""Steps per CPU second of memory-gym, medians."""
OURS, THEIRS = 400_000, 40_000
"""Environment steps in a round."""
MEMORY_GYM = """
import sys, time
import numpy as np
from memory_gym.mystery_path import MysteryPathEnv
from memory_gym.mystery_path_grid import GridMysteryPathEnv
moves, steps = sys.argv[1], int(sys.argv[2])
options = {"show_origin": True, "show_goal": True, "reward_path_progress": 0.1}
env = GridMysteryPathEnv() if moves == "grid" else MysteryPathEnv()
env.reset(seed=0, options=options)
actions = np.random.default_rng(0).integers(*((4, ) if moves == "grid" else (3, )), size=(steps, 2))
actions = actions[:, 0].tolist() if moves == "grid" else actions.tolist()
start = time.process_time()
for action in actions:
    if env.step(action)[2]:
        env.reset(options=options)
print(steps / (time.process_time() - start))
"""


class Maze(gymnasium.Env[Any, Any]):
    """The maze, written without regard to speed."""

    def __init__(self, config: TMaze) -> None:
        self.config, self.corridor = config, int(config.corridor)  # type: ignore[arg-type]
        self.observation_space: Any = gymnasium.spaces.Box(0.0, 1.0, config.observation.shape, np.float32)
        self.action_space: Any = gymnasium.spaces.Discrete(4)

    def _see(self, cue: tuple[int, int]) -> np.ndarray:
        gray = self.position ^ (self.position >> 1)
        code = [gray >> bit & 1 for bit in reversed(range(self.config.bits))]
        noise = self.np_random.integers(2, size=self.config.distractors) if self.steps else np.zeros(self.config.distractors)
        return np.concatenate([cue, code, noise]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.position = self.steps = 0
        self.cue = int(self.np_random.integers(2))
        return self._see((self.cue, 1 - self.cue)), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act."""
        self.steps += 1
        if self.position == self.corridor - 1:
            if action < 2:
                right = int(action) == self.cue
                return self._see((0, 0)), 4.0 if right else -1.0, True, False, {"success": int(right)}
        else:
            self.position = max(0, self.position + {2: -1, 3: 1}.get(int(action), 0))
        return self._see((0, 0)), -0.1, False, self.steps == self.config.max_episode_steps, {}


def actions_of(task: EnvironmentTask, batch: int) -> np.ndarray:
    """A hundred steps of random actions; in the maze mostly correct ones, so that episodes end."""
    rng = np.random.default_rng(0)
    if isinstance(task, TMaze):
        return rng.choice(4, size=(100, batch), p=[0.06, 0.06, 0.03, 0.85])
    return rng.integers(task.actions[0], size=(100, batch, *([2] if len(task.actions) > 1 else [])))


def rate(env: Any, actions: np.ndarray, steps: int) -> float:
    """Steps of single environments per CPU second."""
    batch = actions.shape[1]
    calls = max(1, steps // batch)

    def work() -> None:
        for call in range(calls):
            env.step(actions[call % 100])

    return calls * batch / cpu_seconds(work)


def begun(task: EnvironmentTask, batch: int) -> Any:
    """Our environments, warm."""
    env = implementation(task)(task).environment(batch, 0)
    env.reset(seed=0)
    rate(env, actions_of(task, batch), 20 * batch)
    return env


def plain_mazes(task: TMaze, batch: int) -> Any:
    """As many ordinary environments."""
    env = SyncVectorEnv([functools.partial(Maze, task)] * batch, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    return env


def memory_gym(python: Path, moves: str, steps: int) -> float:
    """Steps per CPU second of the package, measured in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), "-W", "ignore", "-c", MEMORY_GYM, moves, str(steps)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"--peer {python}: no memory-gym there ({error}); expected a Python that can import it") from None
    return float(done.stdout.splitlines()[-1])


def measure(name: str, task: EnvironmentTask, batch: int, peer: Callable[[], float], rounds: int, scale: float) -> Row:
    """One row."""
    env, actions = begun(task, batch), actions_of(task, batch)
    steps = int(OURS * scale * (0.1 if task.observation.kind == "pixels" else 1))
    found = [(rate(env, actions, steps), peer()) for _ in range(rounds)]
    ours, theirs = (statistics.median(side) for side in zip(*found, strict=True))
    return compare(name, ours, theirs, "steps/CPU-s")


def main() -> None:
    """Measure every row, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three rounds of a quarter of the steps; under a minute")
    parser.add_argument("--rounds", type=int, help="rounds of the interleaved measurement; default 7, with --quick 3")
    parser.add_argument("--peer", type=Path, help="the Python of an environment with memory-gym; default: recorded figures")
    arguments = parser.parse_args()
    rounds, scale = arguments.rounds or (3 if arguments.quick else 7), 0.25 if arguments.quick else 1.0
    theirs = int(THEIRS * scale)
    rows = []
    for batch in (64, 1024):
        maze = TMaze(corridor=10)
        plain, actions = plain_mazes(maze, batch), actions_of(maze, batch)
        rows.append(measure(f"t_maze_{batch}", maze, batch, functools.partial(rate, plain, actions, theirs), rounds, scale))
    for name, fields in (
        ("mystery_path", {}),
        ("mystery_path_pixels", {"view": "pixels"}),
        ("mystery_path_continuous_pixels", {"view": "pixels", "moves": "continuous"}),
    ):
        task = MysteryPath(**fields)  # type: ignore[arg-type]
        recorded = functools.partial(RECORDED.__getitem__, task.moves)
        peer = functools.partial(memory_gym, arguments.peer, task.moves, theirs) if arguments.peer else recorded
        rows.append(measure(name, task, 64, peer, rounds, scale))
    told = "measured in this run" if arguments.peer else "recorded figures of another run, on two shared cores of an AMD EPYC"
    report(rows, peer=f"t_maze: one gymnasium environment per copy; mystery_path: memory-gym 1.0.2, {told}", rounds=rounds)


if __name__ == "__main__":
    main()
