"""The paging cookie inside ``$skiptoken``. Source: Page results using OData.

It is built as the documents show it: an outer cookie with the number of the next page, and an inner one, encoded once
more, with the last and first row of the page: the ordered columns, then the key in upper case with braces.
Clients must treat it as opaque; the emulator reads back only what it wrote.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape, unescape

from d365sync.emulator.refuse import ARGUMENT, Refusal, bad_uri

_OUTER = re.compile(
    r'<cookie pagenumber="(\d{1,9})" pagingcookie="([^"]*)" istracking="(True|False)"( deltatoken="([^"]*)")? />'
)
_ENTRY = re.compile(r'<([\w.]+) (?:lastnull="1" firstnull="1"|last="([^"]*)" first="[^"]*") />')
_FETCH_COOKIE = re.compile(r'<cookie page="\d{1,9}"[^<>]*>(?:<[\w.]+ [^<>]*/>)*</cookie>')
_QUOTES = {'"': "&quot;"}


@dataclass(frozen=True, slots=True)
class Cookie:
    """Where the next page begins.

    ``last`` holds the wire texts of the last row sent: the ordered columns, then the key (a version number when
    changes are paged); None is a null. ``delta_token`` is the token a tracked load ends with.
    """

    page: int
    last: tuple[tuple[str, str | None], ...]
    delta_token: str | None = None


def write_cookie(cookie: Cookie, first: Sequence[str | None]) -> str:
    """Return the text of ``$skiptoken``, percent-encoded; ``first`` are the first row's texts."""
    inner = _lower(_inner(cookie, first))
    tracking = cookie.delta_token is not None
    token = f' deltatoken="{_lower(cookie.delta_token or "")}"' if tracking else ""
    outer = f'<cookie pagenumber="{cookie.page}" pagingcookie="{inner}" istracking="{tracking}"{token} />'
    return quote(outer, safe="=/")


def write_fetch_cookie(cookie: Cookie, first: Sequence[str | None]) -> str:
    """Return the value of the fetchxmlpagingcookie annotation: an element whose inner cookie is encoded twice.

    A client decodes that twice and puts it into ``paging-cookie``; ``pagenumber`` is the page to ask for then.
    Source: Page results using FetchXML.
    """
    inner = _lower(_lower(_inner(cookie, first)))
    return f'<cookie pagenumber="{cookie.page}" pagingcookie="{inner}" istracking="False" />'


def check_fetch_cookie(text: str) -> None:
    """Refuse a ``paging-cookie`` that is no decoded paging cookie.

    Raises:
        Refusal: so.
    """
    if _FETCH_COOKIE.fullmatch(text) is None:
        raise Refusal(400, ARGUMENT, "Malformed XML in the Paging Cookie")


def read_cookie(text: str) -> Cookie:
    """Read a decoded ``$skiptoken``.

    Raises:
        Refusal: it is none of ours.
    """
    outer = _OUTER.fullmatch(text)
    if outer is None:
        raise malformed()
    inner = unquote(outer[2])
    last = tuple((name, None if value is None else unescape(value, {"&quot;": '"'})) for name, value in _last(inner))
    if not last:
        raise malformed()
    return Cookie(int(outer[1]), last, unquote(outer[5]) if outer[5] is not None else None)


def _inner(cookie: Cookie, first: Sequence[str | None]) -> str:
    entries = "".join(_entry(name, last, begin) for (name, last), begin in zip(cookie.last, first, strict=True))
    return f'<cookie page="{cookie.page - 1}">{entries}</cookie>'


def _last(inner: str) -> list[tuple[str, str | None]]:
    return [(match[1], match[2]) for match in _ENTRY.finditer(inner)]


def _entry(name: str, last: str | None, first: str | None) -> str:
    if last is None:
        return f'<{name} lastnull="1" firstnull="1" />'
    return f'<{name} last="{escape(last, _QUOTES)}" first="{escape(first or "", _QUOTES)}" />'


def _lower(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), quote(text, safe=""))


def malformed() -> Refusal:
    """Refuse a ``$skiptoken`` that is none of ours."""
    return bad_uri("The skip token in the request URI is malformed.")
