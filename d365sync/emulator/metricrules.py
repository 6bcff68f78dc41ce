"""What the platform holds metrics, rollup fields and rollup queries to.

Source: Define goal metric and rollup fields; Add complex goal criteria; Web service error codes (0x800448xx).

Pure.
"""

from __future__ import annotations

from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.values import Row
from d365sync.emulator.payload import Changes
from d365sync.emulator.percentages import CATEGORIES, KINDS, kind_of
from d365sync.emulator.refuse import Refusal
from d365sync.emulator.store import Store
from d365sync.errors import FetchXmlError

MAX_ROLLUP_FIELDS = 3


def check_metric(store: Store, old: Row | None, row: Row, changes: Changes) -> None:
    """Refuse a second metric of a name, and a change of type while goals use the metric.

    Raises:
        Refusal: so.
    """
    name = str(row.get("name") or "").casefold()
    others = (one for one in store.rows("metric").values() if one["metricid"] != row["metricid"])
    if name and any(str(one.get("name") or "").casefold() == name for one in others):
        raise Refusal(400, "0x80044802", "A goal metric with the same name already exists.")
    typed = {one for one in ("isamount", "amountdatatype") if old is not None and old.get(one) != row.get(one)}
    if typed & changes.keys() and store.referring("goal", "metricid", str(row["metricid"])):
        raise Refusal(400, "0x80044803", "The metric cannot be changed because goals use it.")


def check_rollup_field(store: Store, old: Row | None, row: Row) -> None:
    """Refuse a rollup field the metric has no place for, and any change once a goal of the metric is closed.

    Raises:
        Refusal: so.
    """
    metric = str(row.get("metricid"))
    if old is not None:
        if any(goal.get("statecode") == 1 for goal in store.referring("goal", "metricid", metric)):
            raise Refusal(400, "0x80044801", "The rollup field cannot be changed: goals of its metric are closed.")
        return
    fields = store.referring("rollupfield", "metricid", metric)
    if len(fields) >= MAX_ROLLUP_FIELDS:
        raise Refusal(400, "0x8004480a", "A goal metric can have no more than three rollup fields.")
    if any(field.get("goalattribute") == row.get("goalattribute") for field in fields):
        raise Refusal(400, "0x80044807", "The goal attribute already has a rollup field.")
    kind = _kind_of_metric(store.get("metric", metric))
    if kind is not None and row.get("goalattribute") not in [f"{category}{kind}" for category in CATEGORIES]:
        raise Refusal(400, "0x8004480b", "The goal attribute does not match the metric's data type.")


def check_rollup_query(row: Row) -> None:
    """Refuse a query whose FetchXML cannot be read or is over another table than it says.

    Raises:
        Refusal: so.
    """
    try:
        fetch = parse_fetch(str(row.get("fetchxml") or ""))
    except FetchXmlError as error:
        raise Refusal(400, error.code or "0x80041103", str(error)) from error
    if fetch.entity != row.get("queryentitytype"):
        raise Refusal(400, "0x80044909", "The entity of the FetchXML differs from the query's entity type.")


def _kind_of_metric(metric: Row | None) -> str | None:
    if metric is None:
        return None
    if metric.get("isamount") is False and metric.get("amountdatatype") is None:
        return KINDS[2]
    return kind_of(metric)
