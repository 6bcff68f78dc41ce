"""Plans and other results as documents: what ``--json`` prints, what is saved, and what a refused run leaves behind.

Pure.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

from d365sync.core.goals.writes import Skip, WritePlan
from d365sync.core.problems import Problem
from d365sync.core.values import format_instant, plain


def document_of_plan(
    plan: WritePlan, *, run_id: str, mode: str, organization_id: str, problems: Iterable[Problem] = ()
) -> dict[str, object]:
    """Return a plan as the document that ``plan --output`` saves and ``apply`` takes."""
    return {
        "run": run_id,
        "mode": mode,
        "organization": organization_id,
        "goals": goal_documents(plan),
        "left_alone": skip_documents(plan.skips),
        "unchanged": plan.unchanged,
        "problems": tuple(problems),
    }


def skip_documents(skips: Iterable[Skip]) -> list[dict[str, object]]:
    """Return goals left alone as documents."""
    return [{"goal": s.goal_id, "title": s.title, "reason": s.reason, "message": s.message} for s in skips]


def goal_documents(plan: WritePlan) -> list[dict[str, object]]:
    """Return the writes of a plan as documents."""
    return [
        {
            "goal": write.goal_id,
            "title": write.title,
            "etag": write.etag,
            "changes": [
                {
                    "column": change.column,
                    "native": change.native,
                    "ours": change.ours,
                    "difference": change.difference,
                    "why": change.why,
                }
                for change in write.changes
            ],
        }
        for write in plan.writes
    ]


def json_text(document: object) -> str:
    """Return a document as indented JSON."""
    import msgspec

    encoder = msgspec.json.Encoder(decimal_format="number")
    return msgspec.json.format(encoder.encode(plain_document(document)), indent=2).decode()


def plain_document(value: object) -> Any:
    """Return a value as JSON can hold it: texts, numbers (Decimal, never float), lists and objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain_document(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_document(one) for key, one in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dt.datetime):
        return format_instant(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return Decimal(plain(value))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [plain_document(one) for one in value]
    return value
