"""What an org folder may leave out and the platform always has: organization, currency, unit, application user.

Pure.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal

from d365sync.core.values import Row, Value
from d365sync.emulator.settings import EmulatorSettings

Tables = dict[str, list[dict[str, Value]]]

_IDS = uuid.UUID("2f4f4f0c-8a52-5d4e-9d43-4c1f5b0e8a60")
FISCAL_START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def made_id(kind: str) -> str:
    """Return the id of a supplied thing; always the same for the same thing."""
    return str(uuid.uuid5(_IDS, kind))


def supply(tables: Tables, client_id: str, settings: EmulatorSettings) -> None:
    """Add the rows that are missing; what is there stays as it is."""
    _supply_currency(tables)
    _supply_organization(tables, settings)
    unit = _root_unit(tables)
    _supply_application_user(tables, client_id, unit)
    for principal in (*tables["systemuser"], *tables["team"]):
        principal.setdefault("businessunitid", unit)


def _supply_currency(tables: Tables) -> None:
    if not tables["transactioncurrency"]:
        tables["transactioncurrency"].append(
            {
                "transactioncurrencyid": made_id("currency"),
                "isocurrencycode": "USD",
                "currencyname": "US Dollar",
                "currencysymbol": "$",
            }
        )
    for currency in tables["transactioncurrency"]:
        currency.setdefault("currencyprecision", 2)
        currency.setdefault("exchangerate", Decimal("1.000000000000"))


def _supply_organization(tables: Tables, settings: EmulatorSettings) -> None:
    if not tables["organization"]:
        tables["organization"].append({"organizationid": made_id("organization"), "name": "Emulated organization"})
    organization = tables["organization"][0]
    organization.setdefault("basecurrencyid", _base_of(tables["transactioncurrency"])["transactioncurrencyid"])
    organization.setdefault("fiscalcalendarstart", FISCAL_START)
    organization.setdefault("expirechangetrackingindays", settings.expire_change_tracking_days)
    base = _find(tables["transactioncurrency"], "transactioncurrencyid", organization["basecurrencyid"])
    if base is not None:
        organization.setdefault("baseisocurrencycode", base.get("isocurrencycode"))
        organization.setdefault("basecurrencysymbol", base.get("currencysymbol"))
        organization.setdefault("basecurrencyprecision", base.get("currencyprecision"))


def _base_of(currencies: list[dict[str, Value]]) -> Row:
    return _find(currencies, "exchangerate", Decimal(1)) or currencies[0]


def _root_unit(tables: Tables) -> Value:
    units = tables["businessunit"]
    if not units:
        units.append({"businessunitid": made_id("businessunit"), "name": tables["organization"][0].get("name")})
    return (_find(units, "parentbusinessunitid", None) or units[0])["businessunitid"]


def _supply_application_user(tables: Tables, client_id: str, unit: Value) -> None:
    if _find(tables["systemuser"], "applicationid", client_id) is None:
        tables["systemuser"].append(
            {
                "systemuserid": made_id("application user"),
                "fullname": "# d365sync",
                "applicationid": client_id,
                "accessmode": 4,
                "businessunitid": unit,
            }
        )


def _find(rows: list[dict[str, Value]], column: str, value: Value) -> Mapping[str, Value] | None:
    return next((row for row in rows if row.get(column) == value), None)
