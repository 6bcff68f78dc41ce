"""People, the native rollup and bad networks around a push; and the checker that knows what may not be overwritten."""

from __future__ import annotations

import datetime as dt
import io
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from d365sync.core.goals.book import goal_of
from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.goals.writes import is_ours
from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from tests.golden.casebook import made_id
from tests.parts import concerns_goals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from d365sync.journal.store import Values

OWN = "new_actual"
GOALS = tuple(made_id("goal", name) for name in ("Company", "North", "Ann", "Bob", "South"))
RIGHT = {"Ann": "100.25", "Bob": "200.5", "South": "4.0001", "North": "301", "Company": "305.0001"}


FATES = ("lost", "late", "answer", "503", "cut", "killed")
"""Not sent; arriving later; carried out without an answer, or with one that says nothing; the end of the process."""


class OverwrittenError(AssertionError):
    """A person's edit is not there any more."""


@dataclass
class World:
    """The organization and those who change it; ``fates`` are what happens to batches of writes, none if all go well.

    ``theirs`` is what a person's standing override holds, by goal; ``typed`` what was put into our own columns since
    the goals were read. ``seen`` is what goals held by our hand when somebody came; ``unclear`` are goals
    where a person typed just that.
    """

    emulator: Emulator
    dice: random.Random
    fates: tuple[str, ...] = ()
    theirs: dict[str, Mapping[str, Value]] = field(default_factory=dict)
    typed: dict[str, Value] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    seen: dict[str, list[Values]] = field(default_factory=lambda: defaultdict(list))
    ours: Mapping[str, tuple[Values, ...]] = field(default_factory=dict)
    as_read: dict[str, Value] | None = None

    def begin(self, ours: Mapping[str, tuple[Values, ...]]) -> None:
        """A cycle begins; ``ours`` is what the journal knows as written."""
        self.ours, self.as_read, self.typed = ours, None, {}

    def planned(self) -> None:
        """The cycle has read everything."""
        self.as_read = {goal: self.row(goal).get(OWN) for goal in GOALS}

    def row(self, goal: str) -> Mapping[str, Value]:
        return self.emulator.store.rows("goal")[goal]

    def act(self) -> None:
        """Do one thing that somebody could do."""
        goal = self.dice.choice(GOALS)
        if self.row(goal).get("isoverridden") and goal not in self.theirs:
            self.seen[goal].append(goal_of(self.row(goal)).native)
        self.dice.choice([self.override, self.override, self.hand_back, self.type_own, self.rename])(goal)
        self.check()

    def native(self) -> None:
        """Let somebody roll up at once, or let the day pass after which the platform's own job does."""
        if self.dice.random() < 0.5:
            recalculate(self.emulator.store, GOALS[0], self.emulator.store.settings, self.emulator.clock.now())
        else:
            self.emulator.clock.advance(dt.timedelta(days=1))

    def deal(self) -> None:
        money = Decimal(self.dice.randint(0, 10**5)).scaleb(-2)
        deal = made_id("deal", self.dice.choice("12345"))
        self.emulator.store.change("opportunity", deal, {"actualvalue": money, "actualvalue_base": money})

    def override(self, goal: str) -> None:
        """Type a number over a goal; in tidy networks also the very number that is right, or that rounded."""
        numbers = [Decimal(self.dice.randint(10**6, 10**7)).scaleb(-2)]
        if not self.fates:
            right = Decimal(RIGHT[str(self.row(goal)["title"]).partition(" ")[0]])
            numbers += [right, right.quantize(Decimal(1)), right]
        before = dict(self.row(goal))
        typed = {"isoverridden": True, "actualmoney": self.dice.choice(numbers), "inprogressmoney": Decimal(0)}
        self.emulator.store.change("goal", goal, typed)
        now = goal_of(self.row(goal))
        same = goal not in self.theirs and all(before.get(name) == value for name, value in typed.items())
        if same or is_ours(now, (*self.ours.get(goal, ()), *self.seen[goal])):
            self.unclear.add(goal)
            self.theirs.pop(goal, None)
        else:
            self.unclear.discard(goal)
            self.theirs[goal] = self.numbers(goal)

    def hand_back(self, goal: str) -> None:
        self.emulator.store.change("goal", goal, {"isoverridden": False})
        self.theirs.pop(goal, None)
        self.unclear.discard(goal)

    def type_own(self, goal: str) -> None:
        value = Decimal(self.dice.randint(10**6, 10**7)).scaleb(-2)
        self.emulator.store.change("goal", goal, {OWN: value})
        if goal in self.theirs:
            self.theirs[goal] = self.numbers(goal)
        if self.as_read is not None and value != self.as_read[goal]:
            self.typed[goal] = value

    def rename(self, goal: str) -> None:
        title = str(self.row(goal)["title"]).partition(" ")[0]
        self.emulator.store.change("goal", goal, {"title": f"{title} {self.dice.randint(0, 9)}"})

    def numbers(self, goal: str) -> Mapping[str, Value]:
        row = self.row(goal)
        return {name: row.get(name) for name in ("isoverridden", OWN, *VALUE_COLUMNS)}

    def check(self) -> None:
        """Find nothing of what people typed overwritten.

        Raises:
            OverwrittenError: something is.
        """
        for goal, numbers in self.theirs.items():
            if self.numbers(goal) != numbers:
                raise OverwrittenError(f"{self.row(goal)['title']}: {numbers} became {self.numbers(goal)}")
        for goal, value in self.typed.items():
            if self.row(goal).get(OWN) != value:
                raise OverwrittenError(f"{self.row(goal)['title']}: {value} became {self.row(goal).get(OWN)}")


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Wild:
    """The emulator's application in a world where something may happen before every request, and answers get lost."""

    world: World
    late: list[WSGIEnvironment] = field(default_factory=list)
    quiet: bool = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        writes = concerns_goals(environ) and b"PATCH" in environ["wsgi.input"].getvalue()
        app: WSGIApplication = self.world.emulator.app
        if self.quiet:
            return app(environ, start_response)
        self._something()
        if not writes or not self.world.fates:
            return app(environ, start_response)
        return self._lossy(app, environ, start_response)

    def _something(self) -> None:
        dice = self.world.dice
        if self.late and dice.random() < 0.4:
            self.arrive()
        if dice.random() < 0.25:
            dice.choice([self.world.act, self.world.act, self.world.native, self.world.deal])()
            self.world.check()

    def _lossy(self, app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        fate = self.world.dice.choice(self.world.fates)
        if fate == "late":
            self.late.append({**environ, "wsgi.input": io.BytesIO(environ["wsgi.input"].getvalue())})
        if fate in ("lost", "late"):
            raise ConnectionResetError(fate)
        if fate == "well":
            return app(environ, start_response)
        response = Response.from_app(app, environ, buffered=True)
        self._something()
        if fate == "answer":
            raise ConnectionResetError(fate)
        if fate == "killed":
            raise Killed
        if fate == "cut":
            response.set_data(response.get_data()[:-200])
        return (Response("down", 503) if fate == "503" else response)(environ, start_response)

    def arrive(self) -> None:
        """Let a request that was on its way arrive."""
        Response.from_app(self.world.emulator.app, self.late.pop(0), buffered=True)
        self.world.check()


@dataclass
class Careless:
    """A mutant: every conditional write becomes unconditional on its way."""

    inner: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        body = re.sub(rb'If-Match: W/"[^"]*"', b"If-Match: *", body)
        changed: dict[str, Any] = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return self.inner(changed, start_response)
