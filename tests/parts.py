"""A line whose batches meet something at chosen parts: a refusal, or somebody who is quicker."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request

from d365sync.app import App, opened
from d365sync.emulator import Emulator
from d365sync.emulator.calls import PART_FAULT
from d365sync.emulator.inprocess import mounted_session
from d365sync.emulator.refuse import Refusal
from tests.emulated import NOW, configuration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Meeting = Callable[[Request], Refusal | None]


@dataclass
class Parts:
    """The emulator's application; ``meet`` is asked before each part of a batch that concerns single goals.

    ``batches`` are the methods of those parts, batch by batch.
    """

    app: WSGIApplication
    meet: Meeting = field(default=lambda _request: None)
    batches: list[list[str]] = field(default_factory=list)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if concerns_goals(environ):
            self.batches.append([])
            environ[PART_FAULT] = self._meet
        return self.app(environ, start_response)

    def _meet(self, request: Request) -> Refusal | None:
        self.batches[-1].append(request.method)
        return self.meet(request)


@dataclass
class GoalBatches:
    """Passes batches that concern single goals through ``faulty``, everything else by it."""

    faulty: WSGIApplication
    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (self.faulty if concerns_goals(environ) else self.app)(environ, start_response)


def concerns_goals(environ: WSGIEnvironment) -> bool:
    """Say whether a request is a batch with parts for single goals; its body stays readable."""
    if not str(environ["PATH_INFO"]).endswith("/$batch"):
        return False
    body = environ["wsgi.input"].read()
    environ["wsgi.input"] = io.BytesIO(body)
    return b"/goals(" in body


@contextmanager
def batching(
    parts: WSGIApplication,
    emulator: Emulator,
    folder: Path,
    *,
    now: dt.datetime = NOW,
    **sections: Mapping[str, object],
) -> Iterator[App]:
    """Build the application on a session through which every request passes ``parts``."""
    sections.setdefault("dataverse", {"retry_budget": "0s"})
    config = configuration(emulator, folder, **sections)
    with opened(config, clock=lambda: now, environ={}, session=mounted_session(parts)) as app:
        yield app
