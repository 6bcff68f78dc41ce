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

from d365sync.emulator.refuse import Refusal, bad_uri

_OUTER = re.compile(
    r'<cookie pagenumber="(\d{1,9})" pagingcookie="([^"]*)" istracking="(True|False)"( deltatoken="([^"]*)")? />'
)
_ENTRY = re.compile(r'<([\w.]+) (?:lastnull="1" firstnull="1"|last="([^"]*)" first="[^"]*") />')
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
    entries = "".join(_entry(name, last, begin) for (name, last), begin in zip(cookie.last, first, strict=True))
    inner = _lower(f'<cookie page="{cookie.page - 1}">{entries}</cookie>')
    tracking = cookie.delta_token is not None
    token = f' deltatoken="{_lower(cookie.delta_token or "")}"' if tracking else ""
    outer = f'<cookie pagenumber="{cookie.page}" pagingcookie="{inner}" istracking="{tracking}"{token} />'
    return quote(outer, safe="=/")


def read_cookie(text: str) -> Cookie:
    """Read a decoded ``$skiptoken``.

    Raises:
        Refusal: it is none of ours.
    """
    outer = _OUTER.fullmatch(text)
    if outer is None:
        raise _malformed()
    inner = unquote(outer[2])
    last = tuple((name, None if value is None else unescape(value, {"&quot;": '"'})) for name, value in _last(inner))
    if not last:
        raise _malformed()
    return Cookie(int(outer[1]), last, unquote(outer[5]) if outer[5] is not None else None)


def _last(inner: str) -> list[tuple[str, str | None]]:
    return [(match[1], match[2]) for match in _ENTRY.finditer(inner)]


def _entry(name: str, last: str | None, first: str | None) -> str:
    if last is None:
        return f'<{name} lastnull="1" firstnull="1" />'
    return f'<{name} last="{escape(last, _QUOTES)}" first="{escape(first or "", _QUOTES)}" />'


def _lower(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), quote(text, safe=""))


def _malformed() -> Refusal:
    return bad_uri("The skip token in the request URI is malformed.")
