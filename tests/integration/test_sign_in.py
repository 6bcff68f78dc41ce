"""Every way in, with real MSAL against the emulator's authority, and what goes wrong on each."""

from __future__ import annotations

import dataclasses
import datetime as dt
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
import requests
from keyring.backend import KeyringBackend

from d365sync.app import certificate_of, make_client
from d365sync.dataverse.auth import SignIn
from d365sync.dataverse.client import DataverseClient
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import InProcessAdapter, mounted_session
from d365sync.errors import AuthError, ConfigError, RetryableError
from tests.certificates import Made
from tests.emulated import NOW, URL, configuration
from tests.scripted import VirtualTimer

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
IMDS = "http://169.254.169.254"
CERTIFICATE = Made()
NOBODY = "00000000-0000-0000-0000-000000000009"


def load(**settings: Any) -> Emulator:
    return Emulator.load(SMALL, now=NOW, settings=EmulatorSettings(**settings))


def client(
    emulator: Emulator,
    folder: Path,
    *,
    session: requests.Session | None = None,
    say: Callable[[str], None] | None = None,
    environ: dict[str, str] | None = None,
    **dataverse: object,
) -> DataverseClient:
    config = configuration(emulator, folder, dataverse=dataverse)
    timer = VirtualTimer()
    return make_client(config, environ=environ or {}, session=session or emulator.session(), say=say, timer=timer)


def who(*arguments: Any, **options: Any) -> object:
    return client(*arguments, **options).who_am_i()[0]["UserId"]


# -- secrets ---------------------------------------------------------------------------------------------------------


def test_it_is_known_when_the_token_in_use_ends(tmp_path: Path) -> None:
    emulator = load()
    signed_in = client(emulator, tmp_path)
    assert signed_in.transport.token_expires_at is None
    signed_in.who_am_i()
    left = (signed_in.transport.token_expires_at or dt.datetime.now(dt.UTC)) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=30) < left <= dt.timedelta(hours=2)


def test_a_secret_signs_in(tmp_path: Path) -> None:
    assert who(load(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_secret": "wrong"}, "AADSTS7000215"),
        ({"client_id": NOBODY}, "AADSTS700016"),
        ({"authority": f"{URL}/{NOBODY}"}, "AADSTS90002|not possible"),
        ({"resource": "https://other.crm.dynamics.com"}, "does not know this organization"),
    ],
)
def test_refusals_say_what_is_wrong(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(AuthError, match=words):
        who(load(), tmp_path, **changes)


def test_an_expired_secret_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="the client secret has expired") as caught:
        who(load(secret_expired=True), tmp_path)
    assert "new secret" in caught.value.hint


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority = 1  # type: ignore[assignment]

    def __init__(self, **entries: str) -> None:
        self.entries = entries

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[f"{service}/{username}"] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[f"{service}/{username}"]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_a_secret_of_the_keyring_signs_in(tmp_path: Path, ring: Ring) -> None:
    emulator = load()
    ring.set_password("d365sync/contoso", "service", emulator.credentials.client_secret)
    assert who(emulator, tmp_path, client_secret="keyring:d365sync/contoso/service")
    with pytest.raises(ConfigError, match="entry d365sync/other of the keyring"):
        who(emulator, tmp_path, client_secret="keyring:d365sync/other")
    with pytest.raises(ConfigError, match="does not name an entry"):
        who(emulator, tmp_path, client_secret="keyring:d365sync")


# -- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["", "öffne dich"], ids=["bare", "with password"])
@pytest.mark.parametrize("chain", [False, True], ids=["x5t", "x5c"])
@pytest.mark.parametrize("kind", ["pem", "pfx"])
def test_a_certificate_signs_in(tmp_path: Path, kind: str, password: str, chain: bool) -> None:
    path = tmp_path / f"key.{kind}"
    CERTIFICATE.write_pem(path, password) if kind == "pem" else CERTIFICATE.write_pfx(path, password)
    (tmp_path / "password").write_text(password, encoding="utf-8")
    options = {"auth": "certificate", "certificate": path.name, "client_secret": "", "certificate_chain": chain}
    options |= {"certificate_password": "file:password"} if password else {}
    assert who(load(certificates=(CERTIFICATE.public,)), tmp_path, **options)
    with pytest.raises(AuthError, match="certificate is not accepted"):
        who(load(), tmp_path, **options)


