"""The first losses of every mixer on every task of tokens: `python -m tests.golden.losses` writes losses.json.

A change that should not change numbers leaves them as they are. How closely that is checked:

    float32, on the platform of the record     the same bits
    float32, elsewhere                         within MULTIPLE times the step's spread
    float64, everywhere                        within DOUBLE

Rounding differs between instruction sets and grows from step to step, in some mixers a hundredfold in ten steps. So a step's spread is measured:
the furthest that it, or a step before it, moves when every weight is moved by up to one unit in the last place before every update. In double
precision rounding is 1e9 times smaller than a wrong formula, so that is where one shows.

A change of numbers is recorded anew in the same commit, with the reason in its message, and usually raises the `version` of a component.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.mixers import MIXERS
from pipeline.config.tasks import TASKS
from tests.learners.small import small_learner

FILE = Path(__file__).with_suffix(".json")
COMMAND = "python -m tests.golden.losses"
STEPS = 10
PERTURBATIONS = 4
"""Perturbed trainings from which a spread is measured."""
LEAST = 2.0**-22
"""Least spread, relative to a loss above one: two units in its last place."""
MULTIPLE = 16
"""Bound of a loss in spreads. SSE4, AVX2 and another maker's processor came to 4 of them at most; half of all cells stayed within half a spread."""
DOUBLE = 1e-9
"""Bound of a loss in double precision, in nats. The same three came to 6e-13 at most."""
RESTRICTIONS = ("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep torch's libraries from some instructions; torch reports its own, ATEN_CPU_CAPABILITY."""
Cell = dict[str, list[float]]
"""Of one mixer on one task, by step: losses in `float32`, their `spread`, losses in `float64`."""


def recorded_together(mixer: Any, task: Any) -> bool:
    """Whether a mixer is trained on a task here: both are of this repository, the task has tokens, and grids if the mixer needs them."""
    ours = all(kind.__module__.startswith("pipeline.") for kind in (mixer, task))
    return ours and task.kind == "tokens" and (task.grid or (mixer.causal and not mixer.needs_grid))


CELLS = [(mixer, task) for mixer, task in product(sorted(MIXERS), sorted(TASKS)) if recorded_together(MIXERS[mixer], TASKS[task])]


def losses(mixer: str, task: str, dtype: torch.dtype = torch.float32, perturbation: int | None = None) -> list[float]:
    """Training loss of the first updates, in nats, computed by plain torch.

    dtype: of weights and activations; the random initial weights of two dtypes differ. perturbation: a seed; before every update, each weight
    moves by -1, 0 or 1 times the spacing of floating-point numbers at the largest weight of its tensor.
    """
    torch.manual_seed(0)
    with _default_dtype(dtype):
        learner = small_learner(mixer, task, learning_rate=0.01)
        values: Any = learner.network.values
        if values is not None:
            values.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
        random = None if perturbation is None else torch.Generator().manual_seed(perturbation)
        found = []
        for _ in range(STEPS):
            if random is not None:
                _perturb(learner.network, random)
            found.append(float(learner.update()["train_loss"]))
    return found


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def _perturb(network: nn.Module, random: torch.Generator) -> None:
    for weight in network.parameters():
        largest = float(weight.abs().max())
        weight += torch.randint(-1, 2, weight.shape, generator=random) * (largest * torch.finfo(weight.dtype).eps)


def record(mixer: str, task: str) -> Cell:
    """What losses.json holds of one mixer on one task."""
    found = losses(mixer, task)
    moved = [losses(mixer, task, perturbation=seed) for seed in range(PERTURBATIONS)]
    furthest = accumulate((max(abs(other - loss) for other in others) for loss, *others in zip(found, *moved, strict=True)), max)
    spread = [max(distance, LEAST * max(abs(loss), 1.0)) for loss, distance in zip(found, furthest, strict=True)]
    return {"float32": found, "spread": [float(f"{value:.2g}") for value in spread], "float64": losses(mixer, task, torch.float64)}


def outside(found: Sequence[float], known: Sequence[float], bounds: Sequence[float]) -> list[str]:
    """Each step whose loss is further from the known one than its bound."""
    steps = enumerate(zip(found, known, bounds, strict=True))
    return [
        f"step {step}: {loss!r}, expected {right!r} within {bound:.2g}"
        for step, (loss, right, bound) in steps
        if not abs(loss - right) <= bound
    ]


def differences(cell: Cell, mixer: str, task: str, dtype: torch.dtype = torch.float32) -> list[str]:
    """Each step in which a training on this machine, in that precision, is not the recorded one."""
    if dtype is torch.float64:
        return outside(losses(mixer, task, dtype), cell["float64"], [DOUBLE] * STEPS)
    return outside(losses(mixer, task, dtype), cell["float32"], [MULTIPLE * value for value in cell["spread"]])


def here() -> str:
    """What must be the same for floating-point arithmetic to be the same."""
    instructions = [torch.backends.cpu.get_cpu_capability(), *(f"{name}={os.environ[name]}" for name in RESTRICTIONS if name in os.environ)]
    return ", ".join([f"torch {torch.__version__}", platform.machine(), *instructions, _processor()])


def _processor() -> str:
    """Name, family, model and stepping: virtual machines give processors of many kinds one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return " ".join(fields[key] for key in ("model name", "cpu family", "model", "stepping") if key in fields) or platform.processor()


def recorded() -> dict[str, Any]:
    """What losses.json holds: `platform`, and a `Cell` by mixer/task."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main() -> None:
    """Write losses.json, a line per list."""
    os.environ["RECURLAB_BACKEND"] = "torch"
    torch.set_num_threads(1)
    cells = {f"{mixer}/{task}": record(mixer, task) for mixer, task in CELLS}
    blocks = [
        f'    "{name}": {{\n' + ",\n".join(f'      "{key}": {json.dumps(values)}' for key, values in cell.items()) + "\n    }"
        for name, cell in cells.items()
    ]
    text = f'{{\n  "platform": {json.dumps(here())},\n  "losses": {{\n' + ",\n".join(blocks) + "\n  }\n}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
