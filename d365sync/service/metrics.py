"""What the service tells in the form that Prometheus reads, made from its state whenever it is asked.

Names end as Prometheus wants them: ``_total`` for what only grows (since the start of the process), ``_seconds`` for
durations, ``_timestamp_seconds`` for instants. No name of a person, a goal or a record is in any of them.

Source: Metric and label naming (Prometheus); writing exporters (Prometheus).

IO: none (the state's lock).
"""

from __future__ import annotations

import datetime as dt
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from d365sync import __version__
from d365sync.service.state import EnvironmentState, ServiceState

PREFIX = "d365sync_"
ANSWER = re.compile(r"([A-Z]+) (\d{3}|none)")
"""How the numbers of a cycle spell the requests of a method that got a status."""
Value = Callable[[EnvironmentState, dt.datetime], float | None]


@dataclass(frozen=True, slots=True)
class One:
    """A number of each environment; None of ``value`` means that there is none to tell."""

    name: str
    help: str
    value: Value
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Several:
    """Numbers of each environment by further labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: Callable[[EnvironmentState], Mapping[tuple[str, ...], float]]
    grows: bool = False


def _at(instant: dt.datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


def _total(key: str) -> Value:
    return lambda one, _now: one.totals.get(key, 0)


def _last(key: str) -> Value:
    return lambda one, _now: one.counts.get(key)


def _lag_s(one: EnvironmentState, now: dt.datetime) -> float | None:
    return None if one.last_success_at is None else max((now - one.last_success_at).total_seconds(), 0)


def _rows(one: EnvironmentState) -> Mapping[tuple[str, ...], float]:
    deleted = one.totals.get("deleted_rows", 0)
    changed = one.totals.get("changed_rows", 0) - deleted
    return {("read",): one.totals.get("rows", 0), ("changed",): changed, ("deleted",): deleted}


def _requests(one: EnvironmentState) -> Mapping[tuple[str, ...], float]:
    found = {key: ANSWER.fullmatch(key) for key in one.totals}
    return {(match[1], match[2]): one.totals[key] for key, match in found.items() if match}


def _goals_by_result(one: EnvironmentState) -> Mapping[tuple[str, ...], float]:
    keys = {"written": "written_goals", "conflicted": "conflicts", "refused": "failures"}
    return {(result,): one.totals.get(key, 0) for result, key in keys.items()}


SINGLE = (
    One(
        "last_success_timestamp_seconds",
        "When the last cycle that succeeded ended.",
        lambda e, _: _at(e.last_success_at),
    ),
    One("last_end_timestamp_seconds", "When the last cycle ended, however it did.", lambda e, _: _at(e.last_ended_at)),
    One("next_cycle_timestamp_seconds", "When the next cycle is due.", lambda e, _: _at(e.next_at)),
    One("lag_seconds", "Age of the numbers: seconds since the last cycle that succeeded.", _lag_s),
    One("cycle_running", "Whether a cycle is running (1).", lambda e, _: e.running),
    One("cycle_duration_seconds", "How long the last cycle took.", lambda e, _: e.last_duration_s),
    One("cycle_failures", "Cycles that failed in a row.", lambda e, _: e.failures),
    One(
        "guard_stops_total",
        "Cycles that a guard stopped before the first write.",
        lambda e, _: e.guard_stops,
        grows=True,
    ),
    One("goals", "Goals of the last cycle that succeeded.", _last("goals")),
    One("goals_planned", "Goals whose numbers differed in the last cycle that succeeded.", _last("planned_goals")),
    One("problems", "Problems found by the last cycle that succeeded.", _last("problems")),
    One("damaged_values", "Damaged values left out by the last cycle that succeeded.", _last("damaged_values")),
    One("operations_total", "What counts against the daily entitlement.", _total("operations"), grows=True),
    One("retries_total", "Requests that were repeated.", _total("retries"), grows=True),
    One("throttle_seconds_total", "Seconds waited because Dataverse asked for it.", _total("throttled_s"), grows=True),
    One("received_bytes_total", "Bytes received, as transferred.", _total("received_bytes"), grows=True),
    One("standby", "Whether another instance works here and this one waits (1).", lambda e, _: e.standby),
    One("lease_epoch", "Epoch of the lease that this instance holds.", lambda e, _: e.lease_epoch),
    One(
        "token_expiry_timestamp_seconds", "When the access token in use expires.", lambda e, _: _at(e.token_expires_at)
    ),
    One("sign_in_expiry_timestamp_seconds", "When the certificate expires.", lambda e, _: _at(e.sign_in_until)),
)
LABELLED = (
    Several(
        "table_last_read_timestamp_seconds",
        "When a table was last read.",
        ("table",),
        lambda e: {(name,): at.timestamp() for name, at in e.tables.items()},
    ),
    Several(
        "cycles_total",
        "Cycles that ended, by outcome.",
        ("outcome",),
        lambda e: {(name,): n for name, n in e.outcomes.items()},
        grows=True,
    ),
    Several("rows_total", "Rows read, changed and deleted in the mirror.", ("operation",), _rows, grows=True),
    Several("requests_total", "Requests by method and status.", ("method", "status"), _requests, grows=True),
    Several("goal_writes_total", "Goals by what became of their write.", ("result",), _goals_by_result, grows=True),
)


class StateCollector(Collector):
    """Makes the metrics of a service from its state."""

    def __init__(self, state: ServiceState, clock: Callable[[], dt.datetime]) -> None:
        self._state = state
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield every family; those without a value have no sample."""
        build = GaugeMetricFamily(f"{PREFIX}build_info", "The version that runs.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        alive = GaugeMetricFamily(f"{PREFIX}alive", "Whether the loop and every running cycle make progress (1).")
        alive.add_metric((), self._state.is_alive())
        yield alive
        environments, now = self._state.environments(), self._clock()
        for single in SINGLE:
            family = _family(single.name, single.help, ("environment",), grows=single.grows)
            for one in environments:
                value = single.value(one, now)
                if value is not None:
                    family.add_metric((one.name,), float(value))
            yield family
        for several in LABELLED:
            yield self._labelled(several, environments)

    @staticmethod
    def _labelled(several: Several, environments: Iterable[EnvironmentState]) -> Metric:
        family = _family(several.name, several.help, ("environment", *several.labels), grows=several.grows)
        for one in environments:
            for labels, value in sorted(several.values(one).items()):
                family.add_metric((one.name, *labels), float(value))
        return family


def registry_of(state: ServiceState, clock: Callable[[], dt.datetime]) -> CollectorRegistry:
    """Return a registry of the service's own: its state, and the process (memory, descriptors, CPU; on Linux)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(state, clock))
    ProcessCollector(registry=registry)
    return registry


def names() -> frozenset[str]:
    """Return the name of every metric of our own, as it is asked for."""
    return frozenset(PREFIX + one.name for one in (*SINGLE, *LABELLED)) | {f"{PREFIX}build_info", f"{PREFIX}alive"}


def _family(name: str, text: str, labels: tuple[str, ...], *, grows: bool) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if grows else GaugeMetricFamily
    return kind(PREFIX + name, text, labels=labels)
