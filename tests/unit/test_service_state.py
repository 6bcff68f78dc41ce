from __future__ import annotations

import datetime as dt

from d365sync.errors import GuardError
from d365sync.service.state import EnvironmentState, ServiceState

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)


class Time:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def test_environments_are_snapshots_in_the_order_of_the_configuration() -> None:
    state = ServiceState(["b", "a"])
    before = state.environments()
    state.update("a", cycles=1, last_success_at=NOW)
    assert before == (EnvironmentState("b"), EnvironmentState("a"))
    assert state.environment("a") == EnvironmentState("a", cycles=1, last_success_at=NOW)


def test_an_environment_that_stays_keeps_its_state_and_one_that_left_does_not_come_back() -> None:
    state = ServiceState(["a", "b"])
    state.update("a", cycles=3)
    state.keep(["c", "a"])
    state.update("b", cycles=7)
    assert [(one.name, one.cycles) for one in state.environments()] == [("c", 0), ("a", 3)]


def test_it_is_alive_while_the_loop_beats() -> None:
    time = Time()
    state = ServiceState(["a"], patience_s=60, timer=time)
    time.s = 60
    assert state.is_alive()
    assert not state.is_alive(60.5)
    state.beat()
    assert state.is_alive(120)


def test_a_cycle_without_progress_makes_it_dead_although_the_loop_beats() -> None:
    time = Time()
    state = ServiceState(["a", "b"], cycle_patience_s=1000, timer=time)
    state.beat("a")
    time.s = 1001
    state.beat()
    assert not state.is_alive()
    assert (state.silence_s("a"), state.silence_s("b")) == (1001, 0)
    state.beat("a")
    assert state.is_alive()
    time.s += 1001
    state.beat()
    state.rest("a")
    assert state.is_alive()


def test_cycles_that_ended_are_summed_and_a_failed_one_leaves_the_last_success() -> None:
    state = ServiceState(["a"])
    later = NOW + dt.timedelta(minutes=5)
    state.beat("a")
    state.ended("a", "ok", NOW, counts={"rows": 5, "requests": 2}, duration_s=1.5, next_at=later)
    state.ended("a", "refused", later, counts={"requests": 3}, error=GuardError("too many goals change"))
    found = state.environment("a")
    assert (found.last_success_at, found.last_ended_at, found.counts["rows"]) == (NOW, later, 5)
    assert (found.cycles, found.failures, found.guard_stops, found.next_at) == (2, 1, 1, later)
    assert found.totals == {"rows": 5, "requests": 5}
    assert found.outcomes == {"ok": 1, "refused": 1}
    assert (found.last_error, found.error_kind) == ("too many goals change", "GuardError")


def test_a_cycle_that_was_stopped_is_no_failure_and_the_next_success_forgets_the_error() -> None:
    state = ServiceState(["a"])
    state.ended("a", "failed", NOW, error=OSError("no route"))
    state.ended("a", "stopped", NOW)
    assert state.environment("a").failures == 1
    state.ended("a", "partial", NOW)
    assert (state.environment("a").failures, state.environment("a").last_error) == (0, "")
