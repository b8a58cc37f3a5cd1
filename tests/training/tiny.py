"""A run small enough to train in a second, described and with its data made, as the workflow would leave them before `train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.config.config_file import Runtime, Tracking
from pipeline.config.document import Location, YamlMapping
from pipeline.config.expand import expand
from pipeline.config.spec_files import write_spec
from pipeline.plan import Plan, make_plan
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import UserError
from pipeline.storage.manifest import read_manifest
from pipeline.tasks.generate import generate_shard, seal_dataset
from pipeline.training.train import train

HERE = Location("tiny", 0, "")
TASK = {"name": "copy", "symbols": {"uniform": [1, 3]}, "delay": {"uniform": [1, 8]}, "alphabet": 4}
NETWORK = {"name": "sequence", "mixer": "lru", "width": 8, "dropout": 0.2, "residual": True, "norm": "rms"}
LEARNER = {
    "name": "supervised", "steps": 24, "batch_size": 4, "learning_rate": 0.01, "lr_schedule": "cosine", "warmup_steps": 3, "ema_decay": 0.9,
    "curriculum": {"column": "delay", "start": 2, "threshold": 0.05, "window": 4}, "distinct_rows": 30, "validation_rows": 12,
    "evaluate_every": 5, "keep": ["last", "best", 7],
}  # fmt: skip


def block(value: Any) -> Any:
    """A mapping as the config reader gives it."""
    if not isinstance(value, dict):
        return value
    made = YamlMapping(HERE)
    for key, item in value.items():
        made.put(key, block(item), HERE)
    return made


def tiny_plan(task: dict[str, Any] | None = None, network: dict[str, Any] | None = None, seed: int = 0, **learner: Any) -> Plan:
    """The plan of one tiny run; fields given as None are left out."""
    fields = {key: value for key, value in {**LEARNER, **learner}.items() if value is not None}
    fields["warmup_steps"] = learner.get("warmup_steps", min(LEARNER["warmup_steps"], fields.get("steps", 24)))
    if learner.get("data") == "stream":
        fields.pop("distinct_rows", None)
    base = {
        "task": {**TASK, **(task or {})},
        "network": {**NETWORK, **(network or {})},
        "learner": fields,
        "evaluate": {"rows": 8},
        "seed": seed,
    }
    return make_plan(expand(block({"experiments": {"tiny": {"base": base}}})))


def describe(plan: Plan, results: Path) -> str:
    """Write specs and data of a plan; returns its last run."""
    for name, dataset in plan.datasets.items():
        folder = results / "datasets" / name
        if dataset.spec["split"] == "test" or (folder / "manifest.json").exists():
            continue
        write_spec(folder / "dataset.yaml", dataset.spec)
        for index in range(len(dataset.shards)):
            generate_shard(folder, index)
        seal_dataset(folder)
    for name, run in plan.runs.items():
        write_spec(results / "runs" / name / "run.yaml", run.spec)
    return list(plan.runs)[-1]


def tiny_run(results: Path, **fields: Any) -> str:
    """Describe one tiny run; returns its identifier."""
    return describe(tiny_plan(**fields), results)


def train_tiny(results: Path, run: str, checkpoint_seconds: float = 1e9, tracking: str = "off", **runtime_fields: Any) -> int:
    """Train a described run in this process."""
    runtime = Runtime(threads=1, device="cpu", checkpoint_seconds=checkpoint_seconds, **runtime_fields)
    return train(results / "runs" / run / "run.yaml", results, runtime, Tracking(wandb=tracking))  # pyright: ignore[reportArgumentType]


def digests(results: Path, run: str) -> dict[str, str]:
    """The digested files of a finished run and its manifest."""
    folder = results / "runs" / run
    return {name: file_sha256(folder / name) for name in [*read_manifest(folder)["files"], "manifest.json"]}


def main(results: str, run: str, seconds: str) -> int:
    """What the command line does: one line and code 2 for a user's error."""
    try:
        return train_tiny(Path(results), run, float(seconds))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
