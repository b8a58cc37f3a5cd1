"""One thread and seeded numbers for every test of a mixer, and a compiler for those of backend `c`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pipeline.ops import backends, diagonal_scan, native


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _compiler(request: pytest.FixtureRequest) -> None:
    """Tests of the compiled backend need a compiler."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    reason = native.unavailable_reason(diagonal_scan.SOURCE, torch.zeros(1)) if "c" in parameters.values() else None
    if reason:
        pytest.skip(reason)
