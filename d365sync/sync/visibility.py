"""Visibility: which rows each goal's manager may read, asked of Dataverse as that manager.

The platform counts for a goal what its manager may read (Source: Roll up goal totals). The application user usually
reads more. So, when ``rollup.visibility`` is ``manager``, the ids each manager may read are read by impersonation and
kept in the mirror: all of them every ``rollup.visibility_refresh``, and in between those of the rows that changed.

``Assumed:`` of the rows that a rollup query or rollup field joins, only the source table's must be readable.

IO: HTTP and SQL, through the client and the mirror.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import structlog

from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.participation import Grouping
from d365sync.core.problems import Problem, Severity
from d365sync.core.schema import Table
from d365sync.core.values import Row
from d365sync.dataverse.wire import ACT_ON_BEHALF
from d365sync.errors import FORBIDDEN, AuthError, RejectedError
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable
from d365sync.mirror.visible import REFUSED, UNREADABLE, Fault, Pair, PairState
from d365sync.sync.streams import side_by_side

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

log = structlog.get_logger(__name__)

OBJECT_ID, DISABLED = "azureactivedirectoryobjectid", "isdisabled"
MANAGER_COLUMNS: Mapping[str, frozenset[str]] = {"systemuser": frozenset({OBJECT_ID, DISABLED})}
"""What is mirrored in addition when managers are impersonated."""
IDS_PER_REQUEST = 200
"""Ids in one filter; the address stays below 10,000 characters (the limit is 32,768)."""
MOST_FOLLOWED = 5000
"""Changed rows of a table beyond which each manager's ids are all read again."""
_PRIVILEGE_DENIED = "0x80040220"
_NO_ROLES = "0x80042F09"
"""Source: web service error codes."""
_CANNOT_READ = re.compile(r"missing prvRead", re.IGNORECASE)
_OR_SERVICE = 'or set rollup.visibility = "service"'


@dataclass(frozen=True, slots=True)
class Visibility:
    """What was found that managers may read.

    ``versions`` is keyed by table and manager: when it moves, the goals of that manager over that table are computed
    again. ``problems`` are those of the goals whose manager cannot be asked, or may read nothing. ``requests`` is what
    it took.
    """

    versions: Mapping[Pair, int]
    problems: tuple[Problem, ...] = ()
    requests: int = 0


def readable_ids(client: DataverseClient, table: Table, users: Table, goal: Goal) -> frozenset[str] | Fault:
    """Ask Dataverse, as a goal's manager, which rows of a table that manager may read; say why if nobody can be asked.

    A manager who may not read the table reads no row of it.

    Raises:
        RemoteError: as every call; AuthError when the application user may impersonate nobody.
    """
    manager_id = goal.manager_id or ""
    is_team = goal.manager_type == "team"
    user = None if is_team else client.find(users, manager_id, [users.primary_id, OBJECT_ID, DISABLED])
    found = _manager(user, manager_id, is_team=is_team)
    if found.fault is not None:
        return found.fault
    try:
        pages = client.rows(table, [table.primary_id], on_behalf_of=found.object_id)
        return frozenset(str(row[table.primary_id]) for page in pages for row in page.rows)
    except (AuthError, RejectedError) as error:
        if _is_about_all(error):
            raise
        fault = _refusal(error)
        return frozenset() if fault.kind == UNREADABLE else fault


