"""Checks every table shares: choices, ranges, lengths, and which status goes with which state.

Pure.
"""

from __future__ import annotations

from decimal import Decimal

from d365sync.core.schema import CHOICE_TYPES, ColumnType
from d365sync.core.values import Row, Value
from d365sync.emulator.facts import ColumnFacts, TableFacts
from d365sync.emulator.kept import default_status
from d365sync.emulator.payload import Changes
from d365sync.emulator.refuse import BAD_STATUS, OUT_OF_RANGE, TOO_LONG, Refusal

CHOICE_OUT_OF_RANGE = "0x8004431a"


def check_values(facts: TableFacts, changes: Changes) -> None:
    """Refuse values outside what their columns allow.

    Raises:
        Refusal: so.
    """
    for name, value in changes.items():
        column = facts.columns.get(name)
        if column is not None and value is not None:
            _check_value(facts, column, value)


def settle_status(facts: TableFacts, old: Row | None, changes: Changes) -> Changes:
    """Return state and status as the write leaves them: a state alone brings its default status.

    Assumed: null for either of them means that it is left as it is.

    Raises:
        Refusal: 0x80048408, the status does not belong to the state.
    """
    status = facts.columns.get("statuscode")
    if status is None or not changes.keys() & {"statecode", "statuscode"}:
        return {}
    before = old or facts.defaults
    given = {name: value for name, value in changes.items() if value is not None}
    state = given.get("statecode", before.get("statecode"))
    if "statuscode" not in given:
        moved = "statecode" in given or before.get("statuscode") is None
        return {"statecode": state, "statuscode": default_status(facts, state) if moved else before["statuscode"]}
    chosen = given["statuscode"]
    if status.states and status.states.get(int(str(chosen))) != state:
        raise Refusal(400, BAD_STATUS, f"{chosen} is not a valid status code for state code {state} on {facts.name}.")
    return {"statecode": state, "statuscode": chosen}


def _check_value(facts: TableFacts, column: ColumnFacts, value: Value) -> None:
    where = f"'{column.name}' on record of type '{facts.name}'"
    if column.column.type in CHOICE_TYPES and column.options and value not in column.options:
        accepted = ",".join(str(one) for one in column.options)
        raise Refusal(
            400,
            CHOICE_OUT_OF_RANGE,
            f"A validation error occurred. The value {value} of {where} is outside the valid range. "
            f"Accepted Values: {accepted}",
        )
    if isinstance(value, int | float | Decimal) and column.column.type is not ColumnType.BOOLEAN:
        low, high = column.minimum, column.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            raise Refusal(
                400, OUT_OF_RANGE, f"A validation error occurred. The value of {where} is outside the valid range."
            )
    if isinstance(value, str) and column.max_length is not None and len(value) > column.max_length:
        raise Refusal(
            400,
            TOO_LONG,
            f"A validation error occurred. The length of the '{column.name}' attribute of the '{facts.name}' entity "
            f"exceeded the maximum allowed length of '{column.max_length}'.",
        )
