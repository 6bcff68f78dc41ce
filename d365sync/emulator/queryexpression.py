"""Queries as messages carry them, QueryExpression and FetchExpression, put into FetchXML.

Source: QueryExpression, ConditionExpression and ConditionOperator (Web API complex and enum types); FetchXML
operators reference. What would change which rows a query finds and is not known here is refused by name.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from d365sync.emulator.odata.functions import QUERY_FUNCTIONS
from d365sync.emulator.payload import TYPE
from d365sync.emulator.refuse import invalid, not_implemented

PLAIN = {
    "Equal": "eq", "NotEqual": "ne", "GreaterThan": "gt", "GreaterEqual": "ge", "LessThan": "lt", "LessEqual": "le",
    "Like": "like", "NotLike": "not-like", "Null": "null", "NotNull": "not-null", "BeginsWith": "begins-with",
    "DoesNotBeginWith": "not-begin-with", "EndsWith": "ends-with", "DoesNotEndWith": "not-end-with",
}  # fmt: skip
OPERATORS: Mapping[str, str] = {**{name: one.operator for name, one in QUERY_FUNCTIONS.items()}, **PLAIN}
"""FetchXML operators by the names of ConditionOperator; those that are query functions too have the same name."""
SHOWN = ("ColumnSet", "Distinct", "NoLock", "Orders", "PageInfo", "QueryHints", "ForceSeek", "ExtensionData")
"""Properties that do not decide which rows are found."""
UNDONE = ("LinkEntities", "TopCount", "SubQueryExpression", "DataSource")
DEEPEST = 30


def fetch_text(query: Any) -> str:
    """Return the FetchXML of a query.

    Raises:
        Refusal: it is none, or holds what is not implemented.
    """
    if not isinstance(query, dict):
        raise invalid("A query must be a QueryExpression or a FetchExpression.")
    kind = str(query.get(TYPE, "")).removeprefix("#").rpartition(".")[2]
    if kind == "FetchExpression":
        _check_names(query, ("Query",), ())
        return _text(query, "Query")
    if kind != "QueryExpression":
        raise invalid(f"'{str(query.get(TYPE, ''))[:100]}' is not a query: QueryExpression or FetchExpression.")
    _check_names(query, ("EntityName", "Criteria", *SHOWN), UNDONE)
    inner = "" if query.get("Criteria") is None else _filter(query["Criteria"], 0)
    return f"<fetch><entity name={quoteattr(_text(query, 'EntityName'))}>{inner}</entity></fetch>"


def _filter(criteria: Any, depth: int) -> str:
    if not isinstance(criteria, dict) or depth > DEEPEST:
        raise invalid("Criteria must be a FilterExpression, not too deep.")
    _check_names(criteria, ("FilterOperator", "Conditions", "Filters", "IsQuickFindFilter", "FilterHint"), ())
    joined = {"And": "and", "Or": "or", 0: "and", 1: "or"}.get(_scalar(criteria.get("FilterOperator", "And")))
    if joined is None:
        raise invalid("FilterOperator must be And or Or.")
    parts = [_condition(one) for one in _list(criteria, "Conditions")]
    parts += [_filter(one, depth + 1) for one in _list(criteria, "Filters")]
    return f'<filter type="{joined}">{"".join(parts)}</filter>' if parts else ""


def _condition(condition: Any) -> str:
    if not isinstance(condition, dict):
        raise invalid("Conditions must be ConditionExpressions.")
    _check_names(condition, ("AttributeName", "Operator", "Values"), ("EntityName", "CompareColumns"))
    name = _text(condition, "Operator")
    operator = OPERATORS.get(name)
    if operator is None:
        raise not_implemented(f"the condition operator '{name[:50]}'")
    values = [_value(one) for one in _list(condition, "Values")]
    head = f"<condition attribute={quoteattr(_text(condition, 'AttributeName'))} operator={quoteattr(operator)}"
    if len(values) == 1 and operator not in ("in", "not-in", "contain-values", "not-contain-values"):
        return f"{head} value={quoteattr(values[0])}/>"
    return f"{head}>{''.join(f'<value>{escape(one)}</value>' for one in values)}</condition>"


def _value(value: Any) -> str:
    inner = value.get("Value") if isinstance(value, dict) else value
    if isinstance(inner, bool):
        return str(int(inner))
    if isinstance(inner, str | int | Decimal):
        return format(inner, "f") if isinstance(inner, Decimal) else str(inner)
    raise invalid("A condition's value must be a text, a number, or true or false.")


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str | int) else None


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(f"{name} must be a list.")
    return value


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} must be a text.")
    return value


def _check_names(document: Mapping[str, Any], known: tuple[str, ...], undone: tuple[str, ...]) -> None:
    for name, value in document.items():
        if "@" in name or name in known or (name in undone and not value):
            continue
        if name in undone:
            raise not_implemented(f"{name} in a query")
        raise invalid(f"The property '{name[:50]}' does not belong there.")