@dataclass(frozen=True)
class VisibilityReader:
    """What asking as the managers needs; ``tables`` are the mirrored ones, ``now`` the cycle's start.

    ``workers`` questions are asked at one time.
    """

    client: DataverseClient
    mirror: Mirror
    book: GoalBook
    grouping: Grouping
    tables: Mapping[str, MirrorTable]
    refresh_s: int
    now: dt.datetime
    workers: int = 4
    _unable: dict[str, Fault] = field(default_factory=dict)

    def refresh(self, *, full: bool = False) -> Visibility:
        """Ask for what is not known or too old (for everything if ``full``), and for the rows that changed.

        One question goes first: it tells whether the application user may ask as anybody. The others are asked side by
        side.

        Raises:
            RemoteError: the remote; what was asked before stays.
            MirrorError: the mirror.
        """
        before = self.client.usage.requests
        with self.mirror.visible() as ids:
            ids.keep_only(self._goals)
            states = {} if full else ids.states()
        pairs = [pair for pair in sorted(self._goals) if self._who[pair[1]].fault is None]
        questions = [one for pair in pairs if (one := self._question(pair, states.get(pair))) is not None]
        self._ask(questions[:1])
        self._ask(questions[1:])
        return self._result(self.client.usage.requests - before)

    def known(self) -> Visibility:
        """Return what the last refresh found, asking nothing."""
        return self._result(0)

    @cached_property
    def _goals(self) -> Mapping[Pair, list[Goal]]:
        """The goals of every pair of source table and manager, in id order."""
        found: dict[Pair, dict[str, Goal]] = defaultdict(dict)
        for group in self.grouping.groups:
            for goal_id in group.goal_ids:
                goal = self.book.goals[goal_id]
                found[group.table, goal.manager_id or ""][goal_id] = goal
        return {pair: [goals[goal_id] for goal_id in sorted(goals)] for pair, goals in found.items()}

    @cached_property
    def _who(self) -> Mapping[str, _Manager]:
        """Every manager of those goals."""
        users = {str(row["systemuserid"]): row for row in self.mirror.rows(self.tables["systemuser"])}
        teams = {str(row["teamid"]) for row in self.mirror.rows(self.tables["team"])}
        return {manager: _manager(users.get(manager), manager, is_team=manager in teams) for _, manager in self._goals}

    def _question(self, pair: Pair, state: PairState | None) -> _Question | None:
        """Return what is to be asked about a pair, None for nothing."""
        stale = state is None or (self.now - state.refreshed_at).total_seconds() >= self.refresh_s
        fault = state.fault if state else None
        if stale or (fault is not None and fault.kind == REFUSED):
            return _Question(pair)
        if fault is not None:
            return None
        with self.mirror.visible() as ids:
            changed = ids.changed_ids(self.tables[pair[0]], up_to=MOST_FOLLOWED)
        return _Question(pair, changed) if changed != [] else None

    def _ask(self, questions: list[_Question]) -> None:
        """Ask, and keep each answer as it is complete. A question about some ids that is refused is asked about all."""
        while questions:
            if self._unable:
                for one in questions:
                    self._note(one.pair, self._unable[ACT_ON_BEHALF])
                return
            again: list[_Question] = []
            sources = [partial(self._read, one) for one in questions]
            with closing(side_by_side(sources, workers=self.workers)) as events:  # type: ignore[type-var]
                for event in events:
                    question = questions[event.source]
                    if event.error is not None:
                        again += self._refused(question, event.error)
                    elif event.item is not None:
                        question.seen += event.item
                    else:
                        self._keep(question)
            questions = again

    def _read(self, question: _Question) -> Iterator[list[str]]:
        """Yield the pages of the ids that the manager may read: all, or those of the ids asked about."""
        table, manager = self.tables[question.pair[0]].table, self._who[question.pair[1]].object_id
        key = table.primary_id
        for where in question.filters(key):
            for page in self.client.rows(table, [key], where=where, on_behalf_of=manager):
                yield [str(row[key]) for row in page.rows]

    def _refused(self, question: _Question, error: BaseException) -> list[_Question]:
        """Note why a question was not answered; return what is to be asked in its place.

        Raises:
            BaseException: the error, when it is no refusal.
        """
        if not isinstance(error, AuthError | RejectedError):
            raise error
        if question.asked is None:
            self._note(question.pair, self._fault(error))
            return []
        table, manager = question.pair
        log.warning("visibility.question_refused", table=table, manager=manager, reason=str(error))
        return [_Question(question.pair)]

    def _keep(self, question: _Question) -> None:
        with self.mirror.visible() as ids:
            if question.asked is not None:
                ids.settle(question.pair, question.asked, question.seen)
                return
            difference = ids.replace(question.pair, question.seen, self.now)
        log.info(
            "visibility.refreshed",
            table=question.pair[0],
            manager=question.pair[1],
            rows=len(question.seen),
            added=difference.added,
            removed=difference.removed,
        )

    def _note(self, pair: Pair, fault: Fault) -> None:
        with self.mirror.visible() as ids:
            if fault.kind == UNREADABLE:
                ids.replace(pair, (), self.now, fault)
            else:
                ids.refuse(pair, self.now, fault)
        log.warning("visibility.fault", table=pair[0], manager=pair[1], kind=fault.kind, reason=fault.reason)

    def _fault(self, error: AuthError | RejectedError) -> Fault:
        """Say what an error means for one manager; without the right to impersonate it means that for all.

        Raises:
            AuthError: signing in failed.
        """
        fault = _refusal(error)
        if _is_about_all(error):
            self._unable[ACT_ON_BEHALF] = fault
        return fault

    def _result(self, requests: int) -> Visibility:
        with self.mirror.visible() as ids:
            states = ids.states()
        problems = (
            _problem(goal, pair, fault, self.book)
            for pair, goals in sorted(self._goals.items())
            if (fault := self._who[pair[1]].fault or _fault_of(states.get(pair))) is not None
            for goal in goals
        )
        versions = {pair: state.version for pair, state in states.items() if pair in self._goals}
        return Visibility(versions, tuple(dict.fromkeys(problems)), requests)


