"""Signals are noted and change nothing else; outside the block they do what they did before."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from pipeline.training.signals import Stopped, StopRequest, stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_noted_and_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number.name
    assert signal.getsignal(number) is before


def test_the_second_interrupt_acts_at_once() -> None:
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def body() -> None:
        with StopRequest():
            assert signal.getsignal(signal.SIGTERM) is before

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


def test_at_once_it_raises_where_it_arrives() -> None:
    with StopRequest() as stop:
        with pytest.raises(Stopped, match="SIGTERM"), stop.immediate():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("went on")
        with pytest.raises(Stopped, match="SIGTERM"), stop.immediate():
            raise AssertionError("one that came before counts too")


def test_what_takes_too_long_is_given_up_but_not_a_save() -> None:
    with StopRequest(grace=0.05) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        with stop.shielded():
            time.sleep(0.2)
        with pytest.raises(Stopped, match="SIGUSR1"):
            time.sleep(5)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_commands_stop_unless_the_signal_is_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with pytest.raises(Stopped, match="SIGTERM"), stoppable():
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)
