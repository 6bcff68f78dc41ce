"""Secrets by reference, and a key vault that answers by its own client."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError
from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest

from d365sync.errors import ConfigError
from d365sync.secretstore import file_of, is_literal_secret, open_vault, resolve_secret


def test_a_credential_of_systemd_is_read_where_systemd_put_it(tmp_path: Path) -> None:
    given, loaded_from = tmp_path / "given", tmp_path / "etc"
    for folder, text in ((given, "of-the-service\n"), (loaded_from, "of-the-administrator")):
        folder.mkdir()
        (folder / "client_secret").write_text(text, encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(given)}
    reference = "systemd:client_secret"
    assert resolve_secret(reference, environ, tmp_path, credentials=loaded_from) == "of-the-service"
    assert resolve_secret(reference, {}, tmp_path, credentials=loaded_from) == "of-the-administrator"


@pytest.mark.parametrize("name", ["../../etc/shadow", "", "..", "a/b", "a b"])
def test_a_credential_is_a_name_and_no_path(name: str, tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(ConfigError, match="does not name a credential"):
        resolve_secret(f"systemd:{name}", environ, tmp_path)
    assert file_of(f"systemd:{name}", environ, tmp_path) is None


def test_a_credential_that_is_not_there_is_said_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"credential .*/gone cannot be read"):
        resolve_secret("systemd:gone", {"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path)


class Vault:
    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, address: str) -> Vault:
        self.asked.append(address)
        return self

    def get_secret(self, name: str) -> Any:
        self.asked.append(name)
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(value=self.answer)


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("contoso/crm", "https://contoso.vault.azure.net"),
        ("contoso.vault.azure.cn/crm", "https://contoso.vault.azure.cn"),
    ],
)
def test_a_vault_is_a_name_or_a_host(entry: str, address: str, tmp_path: Path) -> None:
    vault = Vault("from-the-vault")
    assert resolve_secret(f"azurekv:{entry}", {}, tmp_path, vault=vault) == "from-the-vault"
    assert vault.asked == [address, "crm"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ResourceNotFoundError("SecretNotFound"), "contoso.vault.azure.net has no secret crm"),
        (ClientAuthenticationError("DefaultAzureCredential failed\nEnvironment..."), "asked for crm: DefaultAzure"),
        ("", "secret contoso/crm of the key vault that should hold the secret is empty"),
    ],
)
def test_what_a_vault_refuses_is_one_sentence(answer: str | Exception, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        resolve_secret("azurekv:contoso/crm", {}, tmp_path, vault=Vault(answer))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["contoso", "contoso/", "/crm", "https://contoso.vault.azure.net/crm", "a@evil/crm"])
def test_what_is_no_secret_of_a_vault_is_asked_nowhere(entry: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not name a secret"):
        resolve_secret(f"azurekv:{entry}", {}, tmp_path, vault=Vault("never"))


class Endpoint(HttpTransport[Any, Any]):
    """A vault as far as its client sees it: a challenge first, then the secret."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        pass

    def send(self, request: Any, **_options: Any) -> Any:
        self.requests.append((request.url, request.headers.get("Authorization", "")))
        if not request.headers.get("Authorization"):
            named = 'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"'
            return Answered(request, 401, {"WWW-Authenticate": named}, b"")
        body = {"value": "from-the-endpoint", "id": "https://contoso.vault.azure.net/secrets/crm/1", "attributes": {}}
        return Answered(request, 200, {"Content-Type": "application/json"}, json.dumps(body).encode())


class Answered:
    def __init__(self, request: HttpRequest, status: int, headers: dict[str, str], body: bytes) -> None:
        self.request, self.status_code, self.headers, self.content = request, status, headers, body
        self.content_type = headers.get("Content-Type")
        self.reason = ""

    def body(self) -> bytes:
        return self.content

    def read(self) -> bytes:
        return self.content

    def text(self, _encoding: str | None = None) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


def test_azures_client_is_used_as_it_is_meant(tmp_path: Path) -> None:
    endpoint = Endpoint()
    credential = SimpleNamespace(get_token=lambda *_scopes, **_options: AccessToken("a-token-of-entra", 2_000_000_000))
    opened = lambda address: open_vault(address, credential=credential, transport=endpoint)  # noqa: E731
    assert resolve_secret("azurekv:contoso/crm", {}, tmp_path, vault=opened) == "from-the-endpoint"
    assert endpoint.requests[-1][0].startswith("https://contoso.vault.azure.net/secrets/crm/")
    assert endpoint.requests[-1][1] == "Bearer a-token-of-entra"


@pytest.mark.parametrize("scheme", ["env", "file", "systemd", "keyring", "azurekv"])
def test_a_reference_is_no_secret_itself(scheme: str) -> None:
    assert not is_literal_secret(f"{scheme}:something")
    assert is_literal_secret("something")
    assert not is_literal_secret("")
