"""Every worked FetchXML case as an organization, asked over the Web API: the emulator gives what the case says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import requests

from d365sync.emulator import Emulator
from tests.fetchcases import Case, asserted, code_of, parametrized, refused, same_ids, same_rows
from tests.fetchorgs import emulator_of, entity_set_of
from tests.unit.emulating import ORIGIN, ROOT

_SAFE = "/='"
"""Left as they are, so that a query of 500 conditions fits an address."""


def signed_in(emulator: Emulator) -> requests.Session:
    known, session = emulator.credentials, emulator.session()
    form = {
        "grant_type": "client_credentials",
        "client_id": known.client_id,
        "client_secret": known.client_secret,
        "scope": f"{ORIGIN}/.default",
    }
    token = session.post(f"{ORIGIN}/{known.tenant_id}/oauth2/v2.0/token", data=form).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def _asked(case: Case, folder: Path) -> requests.Response:
    emulator = emulator_of(case, folder)
    address = f"{ROOT}{entity_set_of(emulator, case)}?fetchXml={quote(case['fetchxml'], safe=_SAFE)}"
    return signed_in(emulator).get(address)


def _rows(case: Case, folder: Path) -> list[dict[str, Any]]:
    response = _asked(case, folder)
    assert response.status_code == 200, response.text
    rows = msgspec.json.decode(response.content)["value"]
    return [{_logical(name): _value(value) for name, value in row.items()} for row in rows]


def _logical(name: str) -> str:
    return name[1:-6] if name.startswith("_") and name.endswith("_value") else name


def _value(value: Any) -> Any:
    return Decimal(repr(value)) if isinstance(value, float) else value


@parametrized(lambda case: "expected_ids" in case and not refused(case))
def test_the_emulator_returns_the_rows(case: Case, tmp_path: Path) -> None:
    key = case["schema"][case["entity"]]["primary_key"]
    asserted(case, *same_ids(case, [row[key] for row in _rows(case, tmp_path)]))


@parametrized(lambda case: "expected_rows" in case and not refused(case))
def test_the_emulator_returns_the_columns(case: Case, tmp_path: Path) -> None:
    asserted(case, *same_rows(case, _rows(case, tmp_path)))


@parametrized(lambda case: "expected_count" in case and not refused(case))
def test_the_emulator_returns_the_number_of_rows(case: Case, tmp_path: Path) -> None:
    found = len(_rows(case, tmp_path))
    asserted(case, found == case["expected_count"], f"expected {case['expected_count']} rows, got {found}")


@parametrized(refused)
def test_the_emulator_refuses(case: Case, tmp_path: Path) -> None:
    response = _asked(case, tmp_path)
    asserted(case, response.status_code == 400, response.text)
    code = response.json()["error"]["code"]
    assert code.lower() == code_of(case) if code_of(case) else code


@pytest.mark.parametrize("query", ["", "<fetch", "<fetch><entity name='contact'/></fetch>"])
def test_a_query_that_does_not_fit_the_address_is_refused(query: str, tmp_path: Path) -> None:
    case = {
        "id": "any",
        "entity": "account",
        "fetchxml": query,
        "now": "2024-05-15T10:30:45+00:00",
        "rows": [],
        "schema": {"account": {"primary_key": "accountid", "columns": {"accountid": "uniqueidentifier"}}},
    }
    assert _asked(case, tmp_path).status_code == 400
