"""``$filter``: read into a predicate over a row.

Comparison operators, ``and or not``, brackets, ``contains startswith endswith``, comparison of two columns of
the row, and the query functions ``In`` and ``NotIn``. Everything else is refused by name. Text is compared
without case; ``contains`` and its family honour the wildcards ``%``, ``_`` and ``[]``. Source: Filter rows
using OData.

Nulls: as in FetchXML, ``ne`` and the negated text functions keep rows whose column is empty, all other
comparisons drop them. Assumed: ``not`` turns a comparison into its opposite operator before nulls are looked at.

Pure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from d365sync.core.schema import TEXT_TYPES, Column
from d365sync.core.values import Row, Value
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.literals import edm_type, incompatible, literal_value, unquote
from d365sync.emulator.odata.tokens import Token, tokens_of
from d365sync.emulator.refuse import bad_uri, no_property, not_implemented

Predicate = Callable[[Row], bool]

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_OPPOSITE = {"eq": "ne", "ne": "eq", "gt": "le", "le": "gt", "ge": "lt", "lt": "ge"}
_MIRRORED = {"eq": "eq", "ne": "ne", "gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}
_TEXT = ("contains", "startswith", "endswith")
_LISTS = {"Microsoft.Dynamics.CRM.In": False, "Microsoft.Dynamics.CRM.NotIn": True}
_MAX_DEPTH = 100


def parse_filter(text: str, facts: TableFacts, aliases: Mapping[str, str]) -> Predicate:
    """Return the predicate a ``$filter`` text means for a table.

    Raises:
        Refusal: it is malformed, names an unknown property, mixes types, or uses what is not implemented.
    """
    parser = _Parser(tokens_of(text, aliases), facts, text)
    predicate = parser.either(negated=False, depth=0)
    parser.expect("end")
    return predicate


def both(one: Predicate | None, other: Predicate | None) -> Predicate | None:
    """Return the predicate that holds when both do; None holds for every row."""
    if one is None or other is None:
        return one or other
    return lambda row: one(row) and other(row)


@dataclass(slots=True)
class _Parser:
    """Recursive descent; ``negated`` pushes ``not`` down to the comparisons."""

    tokens: list[Token]
    facts: TableFacts
    text: str
    position: int = 0

    def either(self, *, negated: bool, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise bad_uri("The node count limit of the filter has been exceeded.")
        return self._joined("or", self._both, any_of=not negated, negated=negated, depth=depth)

    def _both(self, *, negated: bool, depth: int) -> Predicate:
        return self._joined("and", self._single, any_of=negated, negated=negated, depth=depth)

    def _joined(
        self, word: str, part: Callable[..., Predicate], *, any_of: bool, negated: bool, depth: int
    ) -> Predicate:
        parts = [part(negated=negated, depth=depth)]
        while self._take_word(word):
            parts.append(part(negated=negated, depth=depth))
        if len(parts) == 1:
            return parts[0]
        join = any if any_of else all
        return lambda row: join(one(row) for one in parts)

    def _single(self, *, negated: bool, depth: int) -> Predicate:
        if self._take_word("not"):
            if self._peek().text in _LISTS:
                raise bad_uri("Not operator along with the Custom Named Condition operators is not allowed")
            return self._single(negated=not negated, depth=depth + 1)
        if self._peek().text == "(":
            self.expect("mark", "(")
            inner = self.either(negated=negated, depth=depth + 1)
            self.expect("mark", ")")
            return inner
        if self._peek(1).text == "(":
            return self._function(negated)
        return self._comparison(negated)

    def _comparison(self, negated: bool) -> Predicate:
        left, word = self._next(), self._next().text
        if word not in _OPERATORS:
            raise not_implemented(f"the operator '{word}' in $filter") if word.isalpha() else self._error()
        right = self._next()
        if self._is_literal(left):
            left, right, word = right, left, _MIRRORED[word]
        column = self._column(left)
        chosen = _OPPOSITE[word] if negated else word
        if right.text == "null":
            return _null_test(column, chosen)
        if not self._is_literal(right):
            return _two_columns(column, chosen, self._column(right))
        return _compare(column, chosen, literal_value(column, right, word))

    def _function(self, negated: bool) -> Predicate:
        name = self._next().text
        self.expect("mark", "(")
        if name in _LISTS:
            return self._in_list(keep_others=_LISTS[name])
        if name not in _TEXT:
            raise not_implemented(f"the function '{name}' in $filter")
        column = self._column(self._next())
        self.expect("mark", ",")
        literal = self.expect("string")
        self.expect("mark", ")")
        if column.type not in TEXT_TYPES:
            raise incompatible(edm_type(column), "Edm.String", name)
        return _text_test(column, name, unquote(literal.text), negated)

    def _in_list(self, *, keep_others: bool) -> Predicate:
        self.expect("name", "PropertyName")
        self.expect("mark", "=")
        column = self._column(Token("name", unquote(self.expect("string").text)))
        self.expect("mark", ",")
        self.expect("name", "PropertyValues")
        self.expect("mark", "=")
        self.expect("mark", "[")
        values = {self._listed(column)}
        while self._peek().text == ",":
            self.expect("mark", ",")
            values.add(self._listed(column))
        self.expect("mark", "]")
        self.expect("mark", ")")
        return _membership(column, frozenset(values), keep_others=keep_others)

    def _listed(self, column: Column) -> Value:
        text = unquote(self.expect("string").text)
        if edm_type(column) == "Edm.String":
            return text.casefold()
        tokens = tokens_of(text, {})
        return literal_value(column, tokens[0], "In")

    def _column(self, token: Token) -> Column:
        if token.kind != "name":
            raise self._error()
        if "/" in token.text:
            raise not_implemented(f"a condition on a related table ('{token.text}') in $filter")
        name = self.facts.properties.get(token.text)
        if name is None:
            raise no_property(token.text, self.facts.name)
        return self.facts.columns[name].column

    def expect(self, kind: str, text: str | None = None) -> Token:
        token = self._next()
        if token.kind != kind or (text is not None and token.text != text):
            raise self._error()
        return token

    def _take_word(self, word: str) -> bool:
        if self._peek().text != word or self._peek().kind != "name":
            return False
        self.position += 1
        return True

    def _peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self.position + ahead, len(self.tokens) - 1)]

    def _next(self) -> Token:
        token = self._peek()
        self.position += 1
        return token

    @staticmethod
    def _is_literal(token: Token) -> bool:
        return token.kind != "name" or token.text in ("true", "false", "null")

    def _error(self) -> Exception:
        shown = self._peek(-1).text
        return bad_uri(f"Syntax error at '{shown}' in '{self.text}'.")


def _null_test(column: Column, word: str) -> Predicate:
    name = column.logical_name
    if word == "eq":
        return lambda row: row.get(name) is None
    if word == "ne":
        return lambda row: row.get(name) is not None
    return lambda _row: False


def _compare(column: Column, word: str, wanted: Value) -> Predicate:
    name, test, keeps_null = column.logical_name, _OPERATORS[word], word == "ne"
    if column.type in TEXT_TYPES:
        folded = str(wanted).casefold()
        return lambda row: keeps_null if row.get(name) is None else test(str(row[name]).casefold(), folded)
    return lambda row: keeps_null if row.get(name) is None else test(row[name], wanted)


def _two_columns(left: Column, word: str, right: Column) -> Predicate:
    if edm_type(left) != edm_type(right) and not {edm_type(left), edm_type(right)} <= {
        "Edm.Int32",
        "Edm.Int64",
        "Edm.Decimal",
        "Edm.Double",
    }:
        raise incompatible(edm_type(left), edm_type(right), word)
    test, keeps_null = _OPERATORS[word], word == "ne"

    def compare(row: Row) -> bool:
        one, other = row.get(left.logical_name), row.get(right.logical_name)
        if one is None or other is None:
            return keeps_null and one is not other
        if isinstance(one, str) and isinstance(other, str):
            return test(one.casefold(), other.casefold())
        return test(one, other)

    return compare


def _text_test(column: Column, function: str, wanted: str, negated: bool) -> Predicate:
    name = column.logical_name
    before = "" if function == "startswith" else ".*"
    after = "" if function == "endswith" else ".*"
    try:
        pattern = re.compile(before + like_pattern(wanted.casefold()) + after, re.DOTALL)
    except re.error:
        raise bad_uri(f"The pattern '{wanted}' is not valid.") from None

    def match(row: Row) -> bool:
        value = row.get(name)
        if value is None:
            return negated
        return (pattern.fullmatch(str(value).casefold()) is not None) is not negated

    return match


def like_pattern(text: str) -> str:
    """Return the regular expression of a text with the wildcards ``%``, ``_`` and ``[...]``."""
    out: list[str] = []
    for part in re.findall(r"\[\^?[^\]]+\]|.", text, re.DOTALL):
        if part == "%":
            out.append(".*")
        elif part == "_":
            out.append(".")
        elif len(part) > 1:
            inner = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{inner}]")
        else:
            out.append(re.escape(part))
    return "".join(out)


def _membership(column: Column, values: frozenset[Value], *, keep_others: bool) -> Predicate:
    name, is_text = column.logical_name, column.type in TEXT_TYPES

    def test(row: Row) -> bool:
        value = row.get(name)
        if value is None:
            return False
        return ((str(value).casefold() if is_text else value) in values) is not keep_others

    return test
