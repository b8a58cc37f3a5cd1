"""The doctor's look at backends finds a kernel that computes something else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.ops import backends, selftest

CPU = torch.device("cpu")


def test_backends_that_are_here_agree_with_torch_and_leave_no_trace() -> None:
    before = backends.used()
    found = {name: (well, text) for name, well, text in selftest.try_backends(CPU)}
    assert found.keys() == set(backends.KNOWN) - {"auto", "torch"}
    assert all(well for well, _ in found.values()), found
    assert found["triton"][1].startswith("not available: needs tensors on a CUDA GPU")
    assert backends.used() == before
    assert backends.VARIABLE not in selftest.os.environ


def test_one_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = selftest._outcome

    def wrong(name: str, backend: str, device: torch.device) -> list[Tensor] | None:
        found = real(name, "torch", device) or []
        return [tensor * (1.01 if name == "lru" and backend == "c" else 1) for tensor in found]

    monkeypatch.setattr(selftest, "_outcome", wrong)
    assert selftest._try("c", CPU) == (False, "differs from torch: lru")


def test_wrong_products_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest.onednn_matmul, "unavailable_reason", lambda: None)
    assert selftest._try_products() == (True, "matrix products agree with torch")
    monkeypatch.setattr(selftest.onednn_matmul, "product", lambda one, other: 1.01 * (one @ other))
    assert selftest._try_products() == (False, "matrix products differ from torch")
    monkeypatch.setattr(selftest.onednn_matmul, "unavailable_reason", lambda: "not here")
    assert selftest._try_products() == (True, "not available: not here")
