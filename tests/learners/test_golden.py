"""The first losses of every mixer on every task are the recorded ones: exactly on the platform of the record, within 1e-5 elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.golden import losses


@pytest.fixture(autouse=True)
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread and the backend that is everywhere: sums are rounded in one order."""
    monkeypatch.setenv("RECURLAB_BACKEND", "torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("mixer", "task"), losses.CELLS)
def test_losses_are_the_recorded_ones(mixer: str, task: str) -> None:
    record = losses.recorded()
    known = record["losses"].get(f"{mixer}/{task}")
    assert known, f"{mixer}/{task} has no record yet: run `{losses.COMMAND}`"
    found = losses.losses(mixer, task)
    if record["platform"] == losses.here():
        assert found == known, f"numbers changed: if that was meant, run `{losses.COMMAND}` and say why in the commit"
    assert found == pytest.approx(known, abs=losses.TOLERANCE)


def test_nothing_else_is_recorded() -> None:
    assert set(losses.recorded()["losses"]) == {f"{mixer}/{task}" for mixer, task in losses.CELLS}
