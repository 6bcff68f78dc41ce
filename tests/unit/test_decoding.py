"""Pages decoded straight to stored rows: the same as row by row, for every spelling, and refused by the same names."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.core.rowshape import RowShape
from d365sync.core.schema import Column, ColumnType, DateBehavior, Table
from d365sync.dataverse.decoding import ROWS_AT_ONCE, PageDecoder, StoredPage, links_of
from d365sync.errors import ProtocolError
from tests.effort import examples

KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"
COLUMNS = (
    Column("dealid", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True),
    Column("name", ColumnType.STRING),
    Column("amount", ColumnType.MONEY),
    Column("share", ColumnType.DECIMAL, precision=2),
    Column("exact", ColumnType.DECIMAL, precision=10),
    Column("ratio", ColumnType.DOUBLE),
    Column("units", ColumnType.INTEGER),
    Column("versionnumber", ColumnType.BIGINT),
    Column("won", ColumnType.BOOLEAN),
    Column("tags", ColumnType.MULTISELECT),
    Column("closedon", ColumnType.DATETIME, date_behavior=DateBehavior.DATE_ONLY),
    Column("modifiedon", ColumnType.DATETIME, date_behavior=DateBehavior.USER_LOCAL),
    Column("ownerid", ColumnType.OWNER, targets=("systemuser", "team")),
    Column("parentid", ColumnType.LOOKUP, targets=("deal",)),
)
TABLE = Table("deal", "deals", "dealid", "name", {column.logical_name: column for column in COLUMNS})
SHAPE = RowShape(TABLE, COLUMNS, as_text=frozenset({"exact"}))
DECODER = PageDecoder(SHAPE)
ROW: dict[str, Any] = {
    "@odata.etag": 'W/"7"',
    "dealid": KEY,
    "name": "Straße",
    "amount": 0,
    "units": 3,
    "versionnumber": 7,
    "won": True,
    "tags": "3,1",
    "closedon": "2026-02-28",
    "modifiedon": "2026-02-28T23:59:59Z",
    "_ownerid_value": KEY,
    "_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname": "team",
    "_parentid_value": None,
}
NUMBERS = ["0", "-0.0000", "5000000.0000", "922337203685477.5807", "-1.5", "1e3", "12", "0.00001", "1e30", "9" * 5000]
ODD: dict[str, list[str]] = {
    "dealid": [json.dumps(KEY.upper()), f'"{{{KEY}}}"', "null", '"x"', f'"{KEY}\\n"', "5"],
    "name": ['"a"', '""', "null", "5", '"\\ud800"', '"\\u0000"', '"İ"'],
    "amount": NUMBERS,
    "share": ["0.01", "0.001", "7", '"7"', "true", "null"],
    "exact": ["100000000000", "0.1000000000", "null", "1.50", '"1"'],
    "ratio": ["47.63958", "1", "1e400", "null", '"x"'],
    "units": ["5", "5.0", "5.5", "9223372036854775808", "-9223372036854775808", "true", '"5"', "null"],
    "versionnumber": ["9007199254740993", "null"],
    "won": ["true", "false", "null", "1"],
    "tags": ['"1"', '"2,1"', '""', '"x"', "null", '"1,1"', '"\\uff11"'],
    "closedon": ['"2026-02-29"', '"2024-02-29"', '"20260228"', '"2026-2-281"', "null", "5"],
    "modifiedon": [
        '"2026-02-28T24:00:00Z"',
        '"2026-02-28T23:60:00Z"',
        '"2026-02-30T00:00:00Z"',
        '"2026-02-28T23:59:59.5Z"',
        '"2026-02-28T01:00:00+03:30"',
        '"2026-02-28T01:00:00"',
        '"2026-02-28"',
        '"\\uff12026-02-28T01:00:00Z"',
        "null",
    ],
    "_ownerid_value": ["null", '"x"', f'"{KEY}"'],
    "_parentid_value": [f'"{KEY}"', "7"],
    "@odata.context": ['"$metadata#deals/$deletedEntity"', '"$metadata#deals/$entity"', "null", "7"],
    "id": [f'"{KEY}"', f'"{KEY.upper()}"', '"x"'],
    "@odata.etag": [
        "null",
        '"W/1"',
        '"*"',
        '"W/\\"é\\""',
        '"\\"a\\""',
        '"W/\\"1\\"\\r\\nX: y"',
        '"W/\\"\\u0000\\""',
        "7",
    ],
}


def body(*rows: dict[str, str], **more: str) -> bytes:
    """Return a page; every row is the usual one with some properties spelled otherwise, as JSON text."""
    usual = {name: json.dumps(value) for name, value in ROW.items()}
    spelled = [
        "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in {**usual, **row}.items()) + "}" for row in rows
    ]
    links = "".join(f',"@odata.{name}":{value}' for name, value in more.items())
    return f'{{"value":[{",".join(spelled)}]{links}}}'.encode("utf-8", "surrogateescape")


def outcome(read: Any, page: bytes) -> StoredPage | str:
    try:
        found: StoredPage = read(page)
    except ProtocolError as error:
        return str(error)
    return replace(found, rows=list(found.rows), deleted=list(found.deleted))


odd_rows = st.lists(
    st.lists(st.sampled_from(sorted(ODD)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: st.sampled_from(ODD[name]) for name in names})
    ),
    max_size=4,
)


@settings(max_examples=examples(60), deadline=None)
@given(odd_rows)
def test_both_ways_say_the_same(rows: list[dict[str, str]]) -> None:
    page = body(*rows)
    assert outcome(DECODER.read, page) == outcome(DECODER.read_row_by_row, page)


@pytest.mark.parametrize(("name", "spelled"), [(name, one) for name, some in ODD.items() for one in some])
def test_every_spelling_among_usual_neighbours(name: str, spelled: str) -> None:
    page = body({}, {name: spelled}, {})
    assert outcome(DECODER.read, page) == outcome(DECODER.read_row_by_row, page)


def test_an_etag_that_cannot_be_sent_back_is_none_its_row_is_kept() -> None:
    odd = body(*({"@odata.etag": one} for one in ODD["@odata.etag"]), {})
    for read in (DECODER.read, DECODER.read_row_by_row):
        assert [row[-1] for row in read(odd).rows] == [None, None, None, None, '"a"', None, None, None, 'W/"7"']


def test_a_usual_page_is_taken_the_fast_way_and_is_exact() -> None:
    deleted = {"@odata.context": '"x/$metadata#deals/$deletedEntity"', "id": f'"{KEY}"'}
    page = body({"amount": "92233720368547.5807", "share": "-0.50", "exact": "0.1000000000"}, deleted, nextLink='"n"')
    found = DECODER.read_columns(page)
    stored = dict(zip([name for name, _ in SHAPE.stored_columns], found.rows[0], strict=False))
    assert stored == {
        "dealid": KEY,
        "name": "Straße",
        "name__fold": "strasse",
        "amount": 922337203685475807,
        "share": -50,
        "exact": "0.1000000000",
        "ratio": None,
        "units": 3,
        "versionnumber": 7,
        "won": 1,
        "tags": ",1,3,",
        "closedon": "2026-02-28",
        "modifiedon": "2026-02-28T23:59:59Z",
        "ownerid": KEY,
        "owneridtype": "team",
        "parentid": None,
    }
    assert found.rows[0][-2:] == (None, 'W/"7"')
    assert (found.deleted, found.next_link, found.size_bytes) == ([KEY], "n", len(page))


def test_a_wrong_value_is_left_out_and_named_by_its_row_and_column_its_neighbours_are_stored() -> None:
    page = DECODER.read(body({}, {"units": "5.5"}))
    assert [(row[SHAPE.places["units"]], row[-2]) for row in page.rows] == [(3, None), (None, "!units")]
    assert page.damaged == [f"deal.units: '5.5' is not a integer value (row {KEY})"]


POISON = {
    "units": ["1" * 20_000, "NaN", "-Infinity", "1e999999999999999999999", "[]", "{}"],
    "amount": ["NaN", "Infinity", "1e999999999999999999999", "9" * 5000, '"5"', "0.00001"],
    "name": ['"\\ud800"', '"\\udfff\\ud800"', '"a\\u0000b"', "5", "[[[]]]", '"\udcff"'],
    "closedon": ['"2026-02-30"', '"0000-00-00"', '"soon"', "5"],
    "modifiedon": ['"1752-13-01T00:00:00Z"', '"2026-02-28T25:00:00Z"', "0"],
    "_ownerid_value": ['"x"', "5", "{}"],
    "_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname": ["5", "[]", '"\\ud800"'],
    "won": ['"yes"', "1"],
    "versionnumber": ["NaN", "1.5"],
}


@pytest.mark.parametrize(("name", "spelled"), [(name, one) for name, some in POISON.items() for one in some])
def test_a_damaged_value_spoils_neither_its_row_nor_its_page(name: str, spelled: str) -> None:
    page = body({}, {name: spelled}, {}, nextLink='"n"')
    found = DECODER.read(page)
    column = name.partition("@")[0].removeprefix("_").removesuffix("_value")
    usual, damaged, other = found.rows
    assert usual == other == DECODER.read_columns(body({})).rows[0]
    assert damaged[-2] == f"!{column}"
    assert damaged[SHAPE.places[column]] is None
    assert (len(found.damaged), found.next_link, links_of(page).next) == (1, "n", "n")
    assert found.damaged[0].startswith(f"deal.{column}: ") or column in found.damaged[0]
    assert found.damaged[0].encode()


@pytest.mark.parametrize("spelled", ['"x"', "5", "null", '"\\ud800"', "NaN"])
def test_a_row_whose_key_is_damaged_cannot_be_noted_and_is_refused(spelled: str) -> None:
    with pytest.raises(ProtocolError, match="deal"):
        DECODER.read(body({}, {"dealid": spelled}))


def test_a_number_too_large_is_left_out_and_named_its_neighbours_are_stored() -> None:
    page = DECODER.read(body({}, {"units": "9223372036854775808"}))
    units = SHAPE.places["units"]
    assert [(row[units], row[-2]) for row in page.rows] == [(3, None), (None, "units")]


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"value":5}', '{"value":[5]}', '{"value":[{}', "null"])
def test_what_is_not_a_page_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        DECODER.read(text.encode())


def test_a_page_of_many_rows_is_the_same_both_ways() -> None:
    rows = [{**ROW, "dealid": f"{KEY[:-12]}{at:012}", "units": at} for at in range(2 * ROWS_AT_ONCE + 1)]
    page = json.dumps({"value": rows, "@odata.nextLink": "https://x/y"}).encode()
    found = DECODER.read_columns(page)
    other = DECODER.read_row_by_row(page)
    assert (list(found.rows), found.next_link) == (list(other.rows), other.next_link)
    assert len(found.rows) == len(rows)


SHALLOW = 50
DEPTHS = [SHALLOW, *range(900, 1100, 7), 100_000]
"""Around the interpreter's own limit too: what is just decoded there may not be deep enough to be spelled."""


