"""The small org behind a signed-in session, in process; ids are spelled by letter and number."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import requests

from d365sync.emulator import Emulator, EmulatorSettings

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
ORIGIN = "https://emulator.test"
ROOT = f"{ORIGIN}/api/data/v9.2/"
NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def made_id(letter: str, number: int) -> str:
    return f"{letter * 8}-0000-4000-8000-{number:012d}"


ANN, BOB, DESK = made_id("a", 1), made_id("a", 2), made_id("a", 9)
EUR, USD = made_id("c", 1), made_id("c", 2)
REVENUE, CALLS, OLD_METRIC = (made_id("b", number) for number in (1, 2, 3))
COMPANY, ANNS, DESKS, CLOSED = (f"goals({made_id('d', number)})" for number in (1, 2, 3, 4))


def deal(number: int) -> str:
    return f"opportunities({made_id('e', number)})"


KEYED = {
    "account": {
        "columns": {},
        "keys": {
            "new_number": ["accountnumber"],
            "new_place": ["address1_city", "numberofemployees"],
            "new_territory": ["territoryid"],
        },
    },
    "new_visit": {
        "primary_key": "new_visitid",
        "primary_name": "new_name",
        "columns": {"new_name": "string", "new_fee": "decimal:2", "new_when": "datetime:userlocal"},
        "keys": {"new_feekey": ["new_fee"], "new_whenkey": ["new_when"]},
    },
}
"""An org folder's schema: accounts with alternate keys, and a table of its own."""


def keyed_folder(folder: Path) -> Path:
    """Write the small org with alternate keys into a folder."""
    shutil.copytree(SMALL, folder)
    (folder / "schema.json").write_text(json.dumps(KEYED), encoding="utf-8")
    return folder


class Org:
    """The small org, called with a valid token."""

    def __init__(self, *, page_size: int | None = None, folder: Path = SMALL, **settings: Any) -> None:
        self.emulator = Emulator.load(folder, now=NOW, settings=EmulatorSettings(**settings), page_size=page_size)
        self.session = self.emulator.session()
        self.session.headers["Authorization"] = f"Bearer {self.token()}"

    def token(self) -> str:
        return str(self.sign_in().json()["access_token"])

    def sign_in(self, **changes: str) -> requests.Response:
        known = self.emulator.credentials
        form = {
            "grant_type": "client_credentials",
            "client_id": known.client_id,
            "client_secret": known.client_secret,
            "scope": f"{ORIGIN}/.default",
        }
        tenant = changes.pop("tenant", known.tenant_id)
        return self.session.post(f"{ORIGIN}/{tenant}/oauth2/v2.0/token", data={**form, **changes})

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        url = path if path.startswith("https:") else ROOT + path
        return self.session.request(method, url, json=body, headers=headers)

    def get(self, path: str, prefer: str = "") -> Any:
        response = self.call("GET", path, headers={"Prefer": prefer} if prefer else None)
        assert response.status_code == 200, response.text
        return response.json()

    def names(self, path: str, prefer: str = "") -> list[str]:
        return [row["name"] for row in self.get(path, prefer)["value"]]

    def patch(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> requests.Response:
        return self.call("PATCH", path, body, headers)

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> requests.Response:
        return self.call("POST", path, body, headers)


def code(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]