def refused(folder: Path, name: str, password: str = "") -> str:
    config = configuration(
        load(), folder, dataverse={"auth": "certificate", "certificate": name, "certificate_password": password}
    )
    with pytest.raises(ConfigError) as caught:
        certificate_of(config, {})
    text = f"{caught.value} {caught.value.hint}"
    assert name in text
    assert password not in text or not password
    assert len(str(caught.value).splitlines()) == 1
    return text


@pytest.mark.parametrize("kind", ["pem", "pfx"])
def test_a_wrong_or_missing_password_is_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"key.{kind}"
    CERTIFICATE.write_pem(path, "right") if kind == "pem" else CERTIFICATE.write_pfx(path, "right")
    assert "the password is wrong" in refused(tmp_path, path.name, "not the right one")
    assert "has a password" in refused(tmp_path, path.name)


def test_what_is_no_certificate_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    (tmp_path / "public.pem").write_bytes(CERTIFICATE.public)
    (tmp_path / "foreign.pem").write_bytes(CERTIFICATE.public + Made().private())
    Made(elliptic=True).write_pem(tmp_path / "curve.pem")
    assert "holds no certificate" in refused(tmp_path, "empty.pem")
    assert "holds no private key" in refused(tmp_path, "public.pem")
    assert "does not belong" in refused(tmp_path, "foreign.pem")
    assert "no RSA key" in refused(tmp_path, "curve.pem")
    assert "cannot be read" in refused(tmp_path, "gone.pfx")
    CERTIFICATE.write_pem(tmp_path / "bare.pem")
    assert "has no password" in refused(tmp_path, "bare.pem", "needless")


def test_the_order_in_a_pem_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_bytes(Made().public + CERTIFICATE.private() + CERTIFICATE.public)
    options = {"auth": "certificate", "certificate": "k.pem"}
    assert who(load(certificates=(CERTIFICATE.public,)), tmp_path, **options)


# -- managed identities ----------------------------------------------------------------------------------------------


def machine(emulator: Emulator, *addresses: str) -> requests.Session:
    session = emulator.session()
    for address in addresses:
        session.mount(address, InProcessAdapter(emulator.app))
    return session


BARE = {"auth": "managed_identity", "client_secret": "", "tenant_id": "", "client_id": "", "authority": ""}


@pytest.mark.parametrize("user_assigned", [False, True])
def test_a_machines_identity_signs_in(tmp_path: Path, user_assigned: bool) -> None:
    emulator = load()
    options = {**BARE, "client_id": emulator.credentials.client_id} if user_assigned else BARE
    assert who(emulator, tmp_path, session=machine(emulator, IMDS), **options)


def test_an_app_services_identity_signs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{URL}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of this app")
    assert who(load(), tmp_path, **BARE)


def test_the_endpoint_is_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://identity.test")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    emulator = load()
    assert who(emulator, tmp_path, session=machine(emulator, "http://identity.test"), **BARE)


def test_an_identity_that_is_not_assigned_is_named(tmp_path: Path) -> None:
    emulator = load()
    with pytest.raises(AuthError, match=f"{NOBODY}.*Identity not found") as caught:
        who(emulator, tmp_path, session=machine(emulator, IMDS), **{**BARE, "client_id": NOBODY})
    assert "assign it" in caught.value.hint


def test_a_managed_identitys_token_is_renewed_when_refused(tmp_path: Path) -> None:
    emulator = load()
    app = FaultyApp(emulator.app, [Fault("GET */WhoAmI", nth=(1,), expire_token=True)])
    session = mounted_session(app)
    session.mount(IMDS, InProcessAdapter(app))
    assert who(emulator, tmp_path, session=session, **BARE)


# -- a person at a console -------------------------------------------------------------------------------------------

PERSON = {"auth": "device_code", "client_secret": "", "sign_in_cache": "file"}


def test_a_person_signs_in_once(tmp_path: Path) -> None:
    emulator = load(device_answers=("authorization_pending", "slow_down", "authorization_pending"))
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert who(emulator, tmp_path, say=said.append, **PERSON)
    (message,) = said
    assert f"{URL}/devicelogin" in message
    cache = tmp_path / "sign-in.cache"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert who(emulator, tmp_path, **PERSON), "remembered, by another process with nobody at the console"


