"""The emulator as a process: over a real socket, with real MSAL, trusting its own CA."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import msal
import pytest
import requests

from d365sync.emulator import Emulator
from d365sync.emulator.state import load_state

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
COMMAND = [sys.executable, "-c", "from d365sync.cli.main import main; main()", "emulator", "serve"]
DEAL = "opportunities(eeeeeeee-0000-4000-8000-000000000001)"


class Served:
    """A running emulator and a signed-in session."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.ready: dict[str, str] = json.loads(process.stdout.readline())
        self.session = requests.Session()
        self.session.verify = self.ready["ca_bundle"]
        self.session.trust_env = False
        self.sign_in()

    def sign_in(self) -> None:
        app = msal.ConfidentialClientApplication(
            self.ready["client_id"],
            client_credential=self.ready["client_secret"],
            authority=self.ready["authority"],
            instance_discovery=False,
            http_client=self.session,
        )
        token = app.acquire_token_for_client([f"{self.ready['url']}/.default"])
        self.session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("https:") else f"{self.ready['url']}/api/data/v9.2/{path}"
        return self.session.request(method, url, timeout=20, **options)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.session.close()
        return self.process.wait(10)


@contextmanager
def served(*arguments: str | Path, errors: TextIO | None = None) -> Iterator[Served]:
    command = [*COMMAND, "--org", str(SMALL), "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield Served(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_it_serves_over_tls_on_kept_open_connections_and_stops_when_told() -> None:
    with served("--now", "2026-05-01T12:00:00Z", "--page-size", "2") as emulator:
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(emulator.ready["url"], verify=True, timeout=5)
        row = emulator.call("GET", DEAL).json()
        assert row["createdon"] == "2026-05-01T12:00:00Z"
        for name in ("one", "two"):
            assert emulator.call("PATCH", DEAL, json={"name": name}).status_code == 204
        tag = emulator.call("GET", DEAL).headers["ETag"]
        assert emulator.call("GET", DEAL, headers={"If-None-Match": tag}).status_code == 304
        page = emulator.call("GET", "opportunities?$select=name").json()
        assert len(page["value"]) == 2
        assert emulator.call("GET", page["@odata.nextLink"]).status_code == 200
        folder = Path(emulator.ready["ca_bundle"]).parent
        began = time.monotonic()
        assert emulator.stop() == 0
        assert time.monotonic() - began < 5
        assert not folder.exists()


def test_limits_and_jobs_are_chosen_when_it_is_served_and_a_wrong_limit_is_refused() -> None:
    options = ("--limit", "requests=2", "--dop-hint", "9", "--native-rollup")
    with served("--now", "2026-05-01T12:00:00Z", *options) as emulator:
        answers = [emulator.call("GET", "asyncoperations?$select=postponeuntil") for _ in range(3)]
        assert [one["postponeuntil"] for one in answers[0].json()["value"]] == ["2026-05-02T12:00:00Z"]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[0].headers["x-ms-dop-hint"] == "9"
        assert 295 <= int(answers[2].headers["Retry-After"]) <= 300
    wrong = subprocess.run(
        [*COMMAND, "--org", str(SMALL), "--limit", "request=2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2
    assert "concurrent" in wrong.stderr


TIDY = {
    "JobName": "Tidy",
    "QuerySet": [
        {
            "@odata.type": "Microsoft.Dynamics.CRM.FetchExpression",
            "Query": '<fetch><entity name="opportunity"/></fetch>',
        }
    ],
}
"""A bulk deletion of every deal."""
RAN, WAITS = (3, 30), (1, 10)


def test_jobs_run_though_the_served_clock_stands_still(tmp_path: Path) -> None:
    options = ("--native-rollup", "--state", tmp_path / "state.json")

    def job(emulator: Served, path: str) -> tuple[int, int]:
        row = emulator.call("GET", f"{path}?$select=statecode,statuscode").json()
        return row["statecode"], row["statuscode"]

    def tidy(emulator: Served, start: str) -> str:
        made = emulator.call("POST", "BulkDelete", json={**TIDY, "StartDateTime": start})
        return f"asyncoperations({made.json()['JobId']})"

    with served("--now", "2001-05-01T12:00:00Z", *options) as emulator:
        assert job(emulator, tidy(emulator, dt.datetime.now(dt.UTC).isoformat())) == RAN, "now, by the client's clock"
        put_forward, left = (tidy(emulator, "9000-01-01T00:00:00Z") for _ in range(2))
        (rollup,) = emulator.call("GET", "asyncoperations?$filter=operationtype eq 40").json()["value"]
        waiting = [put_forward, f"asyncoperations({rollup['asyncoperationid']})"]
        assert [job(emulator, one) for one in waiting] == [WAITS, WAITS]
        for one in waiting:
            emulator.call("PATCH", one, json={"postponeuntil": "2001-05-01T12:00:00Z"})
        assert [job(emulator, one) for one in waiting] == [RAN, RAN]
        goals = emulator.call("GET", "goals?$select=lastrolledupdate&$filter=lastrolledupdate ne null").json()["value"]
        assert {row["lastrolledupdate"] for row in goals} == {"2001-05-01T12:00:00Z"}
        assert job(emulator, left) == WAITS
        assert emulator.stop() == 0
    later = Emulator.load(SMALL, now=dt.datetime(9000, 1, 1, tzinfo=dt.UTC))
    load_state(later.store, tmp_path / "state.json")
    later.run_jobs()
    assert later.store.rows("asyncoperation")[left[-37:-1]]["statecode"] == RAN[0], "with a later --now"


def test_an_emulator_object_serves_itself() -> None:
    emulator = Emulator.load(SMALL)
    with emulator.serve() as (url, ca_file):
        response = requests.get(f"{url}/api/data/v9.2/WhoAmI", verify=str(ca_file), timeout=20)
        assert response.status_code == 401
        assert emulator.authority(url) in response.headers["WWW-Authenticate"]


def test_parallel_writers_each_find_their_own_row() -> None:
    with served() as emulator:

        def write(number: int) -> tuple[int, str]:
            path = f"accounts({number:08d}-0000-4000-8000-000000000000)"
            status = emulator.call("PATCH", path, json={"name": str(number)}).status_code
            return status, emulator.call("GET", f"{path}?$select=name").json()["name"]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(write, range(40))) == [(204, str(number)) for number in range(40)]
        assert emulator.stop(signal.SIGINT) == 0


def test_state_outlives_the_process(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with served("--state", state) as emulator:
        prefer = {"Prefer": "odata.track-changes"}
        link = emulator.call("GET", "opportunities?$select=name", headers=prefer).json()["@odata.deltaLink"]
        emulator.call("PATCH", DEAL, json={"name": "kept", "estimatedvalue": 12.5})
        emulator.call("DELETE", "opportunities(eeeeeeee-0000-4000-8000-000000000002)")
        before = emulator.call("GET", DEAL).json()
        assert emulator.stop() == 0
    with served("--state", state) as emulator:
        after = emulator.call("GET", DEAL).json()
        assert {key: after[key] for key in after if key != "@odata.context"} == {
            key: before[key] for key in before if key != "@odata.context"
        }
        delta = emulator.call("GET", link.partition("/api/data/v9.2/")[2]).json()["value"]
        assert [entry.get("name", entry.get("reason")) for entry in delta] == ["kept", "deleted"]
        assert emulator.stop() == 0
    state.write_text("{}")
    refused = subprocess.run(
        [*COMMAND, "--org", str(SMALL), "--port", "0", "--state", str(state)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_broken_org_folder_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "goals.json").write_text('[{"goalid": "x"}]')
    done = subprocess.run([*COMMAND, "--org", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "goals.json: row 0, column 'goalid'" in done.stderr
    assert "Traceback" not in done.stderr


def test_faults_strike_where_the_file_says(tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text(
        """
        [[fault]]
        match = "GET goals"
        nth = 1
        status = 429
        retry_after = 7
        code = "0x80072322"

        [[fault]]
        match = "GET metrics"
        nth = 1
        cut_after_bytes = 10

        [[fault]]
        match = "PATCH accounts*"
        nth = 1
        close = true

        [[fault]]
        match = "GET teams"
        duplicate_page = true

        [[fault]]
        match = "GET leads"
        nth = 1
        expire_token = true

        [[fault]]
        match = "GET opportunities*deltatoken*"
        nth = 1
        expire_delta = true

        [[fault]]
        match = "GET products"
        delay_s = 0.3
        """
    )
    told = tmp_path / "told"
    with told.open("w") as errors, served("--faults", faults, errors=errors) as emulator:
        throttled = emulator.call("GET", "goals")
        assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "7")
        assert throttled.json()["error"]["code"] == "0x80072322"
        assert emulator.call("GET", "goals").status_code == 200
        with pytest.raises(requests.exceptions.RequestException):
            emulator.call("GET", "metrics")
        path = "accounts(99999999-0000-4000-8000-000000000001)"
        with pytest.raises(requests.exceptions.ConnectionError):
            emulator.call("PATCH", path, json={"name": "done all the same"})
        assert emulator.call("GET", path).json()["name"] == "done all the same"
        assert len(emulator.call("GET", "teams").json()["value"]) == 2
        prefer = {"Prefer": "odata.track-changes"}
        link = emulator.call("GET", "opportunities?$select=name", headers=prefer).json()["@odata.deltaLink"]
        assert emulator.call("GET", link).json()["error"]["code"] == "0x80044352"
        assert emulator.call("GET", link).status_code == 200
        began = time.monotonic()
        assert emulator.call("GET", "products").status_code == 200
        assert time.monotonic() - began >= 0.3
        assert emulator.call("GET", "leads").status_code == 401
        assert emulator.call("GET", "goals").status_code == 401, "the token stays expired"
        emulator.sign_in()
        assert emulator.call("GET", "leads").status_code == 200
        assert emulator.stop() == 0
    assert "fault 'GET goals' struck 1 times\nfault 'GET metrics' struck 1 times\n" in told.read_text()
