"""One thread and seeded numbers for every test of a mixer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pipeline.mixers import backends


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
