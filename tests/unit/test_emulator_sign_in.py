"""Signing in as MSAL does, with a secret and with a certificate, and what happens to calls without a good token."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msal
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from d365sync.emulator.settings import ServiceLimits
from d365sync.emulator.tokens import ASSERTION_TYPE
from tests.unit.emulating import ORIGIN, ROOT, Org


def acquire(org: Org, credential: Any, scope: str = f"{ORIGIN}/.default") -> dict[str, Any]:
    app = msal.ConfidentialClientApplication(
        org.emulator.credentials.client_id,
        client_credential=credential,
        authority=org.emulator.authority(ORIGIN),
        instance_discovery=False,
        http_client=org.emulator.session(),
    )
    answer: dict[str, Any] = app.acquire_token_for_client([scope])
    return answer


def certificate() -> tuple[bytes, bytes, str]:
    """Return a private key and its certificate in PEM, and the SHA-1 thumbprint."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    today = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today)
        .not_valid_after(today + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, made.public_bytes(serialization.Encoding.PEM), made.fingerprint(hashes.SHA1()).hex()  # noqa: S303


def test_msal_gets_a_token_that_works() -> None:
    org = Org()
    answer = acquire(org, org.emulator.credentials.client_secret)
    assert (answer["token_type"], answer["expires_in"], answer["token_source"]) == (
        "Bearer",
        3599,
        "identity_provider",
    )
    org.session.headers["Authorization"] = f"Bearer {answer['access_token']}"
    assert org.call("GET", "WhoAmI").status_code == 200


@pytest.mark.parametrize("newer", [False, True], ids=["x5t, RS256", "x5t#S256, PS256"])
def test_msal_signs_in_with_a_registered_certificate(newer: bool) -> None:
    key, pem, thumbprint = certificate()
    org = Org(certificates=(pem,))
    credential: dict[str, Any] = {"private_key": key.decode()}
    credential |= {"public_certificate": pem.decode()} if newer else {"thumbprint": thumbprint}
    assert "access_token" in acquire(org, credential)


def test_an_unregistered_certificate_and_a_foreign_key_are_refused() -> None:
    key, pem, thumbprint = certificate()
    foreign_key, foreign_pem, foreign_thumbprint = certificate()
    org = Org(certificates=(pem,))
    for credential in (
        {"private_key": foreign_key.decode(), "thumbprint": foreign_thumbprint},
        {"private_key": foreign_key.decode(), "thumbprint": thumbprint},
    ):
        answer = acquire(org, credential)
        assert (answer["error"], answer["error_codes"]) == ("invalid_client", [700027])
    del key, foreign_pem


def test_a_wrong_secret_is_refused_as_msal_expects() -> None:
    answer = acquire(Org(), "wrong")
    assert (answer["error"], answer["error_codes"]) == ("invalid_client", [7000215])
    assert answer["error_description"].startswith("AADSTS7000215: Invalid client secret provided.")


@pytest.mark.parametrize(
    ("changes", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_id": "11111111-1111-4111-8111-111111111111"}, 400, "unauthorized_client", 700016),
        ({"tenant": "11111111-1111-4111-8111-111111111111"}, 400, "invalid_request", 90002),
        ({"scope": "https://other.crm.dynamics.com/.default"}, 400, "invalid_resource", 500011),
        ({"scope": "https://localhost:99999/.default"}, 400, "invalid_resource", 500011),
        ({"scope": "https://[/.default"}, 400, "invalid_resource", 500011),
        ({"scope": f"{ORIGIN}/user_impersonation"}, 400, "invalid_scope", 70011),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        (
            {"client_assertion_type": ASSERTION_TYPE},
            401,
            "invalid_client",
            700027,
        ),
    ],
)
def test_refusals_have_the_real_shape(changes: dict[str, str], status: int, error: str, number: int) -> None:
    response = Org().sign_in(**changes)
    document = response.json()
    assert (response.status_code, document["error"], document["error_codes"]) == (status, error, [number])
    assert document["error_description"].startswith(f"AADSTS{number}: ")
    assert {"timestamp", "trace_id", "correlation_id", "error_uri"} <= document.keys()


def test_secrets_are_new_at_every_start_and_ids_are_not() -> None:
    one, other = Org().emulator.credentials, Org().emulator.credentials
    assert (one.tenant_id, one.client_id) == (other.tenant_id, other.client_id)
    assert one.client_secret != other.client_secret
    assert one.client_secret not in repr(one)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x.y.z", "Basic abc", "Bearer \u00e9.\u00e9.\u00e9"])
def test_a_call_without_a_good_token_gets_the_bare_challenge(authorization: str) -> None:
    org = Org()
    response = org.call("GET", "goals", headers={"Authorization": authorization.encode("latin-1").decode("latin-1")})
    assert (response.status_code, response.text) == (401, "HTTP Error 401 - Unauthorized: Access is denied")
    tenant = org.emulator.credentials.tenant_id
    assert response.headers["WWW-Authenticate"] == (
        f"Bearer authorization_uri={ORIGIN}/{tenant}/oauth2/authorize, resource_id={ORIGIN}/"
    )


def test_a_token_expires_is_not_forgeable_and_belongs_to_one_emulator() -> None:
    org, short = Org(), Org(token_lifetime_s=0)
    assert short.call("GET", "goals").status_code == 401
    token = org.token()
    assert Org().call("GET", "goals", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    head, claims, signature = token.split(".")
    forged = f"{head}.{claims[:-2]}AA.{signature}"
    assert org.call("GET", "goals", headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_answers_carry_the_headers_of_the_service() -> None:
    response = Org(limits=ServiceLimits(request_ms=0)).session.get(ROOT + "goals")
    headers = response.headers
    assert headers["Content-Type"] == "application/json; odata.metadata=minimal"
    assert headers["OData-Version"] == "4.0"
    assert headers["x-ms-ratelimit-time-remaining-xrm-requests"] == "1,200.00"
    assert headers["x-ms-service-request-id"] == headers["REQ_ID"]
    assert "ARRAffinity" in headers["Set-Cookie"]
    assert (headers["Allow"], headers["Public"]) == ("OPTIONS,GET,HEAD,POST",) * 2
    assert headers["Vary"] == "Accept-Encoding"
    cookies = [cookie.partition("=")[0] for cookie in response.raw.headers.getlist("Set-Cookie")]
    assert cookies == ["ARRAffinity", "ReqClientId", "orgId"]
