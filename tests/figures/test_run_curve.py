from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config.base import filled
from pipeline.config.learners import Supervised
from pipeline.config.spec_files import write_spec
from pipeline.config.tasks import Adding, Copy, Task
from pipeline.figures import style
from pipeline.figures.run_curve import draw_run
from pipeline.storage.tables import write_table


def make_run(folder: Path, validations: int, curriculum: bool, task: Task | None = None) -> Path:
    learner = Supervised.model_validate({"rows": 6400, **({"curriculum": {"column": "delay"}} if curriculum else {})})
    write_spec(folder / "run.yaml", {"id": "copy-lstm-s0-12345678", "task": filled(task or Copy()), "learner": filled(learner)})
    step = list(range(0, 100 * validations, 100))
    training = pa.array([None, *(1.5 / (1 + index) for index in range(1, validations))], pa.float64())
    columns = {
        "step": step,
        "rows": [32 * value for value in step],
        "level": pa.array([3 if curriculum else None] * validations, pa.int64()),
        "train_loss": training,
        "train_accuracy": training,
        "validation_loss": [1.4 / (1 + index) for index in range(validations)],
        "validation_accuracy": [min(1.0, 0.1 * index) for index in range(validations)],
    }
    write_table(folder / "history.parquet", pa.table(columns))
    return folder


@pytest.mark.parametrize("curriculum", [True, False])
@pytest.mark.parametrize("validations", [1, 30])
def test_curve_files_repeat(tmp_path: Path, validations: int, curriculum: bool) -> None:
    for name in ("one", "two"):
        draw_run(make_run(tmp_path / name, validations, curriculum))
    for suffix in ("svg", "png"):
        assert (tmp_path / "one" / f"curve.{suffix}").read_bytes() == (tmp_path / "two" / f"curve.{suffix}").read_bytes()


def test_curve_shows_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(style, "save_picture", lambda figure, out: figures.append((figure, out)))
    draw_run(make_run(tmp_path, 30, curriculum=True))
    ((figure, out),) = figures
    assert out == tmp_path / "curve"
    loss, accuracy, level = figure.axes
    assert list(loss.lines[1].get_ydata()) == [1.4 / (1 + index) for index in range(30)]
    assert list(accuracy.lines[1].get_ydata())[:3] == pytest.approx([0, 10, 20], abs=1e-5)
    assert set(level.lines[0].get_ydata()) == {3}


@pytest.mark.parametrize(("task", "unit"), [(Copy(), "nats per symbol"), (Adding(), "squared error")])
def test_the_loss_axis_names_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task, unit: str) -> None:
    figures = []
    monkeypatch.setattr(style, "save_picture", lambda figure, out, *kinds: figures.append(figure))
    draw_run(make_run(tmp_path, 3, curriculum=False, task=task))
    assert figures[0].axes[0].get_ylabel() == f"loss\n({unit})"
