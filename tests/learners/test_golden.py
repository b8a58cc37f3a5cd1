"""The first losses of every mixer on every task are the recorded ones, as closely as `tests.golden.losses` says, and wrong formulas are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.learners import optimization, supervised
from pipeline.mixers import delta_net, gated_linear_attention, linear_attention
from pipeline.mixers.lru import LRU
from tests.golden import losses

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread and the backend that is everywhere: sums are rounded in one order."""
    monkeypatch.setenv("RECURLAB_BACKEND", "torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cell(mixer: str, task: str) -> losses.Cell:
    """The record of one mixer on one task."""
    known = losses.recorded()["losses"].get(f"{mixer}/{task}")
    assert known, f"{mixer}/{task} has no record yet: run `{losses.COMMAND}`"
    return known


@pytest.mark.parametrize(("mixer", "task"), losses.CELLS)
def test_losses_are_the_recorded_ones(mixer: str, task: str) -> None:
    known, found = cell(mixer, task), losses.losses(mixer, task)
    if losses.recorded()["platform"] == losses.here():
        assert found == known["float32"], f"numbers changed: if that was meant, run `{losses.COMMAND}` and say why in the commit"
    assert not losses.outside(found, known["float32"], [losses.MULTIPLE * value for value in known["spread"]])


@pytest.mark.parametrize(("mixer", "task"), losses.CELLS)
def test_losses_in_double_precision_are_the_recorded_ones(mixer: str, task: str) -> None:
    assert not losses.differences(cell(mixer, task), mixer, task, torch.float64)


def test_nothing_else_is_recorded() -> None:
    assert set(losses.recorded()["losses"]) == {f"{mixer}/{task}" for mixer, task in losses.CELLS}


def decay_scaled(patch: pytest.MonkeyPatch) -> None:
    """LRU's eigenvalues are 0.1 % too small."""
    decay = LRU.decay
    patch.setattr(LRU, "decay", lambda self: 0.999 * decay(self))


def log_decay_scaled(patch: pytest.MonkeyPatch) -> None:
    """The logarithms of the decays are 0.1 % too small."""
    patch.setattr(gated_linear_attention, "TEMPERATURE", 1.001 * gated_linear_attention.TEMPERATURE)


def keys_not_normalised(patch: pytest.MonkeyPatch) -> None:
    """The delta rule's keys keep their length."""
    patch.setattr(delta_net, "unit", lambda k: k)


def epsilon_tenfold(patch: pytest.MonkeyPatch) -> None:
    """The norm adds 1e-4 instead of 1e-5."""
    patch.setattr(delta_net, "EPSILON", 10 * delta_net.EPSILON)


def query_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """The state is read with the query of the position before."""
    scan = linear_attention.linear_scan
    patch.setattr(linear_attention, "linear_scan", lambda q_BTHK, *rest: scan(q_BTHK.roll(1, 1), *rest))


def last_position_not_scored(patch: pytest.MonkeyPatch) -> None:
    """The loss leaves out the last scored position of a batch."""
    whole = supervised.answers

    def shortened(*words: Any) -> Any:
        found = whole(*words)
        return found._replace(**{name: value[:-1] for name, value in found._asdict().items() if isinstance(value, Tensor)})

    patch.setattr(supervised, "answers", shortened)


def learning_rate_scaled(patch: pytest.MonkeyPatch) -> None:
    """The optimizer's steps are 0.1 % too long."""
    rate = optimization.learning_rate
    patch.setattr(optimization, "learning_rate", lambda *words: 1.001 * rate(*words))


@pytest.mark.parametrize(("task", "dtype"), [("copy", torch.float32), ("copy", torch.float64), ("mqar", torch.float64)])
@pytest.mark.parametrize(
    ("plant", "mixer"),
    [
        (decay_scaled, "lru"),
        (log_decay_scaled, "gated_linear_attention"),
        (keys_not_normalised, "delta_net"),
        (epsilon_tenfold, "delta_net"),
        (query_off_by_one, "linear_attention"),
        (last_position_not_scored, "lstm"),
        (learning_rate_scaled, "gru"),
    ],
)
def test_a_wrong_formula_is_outside_the_bounds(
    monkeypatch: pytest.MonkeyPatch, plant: Patch, mixer: str, task: str, dtype: torch.dtype
) -> None:
    """Also where the bits of the record do not count: on other processors than the one of the record."""
    plant(monkeypatch)
    assert losses.differences(cell(mixer, task), mixer, task, dtype)


def test_a_loss_that_is_not_a_number_is_outside() -> None:
    assert losses.outside([float("nan")], [1.0], [float("inf")]) and not losses.outside([1.0], [1.0], [0.0])