def test_how_long_to_wait_is_the_services_to_say(tmp_path: Path) -> None:
    emulator, timer = load(device_answers=("authorization_pending", "slow_down")), VirtualTimer()
    config = configuration(emulator, tmp_path, dataverse=PERSON)
    make_client(config, environ={}, session=emulator.session(), say=lambda _text: None, timer=timer).who_am_i()
    assert timer.waits == [5, 5, 10], "five seconds longer after slow_down"


@pytest.mark.parametrize(
    ("answer", "words"), [("authorization_declined", "declined"), ("expired_token", "the code expired")]
)
def test_a_person_may_decline_or_be_late(tmp_path: Path, answer: str, words: str) -> None:
    with pytest.raises(AuthError, match=words):
        who(load(device_answers=(answer,)), tmp_path, say=lambda _text: None, **PERSON)


def test_a_service_whom_nobody_signed_in_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="nobody has signed in") as caught:
        who(load(), tmp_path, **PERSON)
    assert "d365sync doctor" in caught.value.hint


def test_a_sign_in_that_was_revoked_is_asked_for_again(tmp_path: Path) -> None:
    emulator = load(token_lifetime_s=200)
    assert who(emulator, tmp_path, say=lambda _text: None, **PERSON)
    emulator.app.tokens.people.forget()
    with pytest.raises(AuthError, match="revoked") as caught:
        who(emulator, tmp_path, **PERSON)
    assert "console" in caught.value.hint
    said: list[str] = []
    assert who(emulator, tmp_path, say=said.append, **PERSON)
    assert len(said) == 1


def test_the_person_is_who_dataverse_sees(tmp_path: Path) -> None:
    emulator = load()
    person = next(iter(emulator.store.rows("systemuser")))
    emulator.store.change("systemuser", person, {"azureactivedirectoryobjectid": NOBODY})
    emulator.store.settings = dataclasses.replace(emulator.store.settings, person=NOBODY)
    emulator = Emulator(emulator.store, emulator.clock, emulator.credentials)
    assert who(emulator, tmp_path, say=lambda _text: None, **PERSON) == person


def test_sign_ins_that_others_may_read_are_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "sign-in.cache"
    cache.write_text("{}", encoding="utf-8")
    cache.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        who(load(), tmp_path, say=lambda _text: None, **PERSON)


def test_without_a_store_for_encryption_nothing_is_kept_in_the_clear_unasked(tmp_path: Path) -> None:
    """Where the platform has a store, the sign-in goes there, and not into the folder."""
    with pytest.raises((ConfigError, AuthError), match=r"no store for encrypted|nobody has signed in") as caught:
        who(load(), tmp_path, **{**PERSON, "sign_in_cache": "encrypted"})
    if isinstance(caught.value, ConfigError):
        assert '"file"' in caught.value.hint
        assert '"memory"' in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_sign_in_in_memory_leaves_no_file(tmp_path: Path) -> None:
    assert who(load(), tmp_path, say=lambda _text: None, **{**PERSON, "sign_in_cache": "memory"})
    assert list(tmp_path.iterdir()) == []


# -- clouds and AD FS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "cloud", "authority"),
    [
        ("https://contoso.crm4.dynamics.com", "", "https://login.microsoftonline.com"),
        ("https://contoso.api.crm9.dynamics.com", "", "https://login.microsoftonline.com"),
        ("https://contoso.crm.microsoftdynamics.us", "", "https://login.microsoftonline.us"),
        ("https://contoso.crm.appsplatform.us", "", "https://login.microsoftonline.us"),
        ("https://contoso.crm.dynamics.cn", "", "https://login.partner.microsoftonline.cn"),
        ("https://crm.contoso.com", "gcc_high", "https://login.microsoftonline.us"),
    ],
)
def test_the_cloud_follows_from_the_address_or_is_set(url: str, cloud: str, authority: str) -> None:
    assert SignIn(url, "tenant", "app", cloud=cloud).authority_url == f"{authority}/tenant"


