"""What ``emulator serve`` lets people choose, as settings.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from d365sync.emulator.settings import UNLIMITED, EmulatorSettings, ServiceLimits
from d365sync.errors import UsageError

SWITCHED_OFF = ("requests", "execution_ms", "concurrent")
LIMITS = (*SWITCHED_OFF, "window_s", "request_ms", "concurrent_retry_after_s")
MOST = 10**9


def chosen_settings(limits: Iterable[str], *, no_limits: bool, dop_hint: str | None, frozen: bool) -> EmulatorSettings:
    """Return the settings of a served emulator; ``frozen`` says that its clock stands still.

    Real clients wait in real time, so that is what the limits' window moves by even then; and they mean their own
    clock when they ask for a job now.

    Raises:
        UsageError: a limit is not ``NAME=N``.
    """
    chosen = UNLIMITED if no_limits else ServiceLimits()
    changes: dict[str, Any] = dict(_limit(text) for text in limits)
    chosen = replace(chosen, by_passing_time=frozen, **changes)
    settings = EmulatorSettings(limits=chosen, jobs_start_by_real_time=frozen)
    return settings if dop_hint is None else replace(settings, dop_hint=dop_hint)


def _limit(text: str) -> tuple[str, int | None]:
    name, _, number = text.partition("=")
    if name not in LIMITS:
        raise UsageError(f"--limit {text!r} is not known", hint=f"known are {', '.join(LIMITS)}, as in requests=100")
    if number == "off" and name in SWITCHED_OFF:
        return name, None
    if not number.isascii() or not number.isdigit() or not 0 < int(number[:12]) <= MOST:
        raise UsageError(f"--limit {text!r} needs a whole number from 1", hint=f"for example {name}=100")
    return name, int(number)
