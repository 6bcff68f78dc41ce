"""The pattern language of ``like``, matched the plain way: the evaluator's reading of it.

``%`` is any run, ``_`` any one character, ``[abc]`` and ``[a-z]`` one of a class, ``[^…]`` one outside it; a
wildcard in brackets is itself. Source: Filter rows using FetchXML, wildcard characters; LIKE (Transact-SQL).
Assumed: ranges go by code point; a bracket that is never closed matches nothing, and ``[]`` neither.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

_One: TypeAlias = Callable[[str], bool]
_ANY_RUN = None
_Token: TypeAlias = _One | None


def matches(text: str, pattern: str) -> bool:
    """Say whether a whole text fits a pattern; both are to be folded alike beforehand.

    Takes time proportional to the product of both lengths at worst.
    """
    tokens = _tokens(pattern)
    at = token = 0
    retry_at, retry_token = -1, -1
    while at < len(text):
        step = tokens[token] if token < len(tokens) else _nothing
        if step is _ANY_RUN:
            retry_at, retry_token = at, token + 1
            token += 1
        elif step(text[at]):
            at += 1
            token += 1
        elif retry_token >= 0:
            retry_at += 1
            at, token = retry_at, retry_token
        else:
            return False
    return all(step is _ANY_RUN for step in tokens[token:])


def _tokens(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        end = pattern.find("]", at) if char == "[" else at
        if char == "%":
            tokens.append(_ANY_RUN)
        elif char == "_":
            tokens.append(_anything)
        elif end < 0:
            tokens.append(_nothing)
            break
        else:
            tokens.append(_class(pattern[at + 1 : end]) if char == "[" else _exactly(char))
        at = max(end, at) + 1
    return tokens


def _class(body: str) -> _One:
    negated = body.startswith("^")
    ranges: list[tuple[str, str]] = []
    rest = body[1:] if negated else body
    while rest:
        if len(rest) >= 3 and rest[1] == "-":
            ranges.append((rest[0], rest[2]))
            rest = rest[3:]
        else:
            ranges.append((rest[0], rest[0]))
            rest = rest[1:]
    return lambda char: any(low <= char <= high for low, high in ranges) is not negated


def _exactly(wanted: str) -> _One:
    return lambda char: char == wanted


def _anything(_: str) -> bool:
    return True


def _nothing(_: str) -> bool:
    return False
