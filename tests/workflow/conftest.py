"""One finished tiny suite per test run; tests work on copies of it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.suite import Suite, made_once, tiny

Finished = tuple[Suite, Counter[str]]
"""The suite, and the jobs that its first run announced."""


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny suite, run to its end once for all workers."""
    suite, output = made_once(tmp_path_factory, "finished", tiny())
    return suite, output


@pytest.fixture
def finished(first_run: Finished) -> Suite:
    """The tiny suite, run to its end. It is everybody's: work on a copy."""
    return first_run[0]


@pytest.fixture
def workspace(finished: Suite, tmp_path: Path) -> Callable[[dict[str, Any] | None], Suite]:
    """A copy of the finished suite, times of files included, free to be edited and broken."""

    def make(config: dict[str, Any] | None = None) -> Suite:
        folder = tmp_path / "suite"
        shutil.copytree(finished.folder, folder)
        return Suite(folder, config or tiny())

    return make
