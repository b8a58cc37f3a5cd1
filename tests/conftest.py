"""How hypothesis draws its examples, the same ones in every run and without a clock, since machines are slow at times; and where tests work."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("recurlab", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("recurlab")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder as people have them, with a space and an accent in its name: no test may need one without."""
    folder = tmp_path / "a földer"
    folder.mkdir()
    return folder
