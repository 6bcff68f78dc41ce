"""Which row an address in brackets names: by its id, or by the columns of an alternate key.

Users and teams have keys of the platform's own, over their Entra object ids, and may not be addressed by the name of
their id. Source: Use an alternate key to reference a record; Define alternate keys for a table; Web service error
codes; Compose HTTP requests (parameter aliases); Manage group teams and Add users (object ids). Assumed: text in keys
is compared as in queries, without regard to case; a key is active as soon as it is defined. Whoever is not there by an
object id is not added from the directory.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from d365sync.core.values import Row, Value, parse_guid
from d365sync.emulator.facts import AlternateKey, ColumnFacts, TableFacts
from d365sync.emulator.keyindex import folded
from d365sync.emulator.odata.literals import MAX_DIGITS, edm_type, unquote
from d365sync.emulator.odata.tokens import Token, tokens_of
from d365sync.emulator.refuse import DUPLICATE_KEY, NAMESPACE, Refusal, bad_uri, missing_key, missing_row, undefined_key
from d365sync.emulator.store import Store
from d365sync.emulator.wire import WireError, read_value

PRINCIPALS = ("systemuser", "team")
_KINDS = {"string": "Edm.String", "guid": "Edm.Guid", "datetime": "Edm.DateTimeOffset", "date": "Edm.Date"}


@dataclass(frozen=True, slots=True)
class RowKey:
    """What stood in the brackets, read.

    ``row_id`` is None when an alternate key names no row; an id may name none either. ``values`` are the columns of an
    alternate key, empty for an id.
    """

    facts: TableFacts
    text: str
    row_id: str | None
    values: Mapping[str, Value]

    def row(self, store: Store) -> Row:
        """Return the row.

        Raises:
            Refusal: there is none.
        """
        found = self.row_if_any(store)
        if found is None:
            raise missing_key(self.facts.name) if self.values else missing_row(self.facts.name, str(self.row_id))
        return found

    def row_if_any(self, store: Store) -> Row | None:
        """Return the row, None when there is none."""
        return None if self.row_id is None else store.get(self.facts.name, self.row_id)


def key_of(facts: TableFacts, row_id: str) -> RowKey:
    """Return the key that names a row by its id."""
    return RowKey(facts, row_id, row_id, {})


def read_key(text: str, facts: TableFacts, store: Store, aliases: Mapping[str, str]) -> RowKey:
    """Read the text between the brackets; ``aliases`` are the query's parameters that begin with ``@``.

    Raises:
        Refusal: it is no key, or names columns that are no alternate key of the table.
    """
    named = "" if facts.name in PRINCIPALS else f"{facts.key}="
    try:
        return key_of(facts, parse_guid(text.removeprefix(named)))
    except ValueError:
        if "=" not in text:
            raise _invalid(facts) from None
    literals = _literals(text, facts, aliases)
    if facts.name in PRINCIPALS and literals.keys() & {facts.key, "ownerid"}:
        raise _invalid(facts)
    columns = {facts.properties.get(name, ""): token for name, token in literals.items()}
    if not any(set(key.columns) == columns.keys() for key in facts.keys):
        raise undefined_key(facts.name, literals, store.settings.undefined_key_status)
    values = {name: _value(facts.columns[name], token, facts, store) for name, token in columns.items()}
    row = store.find(facts.name, values)
    return RowKey(facts, text, None if row is None else str(row[facts.key]), values)


def check_unique(store: Store, facts: TableFacts, row: Row) -> None:
    """Refuse a row whose alternate key another row has; a key with an empty column is not checked.

    Source: Define alternate keys for a table (null values).

    Raises:
        Refusal: 0x80060892.
    """
    for key in facts.keys:
        other = store.find(facts.name, {name: row.get(name) for name in key.columns})
        if other is not None and other[facts.key] != row[facts.key]:
            shown = ", ".join(key.columns)
            raise Refusal(
                store.settings.duplicate_key_status,
                DUPLICATE_KEY,
                f"Entity Key {key.name} violated. A record with the same value for {shown} already exists. A duplicate "
                "record cannot be created. Select one or more unique values and try again.",
            )


def duplicates(key: AlternateKey, rows: Iterable[Row]) -> Sequence[Value] | None:
    """Return the values that two rows share under a key, None when no two do."""
    seen: set[tuple[Value, ...]] = set()
    for row in rows:
        values = folded(row, key.columns)
        if values in seen:
            return values
        if values is not None:
            seen.add(values)
    return None


def _literals(text: str, facts: TableFacts, aliases: Mapping[str, str]) -> dict[str, Token]:
    """Return the literal of each column in ``a='x',b=2``."""
    found: dict[str, Token] = {}
    tokens = tokens_of(text, aliases)
    for at in range(0, len(tokens), 4):
        name, equals, literal, after = (*tokens[at : at + 4], *[Token("end", "")] * 4)[:4]
        if name.kind != "name" or equals.text != "=" or name.text in found:
            raise _invalid(facts)
        found[name.text] = literal
        if after.kind == "end":
            return found
        if after.text != ",":
            break
    raise _invalid(facts)


def _value(column: ColumnFacts, token: Token, facts: TableFacts, store: Store) -> Value:
    wanted = edm_type(column.column)
    if token.kind not in (*_KINDS, "number") or _KINDS.get(token.kind, wanted) != wanted:
        raise _invalid(facts)
    try:
        value = read_value(column.column, _raw(token), rounding=store.settings.rounding)
    except (WireError, InvalidOperation):
        raise _invalid(facts) from None
    if value is None:
        raise _invalid(facts)
    return value


def _raw(token: Token) -> Any:
    if token.kind != "number":
        return unquote(token.text) if token.kind == "string" else token.text
    if len(token.text) > MAX_DIGITS:
        raise WireError("is too long")
    return int(token.text) if token.text.lstrip("-").isdecimal() else Decimal(token.text)


def _invalid(facts: TableFacts) -> Refusal:
    kind = f"'{NAMESPACE}{facts.name}'"
    return bad_uri(
        f"The key in the request URI is not valid for resource {kind}. Ensure that the names and number of key "
        f"properties match the declared or alternate key properties for the resource {kind}."
    )
