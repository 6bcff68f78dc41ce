"""Change tracking: the tracked first load and the delta link.

Source: Use change tracking to synchronize data with external systems. A token is a row version, ``!`` and the
instant of its issue; the delta holds the latest state of every row above the version, ascending by version, then
the deletions. Assumed: pages before the last carry only a next link; a token covers what is committed after
the first page was read.

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from urllib.parse import quote

from d365sync.core.values import Row
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.cookie import Cookie, malformed, read_cookie, write_cookie
from d365sync.emulator.odata.options import Options
from d365sync.emulator.odata.pages import COUNT_CAP, Page, page_size, query_page
from d365sync.emulator.odata.prefer import Preferences
from d365sync.emulator.refuse import EXPIRED_STAMP, NOT_TRACKED, Refusal, bad_uri
from d365sync.emulator.shown import shown_rows
from d365sync.emulator.store import VERSION, Store

_TOKEN = re.compile(r"(\d{1,18})!(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)")
_STAMP = "%m/%d/%Y %H:%M:%S"
_FORBIDDEN = ("$filter", "$orderby", "$expand", "$top")
_UPSERTS, _DELETIONS = "versionnumber", "deletedversion"


def check_tracking(store: Store, facts: TableFacts, arguments: Iterable[str]) -> None:
    """Refuse tracking where the table has none, or beside options it excludes.

    Raises:
        Refusal: so.
    """
    if not facts.table.change_tracking:
        raise Refusal(
            store.settings.tracking_status, NOT_TRACKED, f"Entity {facts.name} isn't enabled for change tracking."
        )
    for name in arguments:
        if name in _FORBIDDEN:
            raise bad_uri(f'The "{name}" query parameter isn\'t supported when Change Tracking is enabled.')


def tracked_page(store: Store, facts: TableFacts, options: Options, preferences: Preferences) -> Page:
    """Return a page of the first, full load; the last one carries the token to go on from."""
    page = query_page(store, facts, options, preferences)
    carried = read_cookie(options.skip_token).delta_token if options.skip_token is not None else None
    token = carried if carried and store.settings.delta_covers_from_first_page else issue_token(store)
    if page.next_token is None:
        return Page(page.rows, count=page.count, delta_token=quote_token(token))
    return Page(page.rows, _tracking_cookie(facts, page, options, token), page.count)


def delta_page(store: Store, facts: TableFacts, options: Options, preferences: Preferences) -> Page:
    """Return a page of what changed after the token.

    Raises:
        Refusal: the token has expired (0x80044352) or is none, or the place to go on from is not one in changes.
    """
    since = read_token(store, options.delta_token or "")
    cookie = _changes_cookie(options.skip_token) if options.skip_token is not None else None
    token = (cookie.delta_token if cookie else None) or issue_token(store)
    until = int(token.partition("!")[0])
    pending = _pending(store, facts, since, until, cookie)
    size = page_size(preferences, store)
    sent = pending[:size]
    return Page(
        rows=[item for _, _, item in sent if not isinstance(item, str)],
        deleted=[item for _, _, item in sent if isinstance(item, str)],
        delta_token=quote_token(token) if len(pending) <= size else None,
        next_token=_delta_cookie(sent, cookie, token) if len(pending) > size else None,
    )


def count_changes(store: Store, facts: TableFacts, options: Options) -> int:
    """Return the number of changes after the token, on all pages, at most 5,000.

    Raises:
        Refusal: the token has expired (0x80044352) or is none.
    """
    since = read_token(store, options.delta_token or "")
    return min(COUNT_CAP, len(_pending(store, facts, since, store.version, None)))


def issue_token(store: Store) -> str:
    """Return the token of this moment."""
    return f"{store.version}!{store.clock.now().strftime(_STAMP)}"


def quote_token(token: str) -> str:
    """Percent-encode a token as the service does, in lower case."""
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), quote(token, safe=""))


def read_token(store: Store, text: str) -> int:
    """Return the row version of a token. Assumed: a version not yet reached belongs to another life: expired.

    Raises:
        Refusal: the token has expired or is none.
    """
    match = _TOKEN.fullmatch(text)
    try:
        issued = dt.datetime.strptime(match[2] if match else "", _STAMP).replace(tzinfo=dt.UTC)
    except ValueError:
        match = None
    if match is None:
        raise bad_uri("The delta token in the request URI is malformed.")
    if store.clock.now() - issued > _lifetime(store) or int(match[1]) > store.version:
        raise expired(store)
    return int(match[1])


def expired(store: Store) -> Refusal:
    """Refuse a token that is too old."""
    return Refusal(
        store.settings.tracking_status,
        EXPIRED_STAMP,
        "Version stamp associated with the client has expired. Please perform a full sync.",
    )


def _lifetime(store: Store) -> dt.timedelta:
    days = store.only("organization").get("expirechangetrackingindays")
    return dt.timedelta(days=days if isinstance(days, int) else store.settings.expire_change_tracking_days)


def _changes_cookie(text: str) -> Cookie:
    """Read a place in changes: one of rows, or of a tracked load, is none."""
    cookie = read_cookie(text)
    kind, version = cookie.last[-1]
    known = kind in (_UPSERTS, _DELETIONS) and re.fullmatch(r"\d{1,18}", version or "")
    if not known or _TOKEN.fullmatch(cookie.delta_token or "") is None:
        raise malformed()
    return cookie


def _pending(
    store: Store, facts: TableFacts, since: int, until: int, cookie: Cookie | None
) -> list[tuple[str, int, Row | str]]:
    kind, after = _UPSERTS, since
    if cookie is not None:
        kind, text = cookie.last[-1]
        after = int(text or 0)
    found: list[tuple[str, int, Row | str]] = []
    if kind == _UPSERTS:
        changed = [row for row in shown_rows(store, facts.name).values() if after < _version(row) <= until]
        found += [(_UPSERTS, _version(row), row) for row in sorted(changed, key=_version)]
        after = since
    gone = [one for one in store.deletions(facts.name, after=after) if one.version <= until]
    return [*found, *((_DELETIONS, one.version, one.id) for one in gone)]


def _version(row: Row) -> int:
    return row[VERSION]  # type: ignore[return-value]


def _tracking_cookie(facts: TableFacts, page: Page, options: Options, token: str) -> str:
    number = read_cookie(options.skip_token).page + 1 if options.skip_token is not None else 2
    first, last = ("{" + str(row[facts.key]).upper() + "}" for row in (page.rows[0], page.rows[-1]))
    return write_cookie(Cookie(number, ((facts.key, last),), token), [first])


def _delta_cookie(sent: list[tuple[str, int, Row | str]], cookie: Cookie | None, token: str) -> str:
    kind, version, _ = sent[-1]
    number = 2 if cookie is None else cookie.page + 1
    return write_cookie(Cookie(number, ((kind, str(version)),), token), [str(sent[0][1])])
