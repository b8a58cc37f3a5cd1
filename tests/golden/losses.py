"""The first losses of every mixer on every task of tokens: `python -m tests.golden.losses` writes losses.json.

A change that should not change numbers leaves them exactly as they are on the platform they were recorded on; elsewhere arithmetic may
round otherwise, and they agree within 1e-5. A change of numbers is recorded anew in the same commit, with the reason in its message,
and usually raises the `version` of a component.
"""

from __future__ import annotations

import json
import os
import platform
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pipeline.config.mixers import MIXERS
from pipeline.config.tasks import TASKS
from tests.learners.small import small_learner

FILE = Path(__file__).with_suffix(".json")
COMMAND = "python -m tests.golden.losses"
STEPS = 10
TOLERANCE = 1e-5


def kind_of(task: str) -> str:
    """What a task is made of."""
    found: Any = TASKS[task]
    return found.kind


CELLS = [
    (mixer, task)
    for mixer, task in product(sorted(MIXERS), sorted(TASKS))
    if MIXERS[mixer].__module__.startswith("pipeline.") and TASKS[task].__module__.startswith("pipeline.") and kind_of(task) == "tokens"
]


def losses(mixer: str, task: str) -> list[float]:
    """Training loss of the first updates, in nats, computed by plain torch."""
    torch.manual_seed(0)
    learner = small_learner(mixer, task, learning_rate=0.01)
    return [float(learner.update()["train_loss"]) for _ in range(STEPS)]


def here() -> str:
    """What must be the same for floating-point arithmetic to be the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    return f"torch {torch.__version__}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {processor}"


def recorded() -> dict[str, Any]:
    """What losses.json holds: `platform`, and the losses by mixer/task."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main() -> None:
    """Write losses.json."""
    os.environ["RECURLAB_BACKEND"] = "torch"
    torch.set_num_threads(1)
    found = {f"{mixer}/{task}": losses(mixer, task) for mixer, task in CELLS}
    FILE.write_text(json.dumps({"platform": here(), "losses": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
