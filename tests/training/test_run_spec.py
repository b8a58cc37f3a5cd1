"""A run's stamp is the same for every spelling of the same run, and another for any other run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.spec_files import read_spec, write_spec
from pipeline.training.run_spec import read_run
from tests.training.tiny import tiny_run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("spec")
    return results / "runs" / tiny_run(results) / "run.yaml"


def test_components_come_back(path: Path) -> None:
    run = read_run(path)
    assert run.id == path.parent.name and run.seed == 0 and run.task.name == "copy" and run.learner.total_steps == 24
    assert run.train and run.train.startswith("copy-train-") and run.validation.startswith("copy-validation-")


def test_order_and_defaults_do_not_matter(path: Path, tmp_path: Path) -> None:
    block = read_spec(path)
    del block["learner"]["betas"]
    block["learner"] = dict(sorted(block["learner"].items(), reverse=True))
    write_spec(tmp_path / "run.yaml", dict(reversed(block.items())))
    assert read_run(tmp_path / "run.yaml").digest == read_run(path).digest


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("learner", "learning_rate", 0.02), ("learner", "parent", "another-run"), ("network", "width", 9), ("task", "alphabet", 5),
        ("data", "train", None), ("data", "validation", "other"), (None, "seed", 1), (None, "id", "other"),
    ],
)  # fmt: skip
def test_every_difference_matters(path: Path, tmp_path: Path, part: str | None, key: str, value: object) -> None:
    block = read_spec(path)
    (block[part] if part else block)[key] = value
    write_spec(tmp_path / "run.yaml", block)
    assert read_run(tmp_path / "run.yaml").digest != read_run(path).digest
