"""Secrets by reference: where the configuration says a secret is, and how it is fetched from there.

===================== ==========================================================================================
``env:NAME``          an environment variable
``file:PATH``         the text of a file; relative paths are relative to the configuration
``systemd:NAME``      a credential that systemd handed to the service; outside of it, the file it is loaded from
``keyring:SERVICE/USER``  the platform's store, by the package keyring
``azurekv:VAULT/NAME``    Azure Key Vault, as the machine's identity (or what DefaultAzureCredential finds)
anything else         the secret itself
===================== ==========================================================================================

Source: systemd.exec(5), LoadCredential= (``$CREDENTIALS_DIRECTORY``); Azure Key Vault secrets client for Python.

IO: files, the platform's secret store, HTTP to a key vault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from d365sync.errors import ConfigError

SCHEMES = ("env", "file", "systemd", "keyring", "azurekv")
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
CREDENTIALS_FOLDER = "/etc/d365sync/credentials"
"""Where `service install` has systemd load credentials from."""
PUBLIC_VAULTS = "vault.azure.net"
_CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_VAULT = re.compile(r"(?P<vault>[A-Za-z0-9-]+(\.[a-z0-9.-]+)?)/(?P<name>[A-Za-z0-9-]{1,127})")

Vault = Callable[[str], Any]
"""Opens the vault at an address; what it returns has ``get_secret(name)``, whose ``value`` is the secret."""


def resolve_secret(
    reference: str,
    environ: Mapping[str, str],
    folder: Path,
    *,
    vault: Vault | None = None,
    credentials: Path = Path(CREDENTIALS_FOLDER),
) -> str:
    """Return the secret behind a reference, or the text itself.

    ``vault`` opens key vaults, None: as the machine's identity. ``credentials`` is where systemd loads them from.

    Raises:
        ConfigError: what the reference names is not there, empty, or cannot be asked. Never shows a secret.
    """
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        secret, source = environ.get(rest, ""), f"environment variable {rest}"
    elif scheme == "file":
        path = folder / Path(rest).expanduser()
        secret, source = _from_file(path, "secret file"), f"file {path}"
    elif scheme == "systemd":
        path = _credential(rest, environ, credentials)
        secret, source = _from_file(path, "credential"), f"credential {path}"
    elif scheme == "keyring":
        secret, source = _from_keyring(rest), f"entry {rest} of the keyring"
    elif scheme == "azurekv":
        secret, source = _from_vault(rest, vault or open_vault), f"secret {rest} of the key vault"
    else:
        return reference
    if not secret:
        raise ConfigError(f"the {source} that should hold the secret is empty or not set", hint=f"set {source}")
    return secret


def is_literal_secret(reference: str) -> bool:
    """Say whether the configuration holds the secret itself rather than a reference to it."""
    return bool(reference) and reference.partition(":")[0] not in SCHEMES


def file_of(reference: str, environ: Mapping[str, str], folder: Path) -> Path | None:
    """Return the file that a reference reads, None when it reads none."""
    scheme, _, rest = reference.partition(":")
    if scheme == "file":
        return folder / Path(rest).expanduser()
    if scheme == "systemd" and _CREDENTIAL.fullmatch(rest):
        return _credential(rest, environ, Path(CREDENTIALS_FOLDER))
    return None


def _from_file(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the {what} {path} cannot be read: {getattr(error, 'strerror', error)}") from None


def _credential(name: str, environ: Mapping[str, str], folder: Path) -> Path:
    if not _CREDENTIAL.fullmatch(name):
        raise ConfigError(
            f"systemd:{name} does not name a credential", hint="write systemd:NAME, as in LoadCredential=NAME:PATH"
        )
    given = environ.get(CREDENTIALS_DIRECTORY)
    return (Path(given) if given else folder) / name


def _from_keyring(entry: str) -> str:
    """Return a secret of the platform's store: Credential Manager, Keychain, or a Secret Service."""
    service, _, user = entry.rpartition("/")
    if not service or not user:
        raise ConfigError(f"keyring:{entry} does not name an entry", hint="write keyring:SERVICE/USER")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise ConfigError(
            "secrets from a keyring need the package keyring", hint="install d365sync[keyring], or use env: or file:"
        ) from None
    try:
        return keyring.get_password(service, user) or ""
    except KeyringError as error:
        raise ConfigError(
            f"the keyring cannot be asked for {entry}: {str(error).splitlines()[0] if str(error) else 'refused'}",
            hint="a service may have no keyring; use env:, file: or systemd: there",
        ) from None


def _from_vault(entry: str, vault: Vault) -> str:
    """Return a secret of a key vault: its newest version."""
    match = _VAULT.fullmatch(entry)
    if match is None:
        raise ConfigError(f"azurekv:{entry} does not name a secret", hint="write azurekv:VAULT/NAME")
    try:
        from azure.core.exceptions import AzureError, ResourceNotFoundError
    except ImportError:
        raise ConfigError(
            "secrets from a key vault need Azure's packages", hint="install d365sync[azure], or use env: or file:"
        ) from None
    host = match["vault"] if "." in match["vault"] else f"{match['vault']}.{PUBLIC_VAULTS}"
    try:
        return str(vault(f"https://{host}").get_secret(match["name"]).value or "")
    except ResourceNotFoundError:
        raise ConfigError(
            f"the key vault {host} has no secret {match['name']}", hint="its name, not its version or address"
        ) from None
    except (AzureError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise ConfigError(
            f"the key vault {host} cannot be asked for {match['name']}: {said[0] if said else type(error).__name__}",
            hint="the identity needs the role Key Vault Secrets User on the vault",
        ) from None


def open_vault(address: str, **options: Any) -> Any:
    """Open a key vault as the machine's identity, without ever asking a person; ``options`` are its client's."""
    from azure.identity import DefaultAzureCredential
    from azure.keyvault.secrets import SecretClient

    credential = options.pop("credential", None) or DefaultAzureCredential(exclude_interactive_browser_credential=True)
    return SecretClient(vault_url=address, credential=credential, **options)
