"""Fixtures of the storage tests."""

from __future__ import annotations

import pytest

from pipeline.storage import shards


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 16 rows, so that small datasets have many."""
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 16)
