"""``?sql=``: a plain SELECT over one table."""

from __future__ import annotations

import pytest

from tests.unit.emulating import BOB, Org


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", ["Alpha", "beta", "Gamma", "alpha two", "50%25 off"]),
        ("WHERE statecode = 1", ["Alpha", "Gamma"]),
        ("where NAME like 'alpha%25' order by name desc", ["alpha two", "Alpha"]),
        ("WHERE actualvalue IS NOT NULL AND actualvalue <= 150.5", ["Alpha"]),
        ("WHERE NOT (statecode = 1 OR name = 'beta')", ["alpha two", "50%25 off"]),
        ("WHERE estimatedvalue BETWEEN 1 AND 9 OR name IN ('Gamma','it''s')", ["Gamma", "alpha two"]),
        ("WHERE name NOT LIKE '%25a%25'", ["50%25 off"]),
        (f"WHERE ownerid = '{BOB}' AND statecode <> 1 ORDER BY name", ["50%25 off", "alpha two", "beta"]),
        ("WHERE actualclosedate >= '2026-04-01'", ["Gamma"]),
    ],
)
def test_a_select_returns_the_rows_it_means(org: Org, rest: str, expected: list[str]) -> None:
    found = org.names(f"opportunities?sql=SELECT name FROM opportunity {rest}")
    assert found == [name.replace("%25", "%") for name in expected]


def test_top_and_pages(org: Org) -> None:
    assert org.names("opportunities?sql=SELECT TOP 2 name FROM opportunity ORDER BY name DESC") == ["Gamma", "beta"]
    found: list[str] = []
    link = "opportunities?sql=SELECT name, ownerid FROM opportunity"
    while link:
        page = org.get(link, "odata.maxpagesize=2")
        assert len(page["value"]) <= 2
        assert "_ownerid_value" in page["value"][0]
        found += [row["name"] for row in page["value"]]
        link = page.get("@odata.nextLink", "")
    assert found == ["Alpha", "beta", "Gamma", "alpha two", "50% off"]


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("SELECT * FROM opportunity", 501, "'*'"),
        ("SELECT COUNT(name) FROM opportunity", 501, "'('"),
        ("SELECT DISTINCT name FROM opportunity", 501, "'DISTINCT'"),
        ("SELECT name FROM opportunity o JOIN account a ON 1 = 1", 501, "'o'"),
        ("SELECT name FROM opportunity GROUP BY name", 501, "'GROUP'"),
        ("SELECT name FROM opportunity WHERE name = statecode", 501, "'statecode'"),
        ("DELETE FROM opportunity", 501, "'DELETE'"),
        ("SELECT name FROM opportunity; DROP TABLE x", 501, "';'"),
        ("SELECT name FROM account", 400, "account"),
        ("SELECT nosuch FROM opportunity", 400, "nosuch"),
        ("SELECT name FROM opportunity WHERE statecode = 'x'", 400, "'x'"),
        ("SELECT name FROM opportunity WHERE", 400, "too early"),
        ("SELECT name FROM opportunity WHERE name = 'x", 400, "not understood"),
        ("SELECT name FROM opportunity WHERE " + "(" * 99, 400, "levels"),
        ("SELECT name FROM opportunity&$top=1", 400, "$top"),
        ("SELECT name FROM opportunity&$skiptoken=x", 400, "skip token"),
        ("", 400, "too early"),
    ],
)
def test_other_texts_are_refused_by_name(org: Org, query: str, status: int, says: str) -> None:
    response = org.call("GET", f"opportunities?sql={query}")
    assert response.status_code == status, response.text
    assert says in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "where",
    [
        "actualvalue <> 1",
        "actualvalue != 1",
        "actualvalue NOT IN (1, 2)",
        "actualvalue NOT BETWEEN 1 AND 2",
        "NOT actualvalue = 1",
        "NOT actualvalue IN (1)",
        "NOT (actualvalue = 1 OR actualvalue BETWEEN 2 AND 3)",
        "NOT (actualvalue IS NULL)",
        "actualvalue > 0 OR NOT actualvalue > 0",
    ],
)
def test_an_empty_column_is_neither_equal_nor_different(org: Org, where: str) -> None:
    assert org.names(f"opportunities?sql=SELECT name FROM opportunity WHERE {where}") == ["Alpha", "Gamma"]


@pytest.mark.parametrize("where", ["accountnumber NOT LIKE '%25x%25'", "NOT (accountnumber LIKE '%25x%25')"])
def test_an_empty_text_is_not_unlike_a_pattern(where: str) -> None:
    org = Org()
    for body in ({"name": "numbered", "accountnumber": "A1"}, {"name": "bare"}):
        assert org.post("accounts", body).status_code == 204
    assert org.names(f"accounts?sql=SELECT name FROM account WHERE {where}") == ["numbered"]
    assert org.names("accounts?sql=SELECT name FROM account WHERE accountnumber IS NULL") == ["bare"]