@pytest.mark.parametrize(
    "options",
    [
        {"client_secret": "the emulator's"},
        {"auth": "certificate", "certificate": "k.pem", "client_secret": ""},
        PERSON,
    ],
    ids=["secret", "certificate", "device code"],
)
def test_ad_fs_signs_in_for_a_server_with_a_path_and_an_older_version(
    tmp_path: Path, options: dict[str, object]
) -> None:
    emulator = load(certificates=(CERTIFICATE.public,))
    CERTIFICATE.write_pem(tmp_path / "k.pem")
    known = {"client_secret": emulator.credentials.client_secret} if options.get("client_secret") else {}
    place = {"url": f"{URL}/Contoso", "authority": f"{URL}/adfs", "api_version": "v9.1", "tenant_id": ""}
    made = client(emulator, tmp_path, say=lambda _text: None, **{**options, **known, **place})
    assert made.who_am_i()[0]["UserId"]
    assert made.api_root == f"{URL}/Contoso/api/data/v9.1"


# -- when things fail ------------------------------------------------------------------------------------------------

TOKEN = "POST */oauth2/v2.0/token"


def counted(emulator: Emulator, *faults: Fault) -> tuple[requests.Session, list[str]]:
    """Return a session with faults, and the list of the paths it asks for."""
    asked: list[str] = []
    app = FaultyApp(emulator.app, faults)

    def counting(environ: Any, start_response: Any) -> Any:
        asked.append(environ["PATH_INFO"])
        return app(environ, start_response)

    return mounted_session(counting), asked


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_sign_in_service_is_left_alone_for_as_long_as_it_asks(tmp_path: Path, status: int) -> None:
    """Row 8: what the service asks for is waited for, and MSAL's own memory of failures keeps the rest off the wire."""
    emulator = load()
    session, asked = counted(emulator, Fault(TOKEN, status=status, retry_after=900))
    with pytest.raises(RetryableError) as caught:
        client(emulator, tmp_path, session=session).who_am_i()
    assert caught.value.exit_code == 5
    assert caught.value.retry_after_s == 900
    assert sum(path.endswith("token") for path in asked) == 1
    assert not [path for path in asked if "/api/data/" in path]


def test_a_token_that_dataverse_refuses_for_ever_is_renewed_once(tmp_path: Path) -> None:
    """Row 7."""
    emulator = load()
    session, asked = counted(emulator, Fault("GET */WhoAmI", expire_token=True))
    with pytest.raises(AuthError, match="does not accept the access token"):
        client(emulator, tmp_path, session=session).who_am_i()
    assert sum(path.endswith("token") for path in asked) == 2
    assert sum(path.endswith("WhoAmI") for path in asked) == 2


@pytest.mark.parametrize("page", [b"<html>Welcome to the network. Please sign in.</html>", b"[" * 100_000, b"[]", b"7"])
def test_a_login_page_instead_of_json_is_no_sign_in(tmp_path: Path, page: bytes) -> None:
    emulator = load()

    def portal(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"].endswith("/token"):
            start_response("200 OK", [("Content-Type", "text/html")])
            return [page]
        return emulator.app(environ, start_response)

    with pytest.raises(RetryableError, match="something else than a JSON object"):
        client(emulator, tmp_path, session=mounted_session(portal)).who_am_i()


def test_an_assertion_of_a_wrong_clock_is_explained() -> None:
    """Row 9. MSAL dates assertions by this machine's clock, so the answer is given here."""
    from d365sync.dataverse.auth.answers import refusal

    error = refusal({"error": "invalid_client", "error_description": "AADSTS700024: Client assertion is not within…"})
    assert "time server" in error.hint


def test_the_date_of_an_expired_secret_is_told_where_the_answer_tells_it() -> None:
    from d365sync.dataverse.auth.answers import refusal

    told = "AADSTS7000222: The keys expired on 2026-10-31. Trace ID: x Timestamp: 2026-11-20 09:00:00Z"
    assert "2026-10-31" in str(refusal({"error": "invalid_client", "error_description": told}))
    silent = "AADSTS7000222: The keys are expired. Trace ID: x Timestamp: 2026-11-20 09:00:00Z"
    assert "2026" not in str(refusal({"error": "invalid_client", "error_description": silent}))


def test_the_expiry_of_a_certificate_can_be_read(tmp_path: Path) -> None:
    until = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
    Made(until).write_pem(tmp_path / "k.pem")
    config = configuration(load(), tmp_path, dataverse={"auth": "certificate", "certificate": "k.pem"})
    assert certificate_of(config, {}).expires_at == until
