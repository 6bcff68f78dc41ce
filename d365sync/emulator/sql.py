"""``?sql=``: a plain SELECT over one table, read into the FetchXML query it stands for.

``SELECT [TOP n] columns FROM table [WHERE …] [ORDER BY column [ASC|DESC], …]`` with comparisons, LIKE, IN, BETWEEN,
IS NULL, AND, OR, NOT and brackets. Joins, aggregates, DISTINCT, ``*`` and aliases are refused by name. Source: the
official Python client (read-only SELECT, pages by ``@odata.nextLink``). Assumed: lookups are named by their logical
names and come as ``_name_value``, nulls are absent as in FetchXML, a page's token is its number. As in SQL, and
not as in FetchXML, a comparison with an empty column is neither true nor false: only IS NULL keeps such rows.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from d365sync.core.fetchxml.ast import Attribute, Condition, Fetch, Filter, FilterType, Order
from d365sync.core.fetchxml.evaluate import evaluate_result
from d365sync.emulator.calls import Call
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.fetched import FetchedEncoder
from d365sync.emulator.odata.pages import page_size
from d365sync.emulator.refuse import Refusal, bad_query, bad_uri, invalid, not_implemented
from d365sync.emulator.stored import StoredTables
from d365sync.errors import FetchXmlError

PARAMETER = "sql"
COMPARISONS = {"=": "eq", "<>": "ne", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "in": "not-in", "like": "not-like"}
_OPPOSITE |= {"between": "not-between", "null": "not-null", "not-null": "null", "not-in": "in", "not-like": "like"}
_OPPOSITE |= {"not-between": "between"}
_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|([A-Za-z_]\w*)|(-?\d+(?:\.\d+)?)|(<>|!=|<=|>=|[=<>(),*.;+/-]))")
_KEEPING_NULL = ("ne", "not-in", "not-like", "not-between")
"""Operators that keep rows with an empty column in FetchXML, or may."""
_MAX_DEPTH = 50
_UNDONE = ("DISTINCT", "JOIN", "GROUP", "HAVING", "UNION", "AS", "OFFSET")


def answer_sql(call: Call, facts: TableFacts) -> tuple[dict[str, Any], str | None]:
    """Return the document of a query, without its next link, and the token of its next page.

    Raises:
        Refusal: the query is malformed, over another table, or more than a plain SELECT.
    """
    others = sorted(name for name in call.arguments if name.startswith("$") and name != "$skiptoken")
    if others:
        raise bad_uri(f"The query option '{others[0]}' cannot be used together with {PARAMETER}.")
    fetch = _Reader(_tokens(call.arguments[PARAMETER])).query()
    if fetch.entity != facts.name:
        raise bad_uri(f"The table '{fetch.entity}' is not that of the entity set '{facts.table.entity_set_name}'.")
    if fetch.top is None:
        fetch = replace(fetch, count=page_size(call.preferences, call.store), page=_page(call))
    asking = call.asking()
    rows = StoredTables(call.store)[facts.name]
    keep = call.access.test("Read", facts)
    tables = {facts.name: [row for row in rows if keep is None or keep(row)]}
    try:
        result = evaluate_result(fetch, tables, call.store.catalogue.schema, asking.context)
    except FetchXmlError as error:
        raise bad_query(error) from error
    encoder = FetchedEncoder(call.store, facts, fetch, result, call.preferences)
    context = f"{call.root}$metadata#{facts.table.entity_set_name}({','.join(encoder.selected)})"
    document: dict[str, Any] = {
        "@odata.context": context,
        "value": [encoder.encode(at) for at in range(len(result.rows))],
    }
    return document, quote(str(result.page + 1)) if result.more and fetch.top is None else None


def _page(call: Call) -> int:
    text = call.arguments.get("$skiptoken", "1")
    if not text.isdecimal() or not 0 < len(text) < 7 or int(text) < 1:
        raise bad_uri("The skip token in the request URI is malformed.")
    return int(text)


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise invalid(f"The SQL text is not understood at '{text[position : position + 20]}'.")
        found.append(match[0].strip())
        position = match.end()
    return found


@dataclass(slots=True)
class _Reader:
    """Recursive descent over the words of one SELECT."""

    words: list[str]
    position: int = 0

    def query(self) -> Fetch:
        self._need("SELECT")
        top = int(self._number()) if self._take("TOP") else None
        columns = [self._column()]
        while self._take(","):
            columns.append(self._column())
        self._need("FROM")
        table = self._column()
        where = self._either(negated=False, depth=0) if self._take("WHERE") else None
        orders = self._orders() if self._take("ORDER") else ()
        if self.position < len(self.words):
            raise self._refused()
        names = dict.fromkeys(columns)
        attributes = tuple(Attribute(name) for name in names)
        return Fetch(table, filter=where, attributes=attributes, orders=orders, top=top)

    def _orders(self) -> tuple[Order, ...]:
        self._need("BY")
        found = [self._order()]
        while self._take(","):
            found.append(self._order())
        return tuple(found)

    def _order(self) -> Order:
        name = self._column()
        descending = self._take("DESC")
        if not descending:
            self._take("ASC")
        return Order(name, descending=descending)

    def _either(self, *, negated: bool, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise invalid(f"The SQL text has more than {_MAX_DEPTH} levels.")
        return self._joined("OR", "and" if negated else "or", self._both, negated=negated, depth=depth)

    def _both(self, *, negated: bool, depth: int) -> Filter:
        return self._joined("AND", "or" if negated else "and", self._single, negated=negated, depth=depth)

    def _joined(self, word: str, kind: FilterType, part: Callable[..., Filter], *, negated: bool, depth: int) -> Filter:
        parts = [part(negated=negated, depth=depth)]
        while self._take(word):
            parts.append(part(negated=negated, depth=depth))
        return parts[0] if len(parts) == 1 else Filter(kind, filters=tuple(parts))

    def _single(self, *, negated: bool, depth: int) -> Filter:
        if self._take("NOT"):
            if depth > _MAX_DEPTH:
                raise invalid(f"The SQL text has more than {_MAX_DEPTH} levels.")
            return self._single(negated=not negated, depth=depth + 1)
        if self._take("("):
            inner = self._either(negated=negated, depth=depth + 1)
            self._need(")")
            return inner
        condition = self._condition()
        if negated:
            condition = replace(condition, operator=_OPPOSITE[condition.operator])
        if condition.operator in _KEEPING_NULL:
            return Filter(conditions=(condition, Condition(condition.attribute, "not-null")))
        return Filter(conditions=(condition,))

    def _condition(self) -> Condition:
        name = self._column()
        if self._take("IS"):
            operator = "not-null" if self._take("NOT") else "null"
            self._need("NULL")
            return Condition(name, operator)
        other = "not-" if self._take("NOT") else ""
        if self._take("LIKE"):
            return Condition(name, f"{other}like", (self._literal(),))
        if self._take("BETWEEN"):
            low = self._literal()
            self._need("AND")
            return Condition(name, f"{other}between", (low, self._literal()))
        if self._take("IN"):
            return Condition(name, f"{other}in", self._list())
        word = self._next()
        if other or word not in COMPARISONS:
            self.position -= 1
            raise self._refused()
        return Condition(name, COMPARISONS[word], (self._literal(),))

    def _list(self) -> tuple[str, ...]:
        self._need("(")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._need(")")
        return tuple(values)

    def _literal(self) -> str:
        word = self._next()
        if word.startswith("'"):
            return word[1:-1].replace("''", "'")
        if re.fullmatch(r"-?\d+(\.\d+)?", word) is None:
            self.position -= 1
            raise self._refused()
        return word

    def _number(self) -> str:
        word = self._next()
        if re.fullmatch(r"\d{1,9}", word) is None:
            self.position -= 1
            raise self._refused()
        return word

    def _column(self) -> str:
        word = self._next()
        if re.fullmatch(r"[A-Za-z_]\w*", word) is None or word.upper() in _UNDONE:
            self.position -= 1
            raise self._refused()
        return word.lower()

    def _take(self, word: str) -> bool:
        if self.position < len(self.words) and self.words[self.position].upper() == word:
            self.position += 1
            return True
        return False

    def _need(self, word: str) -> None:
        if not self._take(word):
            raise self._refused()

    def _next(self) -> str:
        if self.position >= len(self.words):
            self.position += 1
            raise invalid("The SQL text ends too early.")
        self.position += 1
        return self.words[self.position - 1]

    def _refused(self) -> Refusal:
        if self.position >= len(self.words):
            return invalid("The SQL text ends too early.")
        return not_implemented(f"'{self.words[self.position]}' at this place of the SQL text")
