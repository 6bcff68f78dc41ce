from __future__ import annotations

import os
import signal

import pytest

from d365sync.service.signals import RELOAD, STOP, WAKE, Signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent to the process itself")


def test_the_first_signal_asks_to_stop_and_the_second_ends_the_process() -> None:
    ended: list[int] = []
    signals = Signals(ended.append)
    before = signal.getsignal(signal.SIGTERM)
    with signals.handled():
        signal.raise_signal(signal.SIGTERM)
        assert not signals.stopping.is_set()
        assert signals.wait(60) == {STOP}
        assert signals.stopping.is_set()
        assert ended == []
        signal.raise_signal(signal.SIGINT)
        assert ended == [128 + signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_asks_for_a_reload_and_many_for_one() -> None:
    signals = Signals()
    with signals.handled():
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        signals.ask(WAKE)
        assert signals.wait(60) == {RELOAD, WAKE}
        assert signals.wait(0) == set()
    assert not signals.stopping.is_set()
