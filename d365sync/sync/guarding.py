"""Guarding a run: stop it before its first write, leave a plan to read, or let it pass because a person accepted it.

What the guards see is decided in :mod:`d365sync.core.goals.guards`; here it is held against what was accepted.

IO: SQL and files, through the mirror and for the plan of a refused run.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from d365sync import logs
from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.core.goals.goal import VALUE_COLUMNS, Goal
from d365sync.core.goals.guards import Finding, Losses, Proposal, judge_losses, judge_plan
from d365sync.core.goals.modes import COLUMNS, RECALCULATE
from d365sync.core.goals.writes import WritePlan
from d365sync.errors import GuardError
from d365sync.mirror.store import Withheld
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.documents import document_of_plan, json_text
from d365sync.sync.snapshot import Line

log = structlog.get_logger(__name__)

SQLITE = "sqlite:///"
OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a person accepts: writes to so many goals at most, and the loss of so many rows; None is none."""

    goals: int | None = None
    deletions: int | None = None


NOTHING = Accepted()


@dataclass(frozen=True, slots=True)
class Warden:
    """Guards one run; ``again`` is the command by which a person would run it again."""

    line: Line
    run_id: str
    accepted: Accepted = NOTHING
    again: str = "sync"

    def remove(self, withheld: Mapping[str, tuple[MirrorTable, Withheld]]) -> Mapping[str, int]:
        """Remove the rows that were withheld, if their number is accepted; return how many, by table.

        Raises:
            GuardError: it is not accepted; the mirror still has them.
        """
        losses = [Losses(name, len(one.ids), one.known) for name, (_, one) in sorted(withheld.items())]
        findings = judge_losses(losses, self.line.config.guards.rules)
        total = sum(one.number for one in findings)
        if findings and (self.accepted.deletions is None or total > self.accepted.deletions):
            raise self._lost(findings, total, withheld)
        _say_accepted(findings)
        return {
            name: self.line.mirror.apply(table, [], one.ids, last=one.last).deleted
            for name, (table, one) in withheld.items()
        }

    def judge(
        self,
        plan: WritePlan,
        goals: Mapping[str, Goal],
        known: Collection[str],
        metrics: Mapping[str, str],
        mode: str,
    ) -> tuple[Finding, ...]:
        """Return what is not plausible about a plan; ``goals`` are all that could be written, ``known`` those we wrote.

        In mode recalculate nothing of ours is written, and nothing is found.
        """
        if mode == RECALCULATE or plan.is_empty:
            return ()
        proposal = Proposal(plan.writes, goals, known, amount_columns(self.line.config, mode), metrics)
        return judge_plan(proposal, self.line.config.guards.rules)

    def check(self, plan: WritePlan, findings: Sequence[Finding], mode: str, organization_id: str) -> None:
        """Let a plan pass that is plausible or accepted.

        Raises:
            GuardError: it is neither; nothing was written.
        """
        number = len(plan.writes)
        if findings and (self.accepted.goals is None or number > self.accepted.goals):
            raise self._implausible(plan, findings, mode, organization_id)
        _say_accepted(findings)

    def _lost(
        self, findings: Sequence[Finding], total: int, withheld: Mapping[str, tuple[MirrorTable, Withheld]]
    ) -> GuardError:
        rows = {one.table: withheld[one.table][1].ids for one in findings}
        document: dict[str, object] = {
            "run": self.run_id,
            "guards": list(findings),
            "accept_deletions": total,
            "rows": rows,
        }
        few = self.accepted.deletions
        return GuardError(
            f"{_sentence(findings)}; nothing was removed or written"
            + (f"; --accept-deletions {few} is less than {total}" if few is not None else "")
            + _saved(self.line.config, document, "what is gone"),
            hint="look whether the application user lost a privilege, or a job deleted records; if the rows are really "
            f"gone, run `{self.line.config.command(f'sync --accept-deletions {total}')}`",
            document=document,
        )

    def _implausible(self, plan: WritePlan, findings: Sequence[Finding], mode: str, organization_id: str) -> GuardError:
        number, few = len(plan.writes), self.accepted.goals
        document = document_of_plan(plan, run_id=self.run_id, mode=mode, organization_id=organization_id)
        document |= {"guards": list(findings), "accept": number}
        return GuardError(
            f"{_sentence(findings)}; nothing of the plan of {counted(number, 'goal')} was written"
            + (f"; --accept {few} is less than {number}" if few is not None else "")
            + _saved(self.line.config, document, "the plan"),
            hint=f"look at the plan; to accept it, run `{self.line.config.command(f'{self.again} --accept {number}')}`",
            plan=plan,
            document=document,
        )


def writable(goals: Mapping[str, Goal], plan: WritePlan) -> dict[str, Goal]:
    """Return the goals that a plan writes or finds right: all but those it leaves alone."""
    alone = {skip.goal_id for skip in plan.skips}
    return {goal_id: goal for goal_id, goal in goals.items() if goal_id not in alone}


def amount_columns(config: Config, mode: str) -> tuple[str, ...]:
    """Return the columns that take amounts in a mode: the nine, or the organization's own in their place."""
    if mode != COLUMNS:
        return VALUE_COLUMNS
    return tuple(target for source, target in config.writeback.columns.items() if source in VALUE_COLUMNS)


def refused_plan(config: Config) -> Path:
    """Return the file for the plan of a refused run: one for each journal, replaced by the next."""
    journal = config.database_url(config.storage.journal)
    kept = Path(journal.removeprefix(SQLITE)) if journal.startswith(SQLITE) and journal != SQLITE else None
    stem = kept.stem if kept else urlsplit(config.dataverse.url).hostname or "plan"
    folder = config.resolve(config.guards.plans) if config.guards.plans else kept.parent if kept else config.folder
    return folder / f"{stem}.refused.json"


def accepted_message(findings: Sequence[Finding]) -> str:
    """Say in a run's journal what a person accepted."""
    return f"accepted: {'; '.join(one.message for one in findings)}" if findings else ""


def _say_accepted(findings: Sequence[Finding]) -> None:
    for one in findings:
        log.warning("guard.accepted", guard=str(one.guard), reason=one.message)


def _sentence(findings: Sequence[Finding]) -> str:
    return f"stopped before the first write: {'; '.join(one.message for one in findings)}"


def _saved(config: Config, document: Mapping[str, object], what: str) -> str:
    """Save what was refused, for its owner's eyes; say where, or why not: the refusal stands either way."""
    path = refused_plan(config)
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w", encoding="utf-8") as file:
            file.write(logs.redact(json_text(document)) + "\n")
        part.replace(path)
    except OSError as error:
        return f"; {what} could not be saved to {path}: {error.strerror}"
    return f"; {what} is in {path}"
