"""The words of a ``$filter`` text.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from d365sync.emulator.refuse import bad_uri

MAX_TOKENS = 20_000
_GUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<guid>{_GUID})(?![\w-])
    | (?P<datetime>\d{{4}}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)?)
    | (?P<date>\d{{4}}-\d\d-\d\d)(?![\w-])
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<name>[A-Za-z_$][\w$]*(?:[./][A-Za-z_][\w]*)*)
    | (?P<alias>@\w+)
    | (?P<mark>[(),=\[\]:])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word: its kind (a group of the pattern, or ``end``) and its text."""

    kind: str
    text: str


def tokens_of(text: str, aliases: Mapping[str, str]) -> list[Token]:
    """Split a text into words, parameter aliases replaced by what they stand for; an ``end`` closes the list.

    Raises:
        Refusal: something is no word, or an alias is unknown.
    """
    found: list[Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or len(found) > MAX_TOKENS:
            raise bad_uri(f"Syntax error at position {position} in '{text}'.")
        position = match.end()
        kind = str(match.lastgroup)
        found.extend(_expanded(Token(kind, match[kind]), aliases))
    return [*found, Token("end", "")]


def _expanded(token: Token, aliases: Mapping[str, str]) -> list[Token]:
    if token.kind != "alias":
        return [token]
    if token.text not in aliases:
        raise bad_uri(f"The parameter alias '{token.text}' was not found in the query string.")
    return tokens_of(aliases[token.text], {})[:-1]
