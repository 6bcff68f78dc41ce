"""What doctor finds: each privilege that is missing, each thing that is wrong with the identity, files, clocks, TLS."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from d365sync.app import certificate_of, make_client
from d365sync.dataverse.session import make_session
from d365sync.doctor.check import Check, Verdict
from d365sync.doctor.kept import certificate_lasts, secrets_kept
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.sync.access import lack_of
from tests.certificates import Made
from tests.emulated import NOW, URL, configuration
from tests.examined import examined
from tests.scripted import VirtualTimer
from tests.security import APPLICATION_USER, BASIC, GLOBAL, LOCAL, Security

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
NEEDED = (
    "prvReadEntity",
    "prvReadAttribute",
    "prvReadRelationship",
    "prvReadGoal",
    "prvReadMetric",
    "prvReadGoalRollupQuery",
    "prvReadUser",
    "prvReadTeam",
    "prvReadTransactionCurrency",
    "prvReadOrganization",
    "prvReadOpportunity",
)
Checks = Callable[..., list[Check]]


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    def made(
        *, depths: dict[str, int] | None = None, roles: bool = True, now: dt.datetime = NOW, **options: Any
    ) -> list[Check]:
        org = tmp_path / "org"
        shutil.copytree(SMALL, org, dirs_exist_ok=True)
        if depths is not None:
            security = Security(administrator=False)
            security.role("service", **depths)
            if roles:
                security.give("service", user=APPLICATION_USER)
            security.write(org)
        settings = EmulatorSettings(**options.pop("settings", {}))
        emulator = Emulator.load(org, now=NOW, settings=settings)
        session = options.pop("session", None)
        mode = options.pop("mode", "plan")
        edit = options.pop("edit", None)
        if edit:
            edit(emulator)
        config = configuration(emulator, tmp_path, dataverse=options, writeback={"mode": mode})
        http = session(emulator) if session else emulator.session()
        client = make_client(config, environ={}, session=http, timer=VirtualTimer())
        return examined(config, client, now=now, certificate_until=lambda: certificate_of(config, {}).expires_at)

    return made


def failed(found: list[Check]) -> list[Check]:
    return [check for check in found if check.verdict is Verdict.FAIL]


def named(found: list[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def enough(**changes: int) -> dict[str, int]:
    return {**dict.fromkeys(NEEDED, GLOBAL), **changes}


def without(privilege: str) -> dict[str, int]:
    return {name: depth for name, depth in enough().items() if name != privilege}


# -- privileges (row 47) ---------------------------------------------------------------------------------------------


def test_the_role_of_the_documents_is_enough(checks: Checks) -> None:
    found = checks(depths=enough())
    assert failed(found) == []
    assert named(found, "least privilege").verdict is Verdict.OK


@pytest.mark.parametrize("privilege", NEEDED)
def test_each_privilege_that_is_missing_is_named_with_the_screen_that_gives_it(checks: Checks, privilege: str) -> None:
    found = failed(checks(depths=without(privilege)))
    assert found
    for check in found:
        assert privilege.lower() in check.found.lower()
        assert "Security roles" in check.mend
        assert "set Read to Organization" in check.mend
        assert check.exit_code == 6


def test_writing_needs_its_privilege_in_mode_override_alone(checks: Checks) -> None:
    (check,) = failed(checks(depths=enough(), mode="override"))
    assert (check.name, "prvWriteGoal" in check.found, check.exit_code) == ("write goals", True, 6)
    assert failed(checks(depths=enough(prvWriteGoal=GLOBAL), mode="override")) == []


def test_all_that_define_goals_are_named_at_once(checks: Checks) -> None:
    depths = {name: depth for name, depth in enough().items() if name not in ("prvReadGoal", "prvReadMetric")}
    first, *others = failed(checks(depths=depths))
    assert first.found == "the user's roles lack prvReadGoal, prvReadMetric"
    assert [check.name for check in others] == ["read goal", "read metric", "read rollupfield"]


def test_more_than_the_mode_needs_is_told(checks: Checks) -> None:
    found = checks(depths=enough(prvWriteGoal=BASIC, prvActOnBehalfOfAnotherUser=GLOBAL))
    check = named(found, "least privilege")
    assert check.verdict is Verdict.WARN
    assert "prvActOnBehalfOfAnotherUser, prvWriteGoal" in check.found


def test_a_privilege_that_does_not_reach_the_organization_is_told_apart(checks: Checks) -> None:
    settings = {"change_tracking": {"opportunity": True}}
    (check,) = failed(checks(depths=enough(prvReadOpportunity=BASIC), settings=settings))
    assert check.found == (
        "prvReadOpportunity reaches the user's own rows only (depth Basic, needed: Organization): "
        "changes cannot be tracked"
    )
    assert "set Read to Organization" in check.mend


def test_a_table_of_which_some_rows_are_hidden_is_told_although_it_can_be_read(checks: Checks) -> None:
    found = checks(depths=enough(prvReadOpportunity=LOCAL), settings={"change_tracking": {"opportunity": False}})
    check = named(found, "read opportunity")
    assert (check.verdict, failed(found)) == (Verdict.WARN, [])
    assert "reaches the user's business unit only (depth Local" in check.found


def test_writing_some_goals_only_is_told(checks: Checks) -> None:
    check = named(checks(depths=enough(prvWriteGoal=BASIC), mode="override"), "write goals")
    assert (check.verdict, "depth Basic" in check.found) == (Verdict.WARN, True)


# -- tables ----------------------------------------------------------------------------------------------------------


def test_a_source_column_that_is_missing_is_named(checks: Checks) -> None:
    def lose(emulator: Emulator) -> None:
        for row_id in list(emulator.store.rows("rollupfield")):
            emulator.store.change("rollupfield", row_id, {"sourceattribute": "new_gone"})

    check = named(checks(edit=lose), "goal")
    assert check.verdict is Verdict.WARN
    assert "new_gone" in check.found
    assert "goal" in check.found.rpartition("(")[2]


@pytest.mark.parametrize("tracked", [True, False])
def test_change_tracking_that_is_off_is_told_for_each_table(checks: Checks, tracked: bool) -> None:
    check = named(checks(settings={"change_tracking": {"opportunity": tracked}}), "read opportunity")
    assert check.verdict is (Verdict.OK if tracked else Verdict.WARN)
    assert ("switch on change tracking" in check.mend) is not tracked


# -- the identity ----------------------------------------------------------------------------------------------------


def test_a_user_without_a_role_is_told_so(checks: Checks) -> None:
    check = failed(checks(depths=enough(), roles=False))[0]
    assert check.found.startswith("the user has no security role")
    assert "Edit security roles" in check.mend


def test_a_missing_application_user_is_told_so(checks: Checks) -> None:
    (check,) = failed(checks(settings={"application_user": False}))
    assert (check.name, check.exit_code) == ("WhoAmI", 6)
    assert check.found == "the application has no user in this environment"
    assert "New app user" in check.mend


def test_a_disabled_application_user_is_told_so(checks: Checks) -> None:
    def disable(emulator: Emulator) -> None:
        emulator.store.change("systemuser", APPLICATION_USER, {"isdisabled": True})

    (check,) = failed(checks(edit=disable))
    assert check.found == "the user is disabled, or in no business unit"
    assert "enable it" in check.mend


def test_another_tenant_than_the_organizations_is_named(checks: Checks) -> None:
    other = "00000000-0000-0000-0000-000000000009"
    (check,) = failed(checks(tenant_id=other, authority=f"{URL}/{other}"))
    assert check.name == "sign in"
    assert "the organization belongs to the tenant 5f0c1a4e" in check.mend


def test_a_token_for_another_address_is_told_so(checks: Checks) -> None:
    """As when url is an alias for which no tokens are given out: signing in is well, and Dataverse refuses."""
    (check,) = failed(
        checks(session=lambda emulator: mounted_session(FaultyApp(emulator.app, [Fault("*WhoAmI", expire_token=True)])))
    )
    assert check.name == "WhoAmI"
    assert "does not accept the access token" in check.found


def test_an_expired_secret_is_told_so(checks: Checks) -> None:
    (check,) = failed(checks(settings={"secret_expired": True}))
    assert (check.name, check.exit_code) == ("sign in", 6)
    assert "the client secret has expired" in check.found


def test_an_expiring_certificate_is_told_with_its_days(checks: Checks, tmp_path: Path) -> None:
    until = NOW + dt.timedelta(days=12, hours=1)
    made = Made(until)
    made.write_pem(tmp_path / "k.pem").chmod(0o600)
    found = checks(auth="certificate", certificate="k.pem", settings={"certificates": (made.public,)})
    check = named(found, "certificate")
    assert (check.verdict, "12 days left" in check.found) == (Verdict.WARN, True)
    assert failed(found) == []


@pytest.mark.parametrize(
    ("days", "verdict"),
    [(0, Verdict.FAIL), (1, Verdict.WARN), (29, Verdict.WARN), (31, Verdict.OK)],
)
def test_how_long_a_certificate_lasts(days: int, verdict: Verdict) -> None:
    check = certificate_lasts(NOW + dt.timedelta(days=days), NOW)
    assert check.verdict is verdict
    assert bool(check.mend) == (verdict is not Verdict.OK)


def dated(zone: str) -> Callable[[Emulator], requests.Session]:
    """Return what makes a session with a server that tells its time in a zone."""

    def made(emulator: Emulator) -> requests.Session:
        def app(environ: Any, start_response: Any) -> Any:
            def dating(status: str, headers: list[tuple[str, str]], info: Any = None) -> Any:
                date = f"{NOW:%a, %d %b %Y %H:%M:%S} {zone}".rstrip()
                return start_response(status, [*headers, ("Date", date)], info)

            return emulator.app(environ, dating)

        return mounted_session(app)

    return made


@pytest.mark.parametrize(
    ("minutes", "verdict"),
    [(0, "OK"), (-2, "OK"), (3, "WARN"), (-10, "FAIL"), (10, "FAIL"), (1440, "FAIL"), (-1440, "FAIL")],
)
def test_a_clock_that_is_wrong_is_told(checks: Checks, minutes: int, verdict: str) -> None:
    """Row 9."""
    check = named(checks(session=dated("GMT"), now=NOW + dt.timedelta(minutes=minutes)), "clock")
    assert check.verdict == verdict
    assert bool(check.mend) == (verdict != "OK")


@pytest.mark.parametrize("zone", ["-0000", "+0000", ""])
def test_a_servers_clock_that_names_no_zone_is_read_as_utc(checks: Checks, zone: str) -> None:
    assert named(checks(session=dated(zone)), "clock").verdict is Verdict.OK


def test_a_server_that_fails_at_the_trial_update_fails_that_check_alone(checks: Checks) -> None:
    fault = Fault("PATCH *", status=503)
    found = checks(mode="override", session=lambda emulator: mounted_session(FaultyApp(emulator.app, [fault])))
    assert [(check.name, check.exit_code) for check in failed(found)] == [("write goals", 5)]
    assert "503" in failed(found)[0].found


# -- the network (row 32) --------------------------------------------------------------------------------------------


def test_an_unreachable_host_and_an_untrusted_one_are_told_apart(checks: Checks, tmp_path: Path) -> None:
    emulator = Emulator.load(SMALL, now=NOW)
    with emulator.serve() as (url, ca_file):
        place = {"url": url, "authority": emulator.authority(url)}
        (check,) = failed(checks(session=lambda _emulator: make_session(None), **place))
        assert (check.name, "TLS" in check.found, "ca_bundle" in check.mend) == ("TLS", True, True)
        trusted = configuration(emulator, tmp_path, dataverse=place)
        client = make_client(trusted, environ={}, session=make_session(str(ca_file)))
        assert client.who_am_i()
    (check,) = failed(checks(session=lambda _emulator: make_session(None), **place))
    assert "Connection refused" in check.found
    assert "network" in check.mend
    assert check.exit_code == 5


# -- files (row 33) --------------------------------------------------------------------------------------------------


def test_secrets_that_others_may_read_are_told(checks: Checks, tmp_path: Path) -> None:
    emulator = Emulator.load(SMALL, now=NOW)
    secret = tmp_path / "secret"
    secret.write_text(emulator.credentials.client_secret, encoding="utf-8")
    secret.chmod(0o644)
    check = named(checks(client_secret="file:secret"), "client secret file")
    assert (check.verdict, check.mend) == (Verdict.WARN, f"chmod 600 {secret}")
    assert "everybody" in check.found
    secret.chmod(0o640)
    assert "its group" in named(checks(client_secret="file:secret"), "client secret file").found
    secret.chmod(0o600)
    assert not [one for one in checks(client_secret="file:secret") if one.name == "client secret file"]


def test_a_literal_secret_is_told(checks: Checks) -> None:
    assert named(checks(), "client secret").verdict is Verdict.WARN


@pytest.mark.parametrize("proxy", ["", "http://clerk:known@proxy.test:3128"])
def test_a_configuration_with_a_proxys_password_is_its_owners_alone(proxy: str, tmp_path: Path) -> None:
    file = tmp_path / "d365sync.toml"
    file.write_text("", encoding="utf-8")
    file.chmod(0o640)
    dataverse = {"client_secret": "env:SECRET", "proxy": proxy}
    made = configuration(Emulator.load(SMALL, now=NOW), tmp_path, dataverse=dataverse)
    config = made.model_copy(update={"path": file})
    assert [check.name for check in secrets_kept(config)] == (["configuration file"] if proxy else [])


# -- texts -----------------------------------------------------------------------------------------------------------


def test_a_refusal_without_the_usual_words_stays_as_it_is() -> None:
    from d365sync.errors import AuthError

    assert lack_of(AuthError("GET goals: something else (HTTP 403)", status=403)) is None
