"""JSON of which single values may be damaged, read all the same, so that one value does not spoil a page.

Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from d365sync.dataverse.wire import decode_json


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A number that is none, or that no number can hold; stands in a document where one value must not spoil all."""

    text: str

    def __str__(self) -> str:
        return self.text[:40]


def decode_damaged(body: bytes) -> Any:
    """Decode a JSON document of which single values may be damaged.

    What is no number (NaN, a whole number of thousands of digits) becomes :class:`Unreadable`, text that is no text
    (half a surrogate pair, bytes that are not UTF-8) keeps lone surrogates, by which it is known.

    Raises:
        ProtocolError: it is not JSON for another reason.
    """
    try:
        return json.loads(
            body.decode("utf-8", "surrogateescape"),
            parse_float=_exact,
            parse_int=_whole_or_unreadable,
            parse_constant=Unreadable,
        )
    except (ValueError, RecursionError):
        return decode_json(body)


def _exact(text: str) -> Decimal | Unreadable:
    try:
        return Decimal(text)
    except ArithmeticError:
        return Unreadable(text)


def _whole_or_unreadable(text: str) -> int | Unreadable:
    try:
        return int(text)
    except ValueError:
        return Unreadable(text)
