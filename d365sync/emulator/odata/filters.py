"""``$filter``: read into a predicate over a row.

Comparison operators, ``and or not``, brackets, ``contains startswith endswith``, comparison of two columns of
the row, columns of rows that lookups lead to, ``any`` and ``all`` over collections, and the query functions.
Everything else is refused by name. Source: Filter rows using OData.

Assumed: ``not`` turns a comparison into its opposite operator before nulls are looked at; several lookups may be
followed in one path; inside ``any`` and ``all`` only the innermost range variable may be named.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from d365sync.core.schema import TEXT_TYPES
from d365sync.core.values import Row, Value
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.asking import Asking
from d365sync.emulator.odata.functions import (
    QueryFunction,
    check_parameters,
    function_test,
    named_function,
)
from d365sync.emulator.odata.literals import edm_type, incompatible, literal_value, unquote
from d365sync.emulator.odata.names import named_column
from d365sync.emulator.odata.predicates import (
    MIRRORED,
    OPERATORS,
    OPPOSITE,
    TEXT_FUNCTIONS,
    Operand,
    Predicate,
    compare,
    compare_two,
    null_test,
    text_test,
)
from d365sync.emulator.odata.tokens import Token, tokens_of
from d365sync.emulator.refuse import NAMESPACE, bad_uri, no_property, not_implemented

QUANTIFIERS = ("any", "all")
_MAX_DEPTH = 100
_NO_NOT = "Not operator along with the Custom Named Condition operators is not allowed"


def parse_filter(text: str, facts: TableFacts, aliases: Mapping[str, str], asking: Asking) -> Predicate:
    """Return the predicate a ``$filter`` text means for a table.

    Raises:
        Refusal: it is malformed, names an unknown property, mixes types, or uses what is not implemented.
    """
    parser = _Parser(tokens_of(text, aliases), facts, text, asking)
    predicate = parser.either(negated=False, depth=0)
    parser.expect("end")
    return predicate


@dataclass(slots=True)
class _Parser:
    """Recursive descent; ``negated`` pushes ``not`` down to the comparisons.

    ``variable`` is the range variable of the innermost ``any`` or ``all``, ``facts`` the table it ranges over.
    """

    tokens: list[Token]
    facts: TableFacts
    text: str
    asking: Asking
    variable: str | None = None
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
            if depth > _MAX_DEPTH:
                raise bad_uri("The node count limit of the filter has been exceeded.")
            return self._single(negated=not negated, depth=depth + 1)
        if self._peek().text == "(":
            self.expect("mark", "(")
            inner = self.either(negated=negated, depth=depth + 1)
            self.expect("mark", ")")
            return inner
        if self._peek().kind == "name" and self._peek(1).text == "(":
            return self._call(negated, depth)
        return self._comparison(negated)

    def _comparison(self, negated: bool) -> Predicate:
        left, word = self._next(), self._next().text
        if word not in OPERATORS:
            raise not_implemented(f"the operator '{word}' in $filter") if word.isalpha() else self._error()
        right = self._next()
        if self._is_literal(left):
            left, right, word = right, left, MIRRORED[word]
        operand = self._operand(left)
        chosen = OPPOSITE[word] if negated else word
        if right.text == "null":
            return null_test(operand, chosen)
        if not self._is_literal(right):
            other = self._operand(right)
            if "/" in self._own(left.text) + self._own(right.text):
                raise not_implemented(f"the comparison of '{left.text}' with '{right.text}', a column of another row,")
            return compare_two(operand, chosen, other)
        wanted = literal_value(operand.column, right, word)
        return compare(operand, chosen, wanted, ne_keeps_null=self.asking.ne_keeps_null)

    def _call(self, negated: bool, depth: int) -> Predicate:
        name = self._next().text
        self.expect("mark", "(")
        path, _, last = self._own(name).rpartition("/")
        if last in QUANTIFIERS and path:
            return self._quantified(path, last, negated, depth)
        if last.startswith(NAMESPACE) and not path:
            function = named_function(last)
            if function is None:
                raise not_implemented(f"the function '{name}' in $filter")
            if negated:
                raise bad_uri(_NO_NOT)
            return self._function(function)
        if name not in TEXT_FUNCTIONS:
            raise not_implemented(f"the function '{name}' in $filter")
        operand = self._operand(self._next())
        self.expect("mark", ",")
        literal = self.expect("string")
        self.expect("mark", ")")
        if operand.column.type not in TEXT_TYPES:
            raise incompatible(edm_type(operand.column), "Edm.String", name)
        return text_test(operand, name, unquote(literal.text), negated=negated)

    def _quantified(self, path: str, word: str, negated: bool, depth: int) -> Predicate:
        """Read ``any`` or ``all``: only over a collection of the row itself, not beyond a lookup."""
        if path not in self.facts.collections:
            if "/" in path or path in self.facts.navigation:
                raise bad_uri(f"'{word}' cannot be applied to '{path}': only to a collection of the row itself.")
            raise no_property(path, self.facts.name)
        table, lookup = self.facts.collections[path]
        facts, key = self.asking.table(table), self.facts.key
        inner: Predicate = _always
        if word == "all" or self._peek().text != ")":
            inner = self._ranged(facts, depth)
        self.expect("mark", ")")
        join, asking = any if word == "any" else all, self.asking

        def test(row: Row) -> bool:
            others = asking.referring(facts, lookup, str(row[key]))
            return join(inner(other) for other in others) is not negated

        return test

    def _ranged(self, facts: TableFacts, depth: int) -> Predicate:
        outer = self.facts, self.variable
        variable = self.expect("name").text
        self.expect("mark", ":")
        self.facts, self.variable = facts, variable
        inner = self.either(negated=False, depth=depth + 1)
        self.facts, self.variable = outer
        return inner

    def _function(self, function: QueryFunction) -> Predicate:
        given: dict[str, list[str]] = {}
        while True:
            name = self.expect("name").text
            self.expect("mark", "=")
            given[name] = self._listed() if self._peek().text == "[" else [self._plain(self._next())]
            if self._next_mark(",", ")") == ")":
                break
        check_parameters(function, list(given))
        name = given["PropertyName"][0]
        logical = name if name in self.facts.columns else self.facts.properties.get(name)
        if logical is None:
            raise no_property(name, self.facts.name)
        values = [value for wanted in function.takes.value for value in given[wanted]]
        test = function_test(function, self.facts, self.facts.columns[logical], values, self.asking)
        return lambda row: test(row.get(logical))

    def _listed(self) -> list[str]:
        self.expect("mark", "[")
        values = [self._plain(self._next())]
        while self._next_mark(",", "]") == ",":
            values.append(self._plain(self._next()))
        return values

    def _plain(self, token: Token) -> str:
        if token.kind not in ("string", "guid", "number", "date", "datetime"):
            raise self._error()
        return unquote(token.text) if token.kind == "string" else token.text

    def _operand(self, token: Token) -> Operand:
        if token.kind != "name":
            raise self._error()
        *path, last = self._own(token.text).split("/")
        facts, steps = self.facts, []
        for name in path:
            facts, lookup = self._step(name, facts, token.text)
            steps.append((facts, lookup))
        logical = named_column(last, facts)
        return Operand(facts.columns[logical].column, _reader(logical, steps, self.asking))

    def _step(self, name: str, facts: TableFacts, text: str) -> tuple[TableFacts, str]:
        if name in facts.collections:
            raise bad_uri(f"The collection '{name}' in '{text}' needs 'any' or 'all'.")
        if name not in facts.navigation:
            raise no_property(name, facts.name)
        lookup, targets = facts.navigation[name]
        if len(targets) != 1 or targets[0] not in self.asking.catalogue.tables:
            raise not_implemented(f"a condition on '{text}', which may lead to several tables,")
        return self.asking.table(targets[0]), lookup

    def _own(self, text: str) -> str:
        """Return a path without the range variable it must begin with inside ``any`` and ``all``."""
        if self.variable is None or text in TEXT_FUNCTIONS:
            return text
        variable, _, rest = text.partition("/")
        if variable != self.variable or not rest:
            raise bad_uri(f"'{text}' inside any or all must begin with '{self.variable}/'.")
        return rest

    def expect(self, kind: str, text: str | None = None) -> Token:
        token = self._next()
        if token.kind != kind or (text is not None and token.text != text):
            raise self._error()
        return token

    def _next_mark(self, *allowed: str) -> str:
        token = self.expect("mark")
        if token.text not in allowed:
            raise self._error()
        return token.text

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
        shown = self.tokens[min(max(self.position - 1, 0), len(self.tokens) - 1)].text
        return bad_uri(f"Syntax error at '{shown}' in '{self.text}'.")


def _always(_row: Row) -> bool:
    return True


def _reader(column: str, steps: list[tuple[TableFacts, str]], asking: Asking) -> Callable[[Row], Value]:
    if not steps:
        return lambda row: row.get(column)

    def read(row: Row) -> Value:
        found: Row | None = row
        for facts, lookup in steps:
            found = None if found is None else _followed(found, facts, lookup, asking)
        return None if found is None else found.get(column)

    return read


def _followed(row: Row, facts: TableFacts, lookup: str, asking: Asking) -> Row | None:
    """Return the row a lookup leads to; one that may name several tables leads to none of the others."""
    return asking.related(facts, row.get(lookup))
