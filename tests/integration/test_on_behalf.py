"""The real client reading on behalf of a user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import make_client
from d365sync.core.schema import Table
from d365sync.dataverse.client import DataverseClient, among
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.errors import AuthError
from tests.emulated import NOW, configuration
from tests.security import BASIC, Security, amend, object_id
from tests.unit.emulating import ANN, BOB, SMALL


class RecordingAdapter(BaseAdapter):
    """Notes the address and the headers of every request before the emulator answers it."""

    def __init__(self, emulator: Emulator, seen: list[tuple[str, str | None]]) -> None:
        super().__init__()
        self._inner: BaseAdapter = emulator.session().get_adapter("https://")
        self._seen = seen

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self._seen.append((str(request.url), request.headers.get("CallerObjectId")))
        return self._inner.send(request, *args, **options)

    def answer_from(self, inner: BaseAdapter) -> None:
        """Let another adapter answer from now on."""
        self._inner = inner

    def close(self) -> None:
        """Nothing is held open."""


class Recording(requests.Session):
    """A session whose requests are noted."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.seen: list[tuple[str, str | None]] = []
        self.recorder = RecordingAdapter(emulator, self.seen)
        self.mount("https://", self.recorder)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[DataverseClient, Table, Recording]]:
    def made(**settings: Any) -> tuple[DataverseClient, Table, Recording]:
        folder = tmp_path / "org"
        folder.mkdir()
        for file in SMALL.glob("*.json"):
            (folder / file.name).write_bytes(file.read_bytes())
        amend(folder, "systemusers", lambda row: {"azureactivedirectoryobjectid": object_id(row["systemuserid"])})
        security = Security()
        security.role("seller", prvReadOpportunity=BASIC)
        for user in (ANN, BOB):
            security.give("seller", user=user)
        security.write(folder)
        emulator = Emulator.load(folder, now=NOW, settings=EmulatorSettings(**settings))
        session = Recording(emulator)
        config = configuration(emulator, tmp_path, dataverse={"page_size": 2})
        table = emulator.store.catalogue.schema.table("opportunity")
        return make_client(config, environ={}, session=session), table, session

    return made


def read(client: DataverseClient, table: Table, **options: str) -> list[str]:
    return [str(row["name"]) for page in client.rows(table, ["name"], **options) for row in page.rows]


def test_every_page_is_asked_for_the_user_and_nothing_else_is(
    make: Callable[..., tuple[DataverseClient, Table, Recording]],
) -> None:
    client, table, session = make()
    assert read(client, table, on_behalf_of=object_id(BOB)) == ["beta", "alpha two", "50% off"]
    assert len(read(client, table)) == 5
    asked = [caller for url, caller in session.seen if "/opportunities" in url]
    assert asked == [object_id(BOB), object_id(BOB), None, None, None]
    assert {caller for url, caller in session.seen if "/opportunities" not in url} == {None}


def test_rows_can_be_asked_for_by_their_ids(make: Callable[..., tuple[DataverseClient, Table, Recording]]) -> None:
    client, table, _ = make()
    ids = [str(row["opportunityid"]) for page in client.rows(table, []) for row in page.rows]
    assert read(client, table, where=among("opportunityid", ids[:2]), on_behalf_of=object_id(ANN)) == ["Alpha"]


def test_who_am_i_on_behalf_of_a_user(make: Callable[..., tuple[DataverseClient, Table, Recording]]) -> None:
    client, _, _ = make()
    assert client.who_am_i(on_behalf_of=object_id(ANN))[0]["UserId"] == ANN


def test_the_privilege_that_is_missing_is_named_with_its_mend(
    make: Callable[..., tuple[DataverseClient, Table, Recording]],
) -> None:
    client, table, _ = make(missing_privileges=frozenset({"prvActOnBehalfOfAnotherUser"}))
    with pytest.raises(AuthError, match="prvActOnBehalfOfAnotherUser") as refused:
        read(client, table, on_behalf_of=object_id(ANN))
    assert "Delegate" in refused.value.hint
