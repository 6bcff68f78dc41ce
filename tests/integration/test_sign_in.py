"""Real MSAL against the emulator's token endpoint: secret, certificate, and what goes wrong."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from d365sync.app import make_client
from d365sync.dataverse.auth import authority_for
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.errors import AuthError, ConfigError
from tests.emulated import NOW, URL, configuration

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"


def certificate(folder: Path) -> tuple[Path, bytes]:
    """Make a key and certificate in one PEM; return its path and the public part."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2090, 1, 1, tzinfo=dt.UTC))
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "d365sync.pem"
    path.write_bytes(private + public)
    return path, public


def who_am_i(emulator: Emulator, folder: Path, **dataverse: object) -> object:
    config = configuration(emulator, folder, dataverse=dataverse)
    return make_client(config, environ={}, session=emulator.session()).who_am_i()[0]["UserId"]


def test_a_secret_signs_in(tmp_path: Path) -> None:
    assert who_am_i(Emulator.load(SMALL, now=NOW), tmp_path)


def test_a_certificate_signs_in_and_another_does_not(tmp_path: Path) -> None:
    path, public = certificate(tmp_path)
    emulator = Emulator.load(SMALL, now=NOW, settings=EmulatorSettings(certificates=(public,)))
    options = {"auth": "certificate", "certificate": path.name, "client_secret": ""}
    assert who_am_i(emulator, tmp_path, **options)
    certificate(tmp_path)
    with pytest.raises(AuthError, match="certificate is not accepted"):
        who_am_i(emulator, tmp_path, **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_secret": "wrong"}, "AADSTS7000215"),
        ({"client_id": "00000000-0000-0000-0000-000000000009"}, "AADSTS700016"),
        ({"authority": f"{URL}/00000000-0000-0000-0000-000000000009"}, "AADSTS90002|not possible"),
    ],
)
def test_refusals_say_what_is_wrong(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(AuthError, match=words):
        who_am_i(Emulator.load(SMALL, now=NOW), tmp_path, **changes)


@pytest.mark.parametrize("content", [b"", b"no certificate", None])
def test_a_certificate_file_that_is_none_is_a_fault_of_the_configuration(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.pem"):
        who_am_i(Emulator.load(SMALL, now=NOW), tmp_path, auth="certificate", certificate="x.pem")


def test_a_certificate_without_its_key_is_said_so(tmp_path: Path) -> None:
    path, public = certificate(tmp_path)
    path.write_bytes(public)
    with pytest.raises(ConfigError, match="no private key"):
        who_am_i(Emulator.load(SMALL, now=NOW), tmp_path, auth="certificate", certificate=path.name)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://contoso.crm4.dynamics.com", "https://login.microsoftonline.com"),
        ("https://contoso.crm9.dynamics.com", "https://login.microsoftonline.com"),
        ("https://contoso.crm.microsoftdynamics.us", "https://login.microsoftonline.us"),
        ("https://contoso.crm.dynamics.cn", "https://login.partner.microsoftonline.cn"),
    ],
)
def test_the_cloud_follows_from_the_address(url: str, authority: str) -> None:
    assert authority_for(url) == authority
