"""The query functions of ``$filter``: each is a FetchXML operator, answered by the FetchXML evaluator.

Source: Web API query function reference; FetchXML operators reference. Assumed: ``PropertyName`` may hold the
logical name of a lookup or its ``_name_value``, and numbers may stand in quotes or without.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter
from d365sync.core.fetchxml.check import check_fetch
from d365sync.core.fetchxml.joining import Joiner
from d365sync.core.fetchxml.truth import Facts, test_of
from d365sync.core.values import Value
from d365sync.emulator.facts import ColumnFacts, TableFacts
from d365sync.emulator.odata.asking import Asking
from d365sync.emulator.refuse import NAMESPACE, bad_query, bad_uri
from d365sync.emulator.stored import StoredTables
from d365sync.errors import FetchXmlError


class Takes(Enum):
    """The parameters a function takes besides ``PropertyName``."""

    NOTHING = ()
    VALUE = ("PropertyValue",)
    VALUES = ("PropertyValues",)
    TWO = ("PropertyValue1", "PropertyValue2")


@dataclass(frozen=True, slots=True)
class QueryFunction:
    """One function: the FetchXML operator it stands for, and its parameters."""

    name: str
    operator: str
    takes: Takes


def _functions() -> list[QueryFunction]:
    units = ("Hours", "Days", "Weeks", "Months", "Years")
    found = [
        *_named(Takes.VALUE, Above="above", AboveOrEqual="eq-or-above", Under="under", UnderOrEqual="eq-or-under"),
        *_named(Takes.VALUE, NotUnder="not-under", On="on", OnOrAfter="on-or-after", OnOrBefore="on-or-before"),
        *_named(Takes.VALUES, Between="between", NotBetween="not-between", In="in", NotIn="not-in"),
        *_named(Takes.VALUES, ContainValues="contain-values", DoesNotContainValues="not-contain-values"),
        *_named(Takes.NOTHING, EqualBusinessId="eq-businessid", NotEqualBusinessId="ne-businessid"),
        *_named(Takes.NOTHING, EqualUserId="eq-userid", NotEqualUserId="ne-userid", EqualUserTeams="eq-userteams"),
        *_named(Takes.NOTHING, EqualUserLanguage="eq-userlanguage", EqualUserOrUserTeams="eq-useroruserteams"),
        *_named(Takes.NOTHING, EqualUserOrUserHierarchy="eq-useroruserhierarchy"),
        *_named(Takes.NOTHING, EqualUserOrUserHierarchyAndTeams="eq-useroruserhierarchyandteams"),
        *_named(Takes.NOTHING, Today="today", Yesterday="yesterday", Tomorrow="tomorrow"),
        *_named(Takes.NOTHING, Last7Days="last-seven-days", Next7Days="next-seven-days"),
        *_named(Takes.VALUE, InFiscalPeriod="in-fiscal-period", InFiscalYear="in-fiscal-year"),
        *_named(Takes.TWO, InFiscalPeriodAndYear="in-fiscal-period-and-year"),
        *_named(Takes.TWO, InOrAfterFiscalPeriodAndYear="in-or-after-fiscal-period-and-year"),
        *_named(Takes.TWO, InOrBeforeFiscalPeriodAndYear="in-or-before-fiscal-period-and-year"),
    ]
    for side in ("Last", "Next"):
        found += [QueryFunction(f"{side}X{one}", f"{side.lower()}-x-{one.lower()}", Takes.VALUE) for one in units]
        for plain, spelled in (("FiscalPeriods", "fiscal-periods"), ("FiscalYears", "fiscal-years")):
            found.append(QueryFunction(f"{side}X{plain}", f"{side.lower()}-x-{spelled}", Takes.VALUE))
    for one in ("Minutes", *units):
        found.append(QueryFunction(f"OlderThanX{one}", f"olderthan-x-{one.lower()}", Takes.VALUE))
    for side in ("Last", "Next", "This"):
        for plain, spelled in (("FiscalPeriod", "fiscal-period"), ("FiscalYear", "fiscal-year")):
            found.append(QueryFunction(side + plain, f"{side.lower()}-{spelled}", Takes.NOTHING))
        for plain in ("Week", "Month", "Year"):
            found.append(QueryFunction(side + plain, f"{side.lower()}-{plain.lower()}", Takes.NOTHING))
    return found


def _named(takes: Takes, **operators: str) -> list[QueryFunction]:
    return [QueryFunction(name, operator, takes) for name, operator in operators.items()]


QUERY_FUNCTIONS: Mapping[str, QueryFunction] = {one.name: one for one in _functions()}
"""Every query function that is answered, by name. ``Contains`` is not: it searches a full-text index."""


def function_test(
    function: QueryFunction, facts: TableFacts, column: ColumnFacts, values: Sequence[str], asking: Asking
) -> Callable[[Value], bool]:
    """Return the test a function puts to a column's value.

    Raises:
        Refusal: the function does not go with the column's type, or a value is none of it.
    """
    condition = Condition(column.name, function.operator, tuple(values))
    fetch = Fetch(facts.name, filter=Filter(conditions=(condition,)))
    schema = asking.catalogue.schema
    try:
        check_fetch(fetch, schema, asking.context)
        joiner = Joiner(StoredTables(asking.store), schema, asking.context)
        known = Facts(schema, asking.context, {}, joiner)
        return test_of(condition, facts.table, column.column, known)
    except FetchXmlError as error:
        raise bad_query(error, f"{NAMESPACE}{function.name}: ") from error


def named_function(name: str) -> QueryFunction | None:
    """Return the query function a qualified name means, None when it is none that is known."""
    return QUERY_FUNCTIONS.get(name.removeprefix(NAMESPACE)) if name.startswith(NAMESPACE) else None


def check_parameters(function: QueryFunction, given: Sequence[str]) -> None:
    """Refuse parameters other than the function's own.

    Raises:
        Refusal: one is missing, twice or unknown.
    """
    wanted = ["PropertyName", *function.takes.value]
    if sorted(given) != sorted(wanted):
        raise bad_uri(f"The function '{NAMESPACE}{function.name}' takes {', '.join(wanted)}, not {', '.join(given)}.")
