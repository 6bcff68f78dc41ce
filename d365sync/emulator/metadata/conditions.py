"""``$filter`` over definitions: ``Property eq literal`` joined by ``and`` and ``or``, nothing else.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from d365sync.emulator.odata.literals import MAX_DIGITS
from d365sync.emulator.refuse import bad_uri, not_implemented

Keep = Callable[[dict[str, Any]], bool]

_TERM = re.compile(
    r"(\w+)(/Value)? (eq|ne) (?:'([^']*)'|Microsoft\.Dynamics\.CRM\.\w+'([^']*)'|(true|false)|(null)|(-?\d+))"
)


def parse_conditions(text: str) -> Keep:
    """Return what tells whether a definition is kept.

    Raises:
        Refusal: the filter is of another form, or has too long a number.
    """
    either = [[_term(term) for term in part.split(" and ")] for part in text.strip().split(" or ")]
    return lambda document: any(all(term(document) for term in terms) for terms in either)


def _term(text: str) -> Keep:
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise not_implemented(f"the filter '{text.strip()}' over definitions")
    name, inner, word = match[1], match[2], match[3]
    if len(match[8] or "") > MAX_DIGITS:
        raise bad_uri(f"The number '{match[8][:40]}…' is too long.")
    wanted = _literal(match)

    def keep(document: dict[str, Any]) -> bool:
        if name not in document:
            raise not_implemented(f"the property '{name}' in a filter over definitions")
        value = document[name]
        if inner and value is not None:
            if not isinstance(value, dict):
                raise bad_uri(f"The property '{name}' has no property 'Value'.")
            value = value.get("Value")
        return (value == wanted) is (word == "eq")

    return keep


def _literal(match: re.Match[str]) -> str | int | bool | None:
    text, enum, flag, null, number = match.group(4, 5, 6, 7, 8)
    if flag is not None:
        return flag == "true"
    if null is not None:
        return None
    return int(number) if number is not None else text if text is not None else enum
