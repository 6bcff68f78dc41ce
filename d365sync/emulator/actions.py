"""Actions: closing opportunities, the native rollup of goals, members of teams, and those that make a system job.

Source: WinOpportunity and LoseOpportunity actions; Recalculate action.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from werkzeug.wrappers import Response

from d365sync.core.values import parse_guid
from d365sync.emulator.bulkdelete import bulk_delete
from d365sync.emulator.calls import Call, empty_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.metadata.made import create_tables
from d365sync.emulator.native import recalculate
from d365sync.emulator.payload import Changes
from d365sync.emulator.references import referenced
from d365sync.emulator.refuse import BAD_STATUS, Refusal, invalid, missing_row, no_segment, not_implemented
from d365sync.emulator.rows import update
from d365sync.emulator.teams import add_members, remove_members
from d365sync.emulator.wire import WireError, read_value

WON, LOST = 1, 2
ELSEWHERE = (
    "CloseIncident", "CloseQuote", "GrantAccess", "Merge", "ModifyAccess", "PublishAllXml", "PublishXml",
    "RevokeAccess", "WinQuote",
)  # fmt: skip
"""Actions that are known and not imitated. Source: Web API action reference."""


def unbound_action(call: Call, name: str) -> Response:
    """Answer ``POST Name``.

    Raises:
        Refusal: there is no such action, or it is not implemented.
    """
    if name in ACTIONS:
        return ACTIONS[name](call)
    if name in ELSEWHERE:
        raise not_implemented(f"the action '{name}'")
    raise no_segment(name)


def _recalculate(call: Call, row_id: str) -> Response:
    """Answer ``POST goals(id)/Microsoft.Dynamics.CRM.Recalculate``."""
    facts = call.store.catalogue.tables["goal"]
    call.need("Read", facts)
    call.need("Write", facts)
    row = call.store.get(facts.name, row_id)
    if row is None:
        raise missing_row(facts.name, row_id)
    call.need_row("Read", facts, row)
    call.need_row("Write", facts, row)
    recalculate(call.store, row_id, call.store.settings, call.store.clock.now())
    return empty_response(204)


BOUND_ACTIONS: Mapping[tuple[str, str], Callable[[Call, str], Response]] = {
    ("goal", "Recalculate"): _recalculate,
    ("team", "AddMembersTeam"): add_members,
    ("team", "RemoveMembersTeam"): remove_members,
}
"""Every action of a row that is answered, by table and name."""


def _win(call: Call) -> Response:
    return _close_opportunity(call, WON)


def _lose(call: Call) -> Response:
    return _close_opportunity(call, LOST)


ACTIONS: Mapping[str, Callable[[Call], Response]] = {
    "WinOpportunity": _win,
    "LoseOpportunity": _lose,
    "BulkDelete": bulk_delete,
    "CreateEntities": create_tables,
}
"""Every unbound action that is answered, by name."""


def _close_opportunity(call: Call, state: int) -> Response:
    facts = call.store.catalogue.tables["opportunity"]
    call.need("Write", facts)
    body = call.body()
    close = body.get("OpportunityClose")
    if not isinstance(close, dict):
        raise invalid("Required field 'OpportunityClose' is missing")
    row_id = _opportunity(call, close)
    row = call.store.get(facts.name, row_id)
    if row is None:
        raise missing_row(facts.name, row_id)
    call.need_row("Write", facts, row)
    if row.get("statecode") != 0:
        raise Refusal(400, BAD_STATUS, "The opportunity has already been closed.")
    changes = _closing_changes(call, facts, close, state)
    status = body.get("Status", -1)
    if not isinstance(status, int):
        raise invalid("Status must be a whole number; -1 is the default status.")
    if status != -1:
        changes["statuscode"] = status
    update(call.store, facts, row_id, changes, call.user_id, dedicated=True, real_id=call.real_id)
    return empty_response(204)


def _opportunity(call: Call, close: dict[str, Any]) -> str:
    """Return the id of the opportunity a close activity names, by its address or by itself."""
    address, inline = close.get("opportunityid@odata.bind"), close.get("opportunityid")
    if address is not None:
        key = referenced(address, call.store, call.root)
        if key is not None and key.facts.name == "opportunity":
            return str(key.row(call.store)["opportunityid"])
    try:
        return parse_guid(str(inline.get("opportunityid") if isinstance(inline, dict) else None))
    except ValueError:
        raise invalid("OpportunityClose must name its opportunity: opportunityid@odata.bind.") from None


def _closing_changes(call: Call, facts: TableFacts, close: dict[str, Any], state: int) -> Changes:
    """Return what closing sets. Assumed: the close date is today in UTC unless given."""
    changes: Changes = {"statecode": state}
    closed_on = close.get("actualend") or call.store.clock.now().date().isoformat()
    for name, raw in {"actualclosedate": str(closed_on)[:10], "actualvalue": close.get("actualrevenue")}.items():
        try:
            if raw is not None:
                changes[name] = read_value(facts.columns[name].column, raw, rounding=call.store.settings.rounding)
        except WireError as error:
            raise invalid(f"OpportunityClose {name} {error}.") from error
    return changes
