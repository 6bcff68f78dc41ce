"""``like`` patterns as the databases spell them: the compiler's reading of the pattern language.

SQLite gets GLOB, which is case-sensitive and knows classes; PostgreSQL gets LIKE, or a regular expression
where a class needs one. Both run on folded text with a folded pattern.
Source: LIKE (Transact-SQL); SQLite expressions, GLOB; PostgreSQL pattern matching. Assumed: ranges go by code
point; a bracket that is never closed matches nothing, and ``[]`` neither.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from d365sync.core.fetchxml.sql_values import NEVER, Target

_TOKEN = re.compile(r"\[(?P<negated>\^?)(?P<body>[^\]]*)\]|(?P<open>\[)|(?P<char>.)", re.DOTALL)
_SPAN = re.compile(r"(.)-(.)|(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Class:
    """A bracket: the characters between the ends of any span, or all others."""

    negated: bool
    spans: tuple[tuple[str, str], ...]


def like_sql(column: str, pattern: str, target: Target) -> str:
    """Return the SQL test of a folded pattern against a folded text column."""
    tokens = _tokens(pattern)
    if tokens is None:
        return NEVER
    if target.dialect == "sqlite":
        return f"{column} GLOB {target.parameters.add(''.join(map(_glob, tokens)))}"
    if any(isinstance(token, _Class) for token in tokens):
        return f"{column} ~ {target.parameters.add('^' + ''.join(map(_regex, tokens)) + '$')}"
    return f"{column} LIKE {target.parameters.add(''.join(_like(str(token)) for token in tokens))}"


def _tokens(pattern: str) -> list[str | _Class] | None:
    """Cut a pattern into wildcards, characters and classes; None if no text can match.

    A wildcard is the token ``%`` or ``_``; any other character stands for itself, also those two once they
    come out of brackets, which then are one-character classes.
    """
    tokens: list[str | _Class] = []
    for match in _TOKEN.finditer(pattern):
        if match["open"]:
            return None
        if match["char"]:
            tokens.append(match["char"])
            continue
        spans = tuple(_span(*found.groups()) for found in _SPAN.finditer(match["body"]))
        spans = tuple(span for span in spans if span[0] <= span[1])
        if not spans and not match["negated"]:
            return None
        tokens.append(_simplest(_Class(bool(match["negated"]), spans)))
    return tokens


def _span(low: str | None, high: str | None, single: str | None) -> tuple[str, str]:
    return (low or single or "", high or single or "")


def _simplest(token: _Class) -> str | _Class:
    """A negated class without members is any character; a class of one plain character is that character."""
    if token.negated:
        return token if token.spans else "_"
    low, high = token.spans[0]
    return low if len(token.spans) == 1 and low == high and low not in "%_" else token


def _glob(token: str | _Class) -> str:
    if isinstance(token, str):
        return {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}.get(token, token)
    return f"[{'^' if token.negated else ''}{_glob_body(token)}]"


def _glob_body(token: _Class) -> str:
    """Order a class so that GLOB reads it as meant: a leading ^ would negate, a hyphen after a character span."""
    singles = [low for low, high in token.spans if low == high]
    spans = [f"{low}-{high}" for low, high in token.spans if low != high]
    hyphen = "-" if "-" in singles and not any(span.startswith("-") for span in spans) else ""
    body = hyphen + "".join(span for span in spans if span[0] != "^")
    body += "".join(single for single in singles if single not in "-^")
    body += "".join(span for span in spans if span[0] == "^") + ("^" if "^" in singles else "")
    return body[2] + body if body.startswith("^") and not token.negated else body


def _like(char: str) -> str:
    return char.replace("\\", "\\\\")


def _regex(token: str | _Class) -> str:
    if isinstance(token, str):
        return {"%": ".*", "_": "."}.get(token) or _escaped(token)
    body = "".join(_escaped(low) if low == high else f"{_escaped(low)}-{_escaped(high)}" for low, high in token.spans)
    return f"[{'^' if token.negated else ''}{body}]"


def _escaped(char: str) -> str:
    return char if char.isalnum() or not char.isascii() else "\\" + char