@dataclass(slots=True)
class _Question:
    """What is asked as a pair's manager: which of the ids ``asked``, or of all (None), may be read; ``seen`` so far."""

    pair: Pair
    asked: list[str] | None = None
    seen: list[str] = field(default_factory=list)

    def filters(self, key: str) -> list[str]:
        """Return the ``$filter`` of each request, empty for none; ``key`` is the table's."""
        from d365sync.dataverse.client import among

        asked = self.asked
        if asked is None:
            return [""]
        return [among(key, asked[at : at + IDS_PER_REQUEST]) for at in range(0, len(asked), IDS_PER_REQUEST)]


@dataclass(frozen=True, slots=True)
class _Manager:
    """A manager: the Entra object id, or why there is nobody to impersonate."""

    object_id: str = ""
    fault: Fault | None = None


def _refusal(error: AuthError | RejectedError) -> Fault:
    """Say what an answer to a question asked as a manager means for that manager.

    Raises:
        AuthError: signing in failed.
    """
    if isinstance(error, AuthError) and error.status != FORBIDDEN:
        raise error
    if error.code == _NO_ROLES or (error.code == _PRIVILEGE_DENIED and _CANNOT_READ.search(str(error))):
        return Fault(UNREADABLE, str(error))
    return Fault(REFUSED, str(error), error.hint)


def _is_about_all(error: AuthError | RejectedError) -> bool:
    """Say whether it is the application user who lacks the right to ask as anybody."""
    return ACT_ON_BEHALF.lower() in str(error).lower()


def _manager(user: Row | None, manager_id: str, *, is_team: bool) -> _Manager:
    if user is not None and user.get(DISABLED) is True:
        return _Manager(fault=Fault("disabled", "is disabled", "enable the user"))
    if user is not None and (object_id := user.get(OBJECT_ID)):
        return _Manager(str(object_id))
    if user is not None:
        return _Manager(fault=Fault("without-object-id", "has no Entra object id", "synchronize the user with Entra"))
    if not manager_id:
        return _Manager(fault=Fault("missing", "is not known", "give the goal a manager"))
    if is_team:
        return _Manager(fault=Fault("team", "is a team, which cannot be impersonated", "make a user its manager"))
    return _Manager(fault=Fault("unknown", "is no user that can be read", "let the application user read all users"))


def _fault_of(state: PairState | None) -> Fault | None:
    if state is None:
        return Fault("unasked", "has not been asked what may be read", "run `d365sync sync`")
    return state.fault


def _problem(goal: Goal, pair: Pair, fault: Fault, book: GoalBook) -> Problem:
    """Return the problem of one goal: a warning when its manager reads nothing, else blocking."""
    manager = f"the manager of '{goal.title}'"
    name = book.names.get(pair[1], "")
    if name:
        manager += f", {name},"
    if fault.kind == UNREADABLE:
        return Problem(
            code="manager-reads-nothing",
            message=f"{manager} may not read {pair[0]}: no record counts ({fault.reason})",
            goal_id=goal.id,
            severity=Severity.WARNING,
            hint=f"give the manager a security role that reads {pair[0]}",
        )
    refused = f"cannot be asked what may be read of {pair[0]}: {fault.reason}"
    return Problem(
        code=f"manager-{fault.kind}",
        message=f"{manager} {refused if fault.kind == REFUSED else fault.reason}",
        goal_id=goal.id,
        hint=f"{fault.mend}, {_OR_SERVICE}" if fault.mend else _OR_SERVICE.removeprefix("or "),
    )
