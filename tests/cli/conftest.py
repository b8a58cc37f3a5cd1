"""Fixtures: the command line called in this process, and a tiny finished suite."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.cli import main
from pipeline.in_process import run_plan
from pipeline.plan import plan_file

TINY = """\
experiments:
  tiny:
    question: Does it work?
    base:
      task: {name: copy, symbols: 3, delay: 5, alphabet: 4}
      network: {name: sequence, mixer: gru, width: 8}
      learner: {name: supervised, steps: 4, batch_size: 4, validation_rows: 8, evaluate_every: 2}
      evaluate: {rows: 8}
    figures: [{name: accuracy_by, column: delay}, learning_curves]
"""


class Answer(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `pipeline` with words, in this process."""

    def run(*words: str | Path) -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Answer(caught.value.code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config.yaml and the results that it asks for, figures left out."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "config.yaml").write_text(TINY)
    plan = plan_file(folder / "config.yaml")
    code, table = run_plan(plan, folder / "results")
    assert code == 0
    assert "| GRU |" in table
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished folder, and the current one."""
    copy = tmp_path / "work"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