@pytest.mark.parametrize("around", ['{{"x":{}}}', '{{"value":[],"x":{}}}', '{{"value":[{{}}],"@odata.y":{}}}'])
def test_a_page_nested_too_deeply_is_refused_when_it_comes(around: str) -> None:
    for depth in DEPTHS:
        page = around.format("[" * depth + "]" * depth).encode()
        with suppress(*[ProtocolError] * (depth > SHALLOW)):
            assert links_of(page).next is None
    with pytest.raises(ProtocolError, match="nested too deeply"):
        links_of(page)


@pytest.mark.parametrize("name", [*ROW, "other", "@odata.context", "id"])
def test_a_row_nested_too_deeply_is_damaged_like_any_other(name: str) -> None:
    for depth in DEPTHS:
        value = "[" * depth + "]" * depth
        page = json.dumps({"value": [ROW | {name: "…"}]}, ensure_ascii=False).replace('"…"', value)
        with suppress(*[ProtocolError] * (depth > SHALLOW or name == "dealid")):
            assert len(DECODER.read(page.encode()).rows) == 1


SLY = st.sampled_from(['],"@odata.nextLink":"evil"}', '"value":[', "plain", "]", "Link", "x" * 5000])


@given(
    before=st.dictionaries(st.sampled_from(["@odata.context", "@odata.nextLink", "x", "@odata.deltaLink"]), SLY),
    after=st.dictionaries(st.sampled_from(["@odata.nextLink", "@odata.deltaLink", "@odata.count", "x"]), SLY),
    rows=st.lists(st.fixed_dictionaries({"name": SLY, "@odata.etag": SLY, "list": st.lists(SLY, max_size=2)})),
    separators=st.sampled_from([(",", ":"), (", ", ": ")]),
)
@settings(max_examples=examples(100))
def test_links_are_found_wherever_they_stand(
    before: dict[str, str], after: dict[str, str], rows: list[Any], separators: tuple[str, str]
) -> None:
    page = {**before, "value": rows, **after}
    document = json.dumps(page, separators=separators)
    ordered = json.dumps({"value": rows, **after, **before}, separators=separators)
    for text in (document, ordered):
        found, whole = links_of(text.encode()), json.loads(text)
        assert (found.next, found.delta) == (whole.get("@odata.nextLink"), whole.get("@odata.deltaLink"))
