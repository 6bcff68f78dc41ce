from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pytest

from d365sync.core.schema import Column, ColumnType, DateBehavior, Table
from d365sync.dataverse.wire import (
    check_link,
    decode_object,
    encode_body,
    error_of,
    read_page,
    retry_after,
    select_clause,
)
from d365sync.errors import (
    AuthError,
    BookmarkExpiredError,
    ConflictError,
    ProtocolError,
    RejectedError,
    RemoteError,
    RetryableError,
)

ROOT = "https://contoso.crm4.dynamics.com/api/data/v9.2"
ID = "5b6d0000-0000-0000-0000-000000000001"
COLUMNS = (
    Column("opportunityid", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True),
    Column("name", ColumnType.STRING),
    Column("actualvalue", ColumnType.MONEY),
    Column("actualclosedate", ColumnType.DATETIME, date_behavior=DateBehavior.DATE_ONLY),
    Column("createdon", ColumnType.DATETIME, date_behavior=DateBehavior.USER_LOCAL),
    Column("ownerid", ColumnType.OWNER, targets=("systemuser", "team")),
    Column("statecode", ColumnType.STATE),
    Column("colours", ColumnType.MULTISELECT),
)
OPPORTUNITY = Table("opportunity", "opportunities", "opportunityid", "name", {c.logical_name: c for c in COLUMNS})
NAMES = tuple(OPPORTUNITY.columns)


def page(*entries: dict[str, object], **envelope: object) -> bytes:
    return json.dumps({"value": entries, **envelope}).encode()


def test_a_row_becomes_typed_values() -> None:
    body = (
        b'{"value":[{"@odata.etag":"W/\\"7\\"","opportunityid":"5B6D0000-0000-0000-0000-000000000001","name":"x",'
        b'"actualvalue":922337203685477.5807,"actualclosedate":"2026-11-20","createdon":"2026-11-20T09:00:00Z",'
        b'"_ownerid_value":"5b6d0000-0000-0000-0000-000000000002",'
        b'"_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname":"team","statecode":1,"colours":"1,3"}]}'
    )
    (row,) = read_page(body, OPPORTUNITY, NAMES).rows
    assert row == {
        "@odata.etag": 'W/"7"',
        "opportunityid": ID,
        "name": "x",
        "actualvalue": Decimal("922337203685477.5807"),
        "actualclosedate": dt.date(2026, 11, 20),
        "createdon": dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC),
        "ownerid": "5b6d0000-0000-0000-0000-000000000002",
        "owneridtype": "team",
        "statecode": 1,
        "colours": frozenset({1, 3}),
    }


def test_absent_columns_are_none() -> None:
    (row,) = read_page(page({"opportunityid": ID}), OPPORTUNITY, NAMES).rows
    assert row["actualvalue"] is None
    assert row["ownerid"] is None


def test_a_delta_page_tells_deletions_from_rows() -> None:
    gone = {"@odata.context": f"{ROOT}/$metadata#opportunities/$deletedEntity", "id": ID.upper(), "reason": "deleted"}
    found = read_page(page({"opportunityid": ID}, gone, **{"@odata.deltaLink": f"{ROOT}/x"}), OPPORTUNITY, NAMES)
    assert (len(found.rows), found.deleted, found.delta_link, found.next_link) == (1, [ID], f"{ROOT}/x", None)


@pytest.mark.parametrize(
    "entry",
    [
        {"opportunityid": "not-a-guid"},
        {"name": "no key"},
        {"opportunityid": ID, "actualvalue": "12"},
        {"opportunityid": ID, "actualclosedate": "2026-11-20T00:00:00Z"},
        {"opportunityid": ID, "statecode": True},
        {"opportunityid": ID, "statecode": 1.5},
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_it(entry: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="opportunit"):
        read_page(page(entry), OPPORTUNITY, NAMES)


@pytest.mark.parametrize(
    "body", [b"", b"<html>Sign in</html>", b'{"value":[{"opportunityid":', b"[]", b'{"value":{}}', b"{}"]
)
def test_what_is_no_page_is_an_error_never_no_rows(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_page(body, OPPORTUNITY, NAMES)


def test_bodies_carry_exact_numbers_and_instants() -> None:
    body = encode_body(
        {
            "actualmoney": Decimal("1234567890123.4567"),
            "lastrolledupdate": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
            "x": None,
        }
    )
    assert body == b'{"actualmoney":1234567890123.4567,"lastrolledupdate":"2026-01-02T00:00:00Z","x":null}'


def test_lookups_are_selected_by_their_property() -> None:
    assert select_clause(OPPORTUNITY, ["ownerid", "name"]) == "opportunityid,name,_ownerid_value"


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/api/data/v9.2/goals",
        "http://contoso.crm4.dynamics.com/api/data/v9.2/goals",
        "https://contoso.crm4.dynamics.com:8443/api/data/v9.2/goals",
        "https://contoso.crm4.dynamics.com/api/data/v9.20/goals",
        "https://contoso.crm4.dynamics.com/api/data/v9.2/../x",
        "https://user@contoso.crm4.dynamics.com/api/data/v9.2/goals",
        "https://contoso.crm4.dynamics.com.evil.example/api/data/v9.2/goals",
        "https://contoso.crm4.dynamics.com:bad/api/data/v9.2/goals",
    ],
)
def test_a_link_that_leaves_the_api_is_not_followed(link: str) -> None:
    with pytest.raises(ProtocolError, match="not followed"):
        check_link(link, ROOT)


def test_a_link_within_the_api_is_followed_untouched() -> None:
    link = f"{ROOT}/goals?$select=title&$skiptoken=%3Ccookie%20pagenumber=%222%22"
    assert check_link(link, ROOT) == link


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (412, "0x80060882", ConflictError),
        (400, "0x80044352", BookmarkExpiredError),
        (410, "0x80044352", BookmarkExpiredError),
        (429, "0x80072322", RetryableError),
        (503, "", RetryableError),
        (401, "", AuthError),
        (403, "0x80040220", AuthError),
        (404, "0x80040217", RejectedError),
        (400, "0x80044911", RejectedError),
    ],
)
def test_the_type_of_an_error_says_what_to_do(status: int, code: str, kind: type[RemoteError]) -> None:
    error = error_of(
        status,
        {"x-ms-service-request-id": "r1"},
        json.dumps({"error": {"code": code, "message": "m"}}).encode(),
        "GET goals",
    )
    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, code, "r1")


@pytest.mark.parametrize(
    "body", [b"<html><body>Service Unavailable</body></html>", b'{"Message":"no"}', b"", b'"text"', b"\xff"]
)
def test_errors_of_gateways_are_read_defensively(body: bytes) -> None:
    error = error_of(503, {"Retry-After": "17"}, body, "GET goals")
    assert isinstance(error, RetryableError)
    assert error.retry_after_s == 17
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", 0)]
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}) == seconds


def test_only_an_object_is_an_object() -> None:
    with pytest.raises(ProtocolError, match="not an object"):
        decode_object(b"[1]")
