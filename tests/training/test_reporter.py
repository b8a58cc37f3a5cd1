"""Reports: lines without a terminal, a bar on one, and a heartbeat that others can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.training import reporter
from pipeline.training.reporter import Reporter, Status


def status(step: int = 50, rows: int = 1600, seconds: float = 4.0) -> Status:
    return Status(step, 200, rows, step / 200, seconds, {"train_loss": 1.23456, "train_accuracy": 0.5, "level": 12, "learning_rate": 0.1})


def test_a_line_without_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reporting = Reporter("copy-lstm", tmp_path / "progress.json", terminal=False)
    reporting.set_validation({"step": 50, "validation_accuracy": 0.625})
    assert reporting.due()
    reporting.show(status())
    assert not reporting.due()
    reporting.close()
    line = "copy-lstm: step 50/200, 400 rows/s, loss 1.235, accuracy 0.5, level 12, validation accuracy 0.625, 0:12 left\n"
    assert capfd.readouterr().err == line


def test_the_rate_is_of_the_last_interval(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reporting = Reporter("r", tmp_path / "progress.json", terminal=False)
    reporting.show(status())
    reporting.show(status(step=100, rows=2600, seconds=5.0))
    assert "1000 rows/s" in capfd.readouterr().err


def test_a_bar_on_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reporting = Reporter("copy-lstm", tmp_path / "progress.json", terminal=True)
    reporting.show(status())
    reporting.close()
    assert "copy-lstm  25%|" in capfd.readouterr().err


def test_the_heartbeat(tmp_path: Path) -> None:
    reporting = Reporter("r", tmp_path / "progress.json", terminal=False)
    reporting.show(status())
    found = json.loads((tmp_path / "progress.json").read_text())
    assert found["step"] == 50 and found["budget_spent"] == 0.25 and found["rows_per_second"] == 400 and found["metrics"]["level"] == 12
    reporting.show(status(step=60))
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 50, "at most one an interval"


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Reporter("r", tmp_path / "file" / "progress.json", terminal=False).show(status())


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert reporter._duration(seconds) == text
