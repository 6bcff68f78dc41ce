"""Values the platform keeps by itself: currency, exchange rate, ``_base`` amounts, inherited columns, names.

Used when an org is loaded and on every write, so both agree.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from d365sync.core.values import MONEY_SCALE, Row, Value
from d365sync.emulator.facts import Ownership, TableFacts
from d365sync.emulator.store import Store
from d365sync.emulator.wire import EXACT, at_scale

PAR = Decimal("1.000000000000")
"""The rate of the base currency, at the scale of exchange rates."""
CURRENCY = "transactioncurrencyid"
RATE = "exchangerate"
_INHERITED = {
    "ownerid": "ownerid",
    "owneridtype": "owneridtype",
    CURRENCY: CURRENCY,
    RATE: RATE,
    "opportunitystatecode": "statecode",
}


def base_currency(store: Store) -> str | None:
    """Return the organization's base currency."""
    found = store.only("organization").get("basecurrencyid")
    return str(found) if found else None


def base_amount(amount: Value, rate: Value, rounding: str) -> Decimal | None:
    """Return an amount in base currency: amount / rate, at the stored scale of money.

    Source: Transaction Currency table. Assumed: how the quotient is rounded.
    """
    if not isinstance(amount, Decimal) or not isinstance(rate, Decimal) or not rate:
        return None
    return at_scale(EXACT.divide(amount, rate), MONEY_SCALE, rounding)


def has_currency(facts: TableFacts) -> bool:
    """Say whether the platform keeps currency and rate on this table's rows."""
    return CURRENCY in facts.columns and RATE in facts.columns and facts.name != "transactioncurrency"


def currency_and_rate(facts: TableFacts, row: Row, store: Store) -> dict[str, Value]:
    """Return currency and rate for a row that lacks them; a goal is always in base currency.

    Assumed: a row with money but no currency takes the base currency.
    Source: Goal table reference (transactioncurrencyid is read-only).
    """
    kept: dict[str, Value] = {}
    if not has_currency(facts):
        return kept
    currency = row.get(CURRENCY)
    if currency is None and CURRENCY not in row and any(row.get(name) is not None for name in facts.money):
        currency = kept[CURRENCY] = base_currency(store)
    if currency is not None and row.get(RATE) is None:
        known = store.get("transactioncurrency", currency)
        kept[RATE] = PAR if known is None else known.get(RATE)
    return kept


def base_amounts(facts: TableFacts, row: Row, rounding: str, names: Iterable[str]) -> dict[str, Value]:
    """Return the ``_base`` companions of the named money columns."""
    rate = row.get(RATE)
    return {f"{name}_base": base_amount(row.get(name), rate, rounding) for name in names if name in facts.money}


def inherited(facts: TableFacts, row: Row, store: Store) -> dict[str, Value]:
    """Return what a product line takes from its opportunity where the row does not say otherwise."""
    if facts.ownership is not Ownership.PARENT:
        return {}
    parent = store.get("opportunity", row.get("opportunityid"))
    if parent is None:
        return {}
    return {own: parent.get(source) for own, source in _INHERITED.items() if row.get(own) is None}


def owner_columns(facts: TableFacts, row: Row, store: Store) -> dict[str, Value]:
    """Return the columns derived from the owner: user or team, and the business unit."""
    if facts.ownership is not Ownership.USER:
        return {}
    owner, kind = row.get("ownerid"), row.get("owneridtype")
    found = store.get(str(kind), owner)
    return {
        "owninguser": owner if kind == "systemuser" else None,
        "owningteam": owner if kind == "team" else None,
        "owningbusinessunit": None if found is None else found.get("businessunitid"),
    }


def full_name(facts: TableFacts, row: Row) -> dict[str, Value]:
    """Return the composed name of a person whose parts are known."""
    if "fullname" not in facts.columns or not {"firstname", "lastname"} <= facts.columns.keys():
        return {}
    parts = [str(row[name]) for name in ("firstname", "lastname") if row.get(name)]
    return {"fullname": " ".join(parts)} if parts else {}


def default_status(facts: TableFacts, state: Value) -> int | None:
    """Return the status a state takes when none is named: the default if it belongs to it, else the lowest."""
    status = facts.columns.get("statuscode")
    if status is None:
        return None
    usual = status.default if isinstance(status.default, int) else None
    fitting = sorted(value for value, its_state in status.states.items() if its_state == state)
    return usual if usual in fitting or not fitting else fitting[0]


def completed(facts: TableFacts, row: Row, store: Store) -> dict[str, Value]:
    """Return the row with every kept value it lacks; what the row says itself stays."""
    whole = {**facts.defaults, **row}
    if "statuscode" not in row and row.get("statecode") is not None:
        whole["statuscode"] = default_status(facts, row["statecode"])
    whole.update(_absent(inherited(facts, whole, store), whole))
    whole.update(_absent(owner_columns(facts, whole, store), whole))
    whole.update(_absent(full_name(facts, whole), whole))
    whole.update(currency_and_rate(facts, whole, store))
    whole.update(_absent(base_amounts(facts, whole, store.settings.rounding, facts.money), whole))
    return whole


def _absent(kept: dict[str, Value], row: Row) -> dict[str, Value]:
    return {name: value for name, value in kept.items() if row.get(name) is None}
