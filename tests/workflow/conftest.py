"""One finished tiny suite per test run; tests work on copies of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.suite import Suite, tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The tiny suite, run to its end."""
    suite = Suite(tmp_path_factory.mktemp("finished"), tiny())
    suite.first = suite.run()  # pyright: ignore[reportAttributeAccessIssue]
    return suite


@pytest.fixture
def workspace(finished: Suite, tmp_path: Path) -> Callable[[dict[str, Any] | None], Suite]:
    """A copy of the finished suite, times of files included, free to be edited and broken."""

    def make(config: dict[str, Any] | None = None) -> Suite:
        folder = tmp_path / "suite"
        shutil.copytree(finished.folder, folder)
        return Suite(folder, config or tiny())

    return make
