"""One thread: tests run side by side, and threads that wait for each other only burn time. What a training sets in torch is put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def default_arithmetic() -> Iterator[None]:
    """Deterministic arithmetic is asked for by a training, not by the tests after it."""
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_num_threads(1)
