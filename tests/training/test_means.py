"""Means of what comes and goes, the same bits however often they are saved in between; and the clock beside them."""

from __future__ import annotations

import copy
import time
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.clock import Clock
from pipeline.training.means import Means

floats = st.floats(-1e6, 1e6, width=32)


@given(values=st.lists(floats, min_size=1, max_size=30), cuts=st.sets(st.integers(0, 30)))
def test_means_do_not_depend_on_saves(values: list[float], cuts: set[int]) -> None:
    whole, saved = Means(), Means()
    for index, value in enumerate(values):
        whole.add({"loss": torch.tensor(value)})
        saved.add({"loss": torch.tensor(value)})
        if index in cuts:
            state, saved = copy.deepcopy(saved.state_dict()), Means()
            saved.load_state_dict(state)
    assert whole.read() == saved.read()
    assert whole.read()["loss"] == pytest.approx(float(sum(map(Fraction, values)) / len(values)), rel=1e-12, abs=1e-6)


def test_each_figure_has_its_own_count() -> None:
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": 5.0})
    means.add({"a": torch.tensor(2)})
    assert means.read() == {"a": 1.5, "b": 5.0}
    means.clear()
    assert means.read() == {}


def test_the_clock_counts_only_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: now / 2)
    clock = Clock(torch.device("cpu"))
    clock.start()
    now = 103.0
    assert clock.read() == (1.5, 3.0)
    with clock.paused():
        now = 110.0
        assert clock.read() == (1.5, 3.0)
    now = 114.0
    clock.stop()
    now = 200.0
    assert clock.read() == (3.5, 7.0)
    twin = Clock(torch.device("cpu"))
    twin.load_state_dict(clock.state_dict())
    assert twin.read() == clock.read()
