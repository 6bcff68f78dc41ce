"""The Web API client: signed, retried, paged; reads typed rows, writes with ``If-Match``.

The seam is the ``requests`` session: tests mount the emulator on it, nothing is patched.

Source: Compose HTTP requests and handle errors; Query data; Use change tracking; Conditional operations.

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog

from d365sync.core.schema import Table
from d365sync.core.values import Value, format_instant
from d365sync.dataverse.ahead import FetchedPage, Lookahead
from d365sync.dataverse.batch import MULTIPART, Part, PartAnswer, compose, parse
from d365sync.dataverse.batch import content_type as batch_type
from d365sync.dataverse.decoding import PageDecoder
from d365sync.dataverse.greeting import Greeting
from d365sync.dataverse.transport import Answer, Transport
from d365sync.dataverse.wire import (
    LOOKUP_LOGICAL_NAME,
    Page,
    RowReader,
    check_link,
    decode_object,
    delta_token,
    encode_body,
    read_page,
    select_clause,
    tenant_named,
)
from d365sync.errors import NOT_THERE, ProtocolError, RejectedError, RetryableError

log = structlog.get_logger(__name__)
AnyPage = TypeVar("AnyPage", Page, FetchedPage)

TRACKED = "odata.track-changes"
ACTION_NAMESPACE = "Microsoft.Dynamics.CRM"
MOST_PAGES = 100_000
"""Pages of a table beyond which its links are not believed to end: 500 million rows at 5,000 a page."""


class DataverseClient:
    """One organization, one identity: what a transport reaches."""

    def __init__(self, transport: Transport, *, page_size: int = 5000, most_pages: int = MOST_PAGES) -> None:
        self.transport = transport
        self._page_size = page_size
        self._most_pages = most_pages
        self._ahead = Lookahead()
        self.api_root = self.transport.api_root
        self.usage = self.transport.usage

    def who_am_i(self, *, on_behalf_of: str = "") -> tuple[Mapping[str, Any], dt.datetime | None]:
        """Return the WhoAmI answer and the server's clock, None when it does not tell.

        ``on_behalf_of``: see :meth:`rows`.

        Raises:
            RemoteError: as every call of this class.
        """
        answer = self._send("GET", f"{self.api_root}/WhoAmI", headers=_acting_for(on_behalf_of))
        return decode_object(answer.body), _date_of(answer.headers)

    def sign_in(self) -> Mapping[str, Any]:
        """Get an access token and return what it says about itself, if it can be read; Dataverse is asked nothing.

        Raises:
            AuthError, RetryableError: as when a request needs one.
        """
        return self.transport.sign_in()

    def greet(self) -> Greeting:
        """Ask once, without a token, and return what any answer tells.

        Raises:
            RemoteError: no answer.
        """
        headers, peer = self.transport.greet()
        return Greeting(tenant_named(headers.get("WWW-Authenticate", "")), _date_of(headers), peer)

    def privileges_of(self, user_id: str) -> Mapping[str, str]:
        """Return the depths of a user's privileges (``Basic`` to ``Global``), by their names in lower case.

        Source: RetrieveUserPrivileges function (RolePrivileges of PrivilegeName and Depth).

        Raises:
            RemoteError: they cannot be asked for.
        """
        answer = self.get(f"systemusers({user_id})/{ACTION_NAMESPACE}.RetrieveUserPrivileges()")
        listed = decode_object(answer.body).get("RolePrivileges")
        entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return {str(one.get("PrivilegeName")).lower(): str(one.get("Depth")) for one in entries}

    def get(self, path: str, params: Mapping[str, str] | None = None, *, prefer: str = "") -> Answer:
        """GET a path below the API root.

        Raises:
            RemoteError: refused, or no usable answer within the retry budget.
            ProtocolError: an answer that is not the protocol.
        """
        return self._send("GET", f"{self.api_root}/{path}", params=params, prefer=prefer)

    def rows(
        self, table: Table, columns: Iterable[str], *, where: str = "", order: str = "", on_behalf_of: str = ""
    ) -> Iterator[Page]:
        """Yield every page of a table; ``where`` and ``order`` are ``$filter`` and ``$orderby`` texts.

        ``on_behalf_of`` is the Entra object id of a user: these requests, and no others, are then made as that user
        and see what both that user and the application user may read.

        Raises:
            AuthError: also when prvActOnBehalfOfAnotherUser is missing, or the user is unknown or disabled.
        """
        yield from self._pages(table, columns, _options(table, columns, where, order), (), on_behalf_of)

    def tracked_rows(self, table: Table, columns: Iterable[str]) -> Iterator[Page]:
        """Yield every page of a tracked table; the last page carries the delta link."""
        yield from self._pages(table, columns, _options(table, columns), (TRACKED,))

    def fetched_rows(
        self, decoder: PageDecoder, *, where: str = "", order: str = "", tracked: bool = False
    ) -> Iterator[FetchedPage]:
        """Yield every page of the decoder's table as it comes; options as for :meth:`rows`.

        With ``tracked`` the last page carries the delta link; changes then must be tracked, and nothing filtered.
        """
        params = _options(decoder.table, decoder.column_names, where, order)
        extra = (TRACKED,) if tracked else ()
        yield from self._fetched(decoder, f"{self.api_root}/{decoder.table.entity_set_name}", params, extra)

    def fetched_changes(self, decoder: PageDecoder, delta_link: str) -> Iterator[FetchedPage]:
        """Yield the pages of changes since a delta link as they come; the last page carries the next delta link.

        Raises:
            BookmarkExpiredError: the link is too old; load the table in full.
        """
        yield from self._fetched(decoder, check_link(delta_link, self.api_root), None, (TRACKED,))

    def fetched_after(self, decoder: PageDecoder, next_link: str) -> Iterator[FetchedPage]:
        """Yield the pages from a next link on, as they come."""
        yield from self._fetched(decoder, check_link(next_link, self.api_root), None, ())

    def _fetched(
        self, decoder: PageDecoder, address: str, params: Mapping[str, str] | None, extra: tuple[str, ...]
    ) -> Iterator[FetchedPage]:
        yield from self._paged(lambda fetch: self._ahead.page(decoder, fetch), decoder.table, address, params, extra)

    @property
    def page_size(self) -> int:
        """How many rows a page has at most."""
        return self._page_size

    @property
    def paging(self) -> str:
        """The ``Prefer`` text of every page."""
        return f"odata.maxpagesize={self._page_size},{name_lookups()}"

    def delta_link(self, decoder: PageDecoder, other: str) -> str:
        """Return a delta link of the decoder's table with the token of another table's link.

        Raises:
            ProtocolError: the other link has no token.
        """
        token = delta_token(check_link(other, self.api_root))
        selected = select_clause(decoder.table, decoder.column_names)
        return f"{self.api_root}/{decoder.table.entity_set_name}?$select={selected}&$deltatoken={token}"

    def row(self, table: Table, row_id: str, columns: Iterable[str]) -> Mapping[str, Value]:
        """Return one row.

        Raises:
            RejectedError: with status 404 when it is not there.
        """
        columns = tuple(columns)
        answer = self._send(
            "GET",
            f"{self.api_root}/{table.entity_set_name}({row_id})",
            params={"$select": select_clause(table, columns)},
            prefer=name_lookups(),
        )
        return RowReader(table, columns).read(decode_object(answer.body))

    def find(self, table: Table, row_id: str, columns: Iterable[str]) -> Mapping[str, Value] | None:
        """Return one row, None when it is not there.

        Raises:
            RemoteError: as :meth:`row`, but for that.
        """
        try:
            return self.row(table, row_id, columns)
        except RejectedError as error:
            if error.status != NOT_THERE:
                raise
            return None

    def update(
        self, table: Table, row_id: str, body: Mapping[str, object], *, if_match: str, columns: Iterable[str]
    ) -> Mapping[str, Value]:
        """Change a row if it still has the etag ``if_match``; return it as it is afterwards.

        Raises:
            ConflictError: the row changed since.
            RetryableError: with status None when the outcome is unknown (the connection broke).
        """
        columns = tuple(columns)
        answer = self._send(
            "PATCH",
            f"{self.api_root}/{table.entity_set_name}({row_id})",
            params={"$select": select_clause(table, columns)},
            body=encode_body(body),
            prefer=f"return=representation,{name_lookups()}",
            headers={"If-Match": if_match},
        )
        return RowReader(table, columns).read(decode_object(answer.body))

    def batch(self, parts: Sequence[Part]) -> tuple[PartAnswer, ...]:
        """Send requests as one; each is carried out, or refused, by itself. Return their answers in order.

        Raises:
            ValueError: no parts, or more than 1,000.
            RemoteError: the batch as a whole was refused, or its outcome is unknown.
            ProtocolError: the answer is damaged; the outcome of every part is unknown.
        """
        boundary = f"batch_{uuid.uuid4()}"
        answer = self.transport.send(
            "POST",
            f"{self.api_root}/$batch",
            body=compose(parts, urlsplit(self.api_root).path, boundary),
            content_type=batch_type(boundary),
            prefer="odata.continue-on-error",
            idempotent=all(part.method == "GET" for part in parts),
            expects=MULTIPART,
            operations=len(parts),
        )
        return parse(answer.headers.get("Content-Type", ""), answer.body, len(parts))

    def wait(self, seconds: float) -> None:
        """Let time pass, by the clock of the retries.

        Raises:
            RetryableError: the wait was broken off.
        """
        self.transport.wait(seconds)

    def ask_patience(self, error: RetryableError, attempt: int) -> None:
        """Hold back every request for as long as a refusal within a batch asks; ``attempt`` counts from 1."""
        self.transport.ask_patience(error, attempt)

    def _pages(
        self,
        table: Table,
        columns: Iterable[str],
        params: Mapping[str, str],
        extra: tuple[str, ...],
        on_behalf_of: str = "",
    ) -> Iterator[Page]:
        columns = tuple(columns)
        address = f"{self.api_root}/{table.entity_set_name}"
        yield from self._paged(
            lambda fetch: read_page(fetch(), table, columns), table, address, params, extra, on_behalf_of
        )

    def _paged(
        self,
        take: Callable[[Callable[[], bytes]], AnyPage],
        table: Table,
        address: str,
        params: Mapping[str, str] | None,
        extra: tuple[str, ...],
        on_behalf_of: str = "",
    ) -> Iterator[AnyPage]:
        prefer = ",".join([*extra, self.paging])
        seen: set[str] = {address}
        link: str | None = address
        while link is not None:
            page = take(partial(self._body, link, params, prefer, on_behalf_of))
            params = None
            for other in filter(None, (page.next_link, page.delta_link)):
                check_link(other, self.api_root)
            yield page
            link = page.next_link
            if link in seen:
                raise ProtocolError(f"the pages of {table.entity_set_name} go round in a circle")
            if link is not None:
                seen.add(link)
            if len(seen) > self._most_pages + 1:
                raise ProtocolError(f"the pages of {table.entity_set_name} do not end; given up")

    def _body(self, link: str, params: Mapping[str, str] | None, prefer: str, on_behalf_of: str) -> bytes:
        return self._send("GET", link, params=params, prefer=prefer, headers=_acting_for(on_behalf_of)).body

    def _send(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        prefer: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self.transport.send(method, address, params=params, body=body, prefer=prefer, headers=headers)

    # -- rows made and removed (the probe) -------------------------------------------------------------------------

    def create(self, table: Table, row_id: str, body: Mapping[str, object]) -> None:
        """Make a row under an id of our choice; lookups in ``body`` as ``name@odata.bind``.

        A create whose outcome is unknown is never sent again: the row is looked up under its id instead.

        Raises:
            RemoteError: refused, or unreachable; the row is then not there, unless it could not be looked up either.
        """
        document = {**body, table.primary_id: row_id}
        try:
            self._send("POST", f"{self.api_root}/{table.entity_set_name}", body=encode_body(document))
        except RetryableError:
            if not self.exists(table, row_id):
                raise

    def exists(self, table: Table, row_id: str) -> bool:
        """Say whether a row is there (and may be read)."""
        return self.find(table, row_id, (table.primary_id,)) is not None

    def delete(self, table: Table, row_id: str) -> None:
        """Remove a row; one that is not there any more is no error, so that it may be asked again.

        Raises:
            RemoteError: refused, or unreachable.
        """
        try:
            self._send("DELETE", f"{self.api_root}/{table.entity_set_name}({row_id})")
        except RejectedError as error:
            if error.status != NOT_THERE:
                raise

    def act(self, table: Table, row_id: str, action: str) -> None:
        """Call a bound action without parameters, such as ``Recalculate`` of a goal.

        Raises:
            RemoteError: refused, or unreachable; the action may have happened all the same.
        """
        address = f"{self.api_root}/{table.entity_set_name}({row_id})/{ACTION_NAMESPACE}.{action}"
        self._send("POST", address, body=encode_body({}))


def _options(table: Table, columns: Iterable[str], where: str = "", order: str = "") -> dict[str, str]:
    """Return the query options of a read of rows."""
    asked = {"$select": select_clause(table, columns), "$filter": where, "$orderby": order}
    return {name: text for name, text in asked.items() if text}


def modified_since(column: str, instant: dt.datetime) -> str:
    """Return the ``$filter`` for rows modified at or after an instant."""
    return f"{column} ge {format_instant(instant)}"


def among(column: str, values: Iterable[str]) -> str:
    """Return the ``$filter`` for rows whose column is one of the values (ids). Source: Query data (In function)."""
    listed = ",".join(f"'{value}'" for value in values)
    return f"Microsoft.Dynamics.CRM.In(PropertyName='{column}',PropertyValues=[{listed}])"


def _acting_for(object_id: str) -> Mapping[str, str]:
    """Return the header that impersonates a user. Source: Impersonate another user using the Web API."""
    return {"CallerObjectId": object_id} if object_id else {}


def name_lookups() -> str:
    """Return the preference that makes polymorphic lookups name their table."""
    return f'odata.include-annotations="{LOOKUP_LOGICAL_NAME}"'


def _date_of(headers: Mapping[str, str]) -> dt.datetime | None:
    """Return the server's clock as an answer tells it, None when it does not; without a zone it is UTC."""
    try:
        told = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    return told if told.tzinfo else told.replace(tzinfo=dt.UTC)
