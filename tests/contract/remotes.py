"""The Dataverses that the contract suite is run against: the emulator in process, over a socket, and a real one.

A real environment is named by environment variables, and asked only when ``-m verified`` selects it:

- ``D365SYNC_VERIFIED_URL``, ``D365SYNC_VERIFIED_TENANT_ID``, ``D365SYNC_VERIFIED_CLIENT_ID``,
  ``D365SYNC_VERIFIED_CLIENT_SECRET``: where it is, and how to sign in; these tests only read
- ``D365SYNC_VERIFIED_AUTHORITY``: where to sign in, if not at ``https://login.microsoftonline.com/<tenant>``
- ``D365SYNC_VERIFIED_SANDBOX``: the ``OrganizationId`` of an environment in which tests may also make and remove
  accounts and goals named "d365sync contract test"; another organization is refused
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msal
import pytest
import requests

from d365sync.emulator import Emulator
from tests.security import object_id
from tests.unit.emulating import NOW, SMALL

VARIABLES = tuple(f"D365SYNC_VERIFIED_{name}" for name in ("URL", "TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"))
AUTHORITY = "D365SYNC_VERIFIED_AUTHORITY"
SANDBOX = "D365SYNC_VERIFIED_SANDBOX"
IN_PROCESS = "https://emulator.test"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOWHERE = "00000000-0000-4000-8000-00000000dead"
NAME = "d365sync contract test"


@dataclass(frozen=True)
class Remote:
    """A signed-in session with one organization; ``may_write`` says whether rows may be made and removed."""

    origin: str
    session: requests.Session
    may_write: bool

    @property
    def root(self) -> str:
        """The service root, with a slash at the end."""
        return f"{self.origin}/api/data/v9.2/"

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call an address below the service root, or an absolute one."""
        address = path if path.startswith("https:") else self.root + path
        return self.session.request(method, address, timeout=60, allow_redirects=False, **options)

    def need_sandbox(self) -> None:
        """Skip the test unless rows may be made and removed here."""
        if not self.may_write:
            pytest.skip("this organization is not the sandbox named by D365SYNC_VERIFIED_SANDBOX")

    def new_goal(self) -> dict[str, Any]:
        """Return what a goal of our own for January 1999, over a metric of amounts, is made of."""
        amounts = "statecode eq 0 and isamount eq true and amountdatatype eq 0"
        metrics = self.get("metrics", select="metricid", filter=amounts, top="1")["value"]
        if not metrics:
            pytest.skip("this organization has no metric of amounts of money")
        return {
            "title": NAME,
            "metricid@odata.bind": f"/metrics({metrics[0]['metricid']})",
            "goalownerid_systemuser@odata.bind": f"/systemusers({self.get('WhoAmI')['UserId']})",
            "isfiscalperiodgoal": False,
            "goalstartdate": "1999-01-01T00:00:00Z",
            "goalenddate": "1999-01-31T00:00:00Z",
            "targetmoney": 1000,
        }

    def get(self, path: str, *, prefer: str = "", **params: str) -> dict[str, Any]:
        """GET a JSON document."""
        headers = {"Prefer": prefer} if prefer else {}
        answer = self.call("GET", path, params={f"${name}": text for name, text in params.items()}, headers=headers)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


def error_of(answer: Any) -> dict[str, str]:
    """Return the error an answer's body tells."""
    document = answer.json()["error"]
    assert isinstance(document["message"], str)
    return dict(document)


def missing(environ: Mapping[str, str] = os.environ) -> str:
    """Say which variables a real environment still needs; empty when none."""
    absent = [name for name in VARIABLES if not environ.get(name)]
    return f"no environment to verify against: {', '.join(absent)} not set" if absent else ""


def _emulator() -> Emulator:
    """The small org, whose users have signed in before, so that they are known by their object ids too."""
    emulator = Emulator.load(SMALL, now=NOW)
    for user_id in list(emulator.store.rows("systemuser")):
        emulator.store.change("systemuser", user_id, {"azureactivedirectoryobjectid": object_id(user_id)})
    return emulator


@contextmanager
def in_process() -> Iterator[Remote]:
    """The emulator behind a session, without a socket."""
    emulator = _emulator()
    with emulator.session() as session:
        known = emulator.credentials
        _sign_in(session, IN_PROCESS, emulator.authority(IN_PROCESS), known.client_id, known.client_secret)
        yield Remote(IN_PROCESS, session, may_write=True)


@contextmanager
def over_a_socket() -> Iterator[Remote]:
    """The emulator over TLS."""
    emulator = _emulator()
    with emulator.serve() as (origin, ca_bundle), _session(ca_bundle) as session:
        known = emulator.credentials
        _sign_in(session, origin, emulator.authority(origin), known.client_id, known.client_secret)
        yield Remote(origin, session, may_write=True)


@contextmanager
def verified(environ: Mapping[str, str] = os.environ) -> Iterator[Remote]:
    """The real environment that the variables name."""
    url, tenant_id, client_id, secret = (environ[name] for name in VARIABLES)
    with _session(None) as session:
        authority = environ.get(AUTHORITY) or f"https://login.microsoftonline.com/{tenant_id}"
        public = AUTHORITY not in environ
        _sign_in(session, url.rstrip("/"), authority, client_id, secret, instance_discovery=public)
        remote = Remote(url.rstrip("/"), session, may_write=False)
        organization = remote.get("WhoAmI")["OrganizationId"]
        yield Remote(remote.origin, session, may_write=organization == environ.get(SANDBOX, "").lower())


def _session(ca_bundle: Path | None) -> requests.Session:
    session = requests.Session()
    if ca_bundle is not None:
        session.verify = str(ca_bundle)
        session.trust_env = False
    return session


def _sign_in(
    session: requests.Session,
    origin: str,
    authority: str,
    client_id: str,
    secret: str,
    *,
    instance_discovery: bool = False,
) -> None:
    app = msal.ConfidentialClientApplication(
        client_id,
        client_credential=secret,
        authority=authority,
        instance_discovery=instance_discovery,
        http_client=session,
    )
    answer = app.acquire_token_for_client([f"{origin}/.default"])
    assert "access_token" in answer, answer.get("error_description")
    session.headers.update(
        {
            "Authorization": f"Bearer {answer['access_token']}",
            "Accept": "application/json",
            "OData-MaxVersion": "4.0",
            "OData-Version": "4.0",
        }
    )
