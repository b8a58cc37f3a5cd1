"""The image as a SIF and as one of Docker's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sif() -> Path:
    """The SIF that RECURLAB_SIF names; skips without one, or fails where RECURLAB_REQUIRE names container."""
    name = os.environ.get("RECURLAB_SIF")
    if not name and "container" in os.environ.get("RECURLAB_REQUIRE", "").split(","):
        pytest.fail("RECURLAB_SIF names no image")
    if not name:
        pytest.skip("RECURLAB_SIF names no image; .ci/image builds one")
    return Path(name)


@pytest.fixture(scope="session")
def docker() -> str:
    """The image that RECURLAB_DOCKER names, which Docker or what stands in its place has; skips without one."""
    name = os.environ.get("RECURLAB_DOCKER")
    if not name:
        pytest.skip("RECURLAB_DOCKER names no image; `make image` with docker builds recurlab:cpu")
    return name
