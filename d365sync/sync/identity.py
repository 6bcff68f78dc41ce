"""Whose mirror and journal these are: each belongs to one organization, and another one is refused before it is read.

The organization is asked for only when the address is not the one noted, so an ordinary cycle costs no request more.

IO: HTTP and SQL, through the client, the mirror and the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from d365sync.errors import ConfigError, ProtocolError

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient


class Owned(Protocol):
    """A database that notes the organization it belongs to, as address and id."""

    def owner(self) -> tuple[str, str] | None:
        """Return address and id of its organization, None when it has none yet."""

    def belong_to(self, url: str, organization_id: str) -> None:
        """Note its organization."""


def claim(client: DataverseClient, url: str, databases: Mapping[str, Owned]) -> None:
    """Make the databases, by name, those of the organization at an address, if they are not another's.

    Raises:
        ConfigError: one belongs to another organization; nothing was read or written.
        RemoteError: the organization's id could not be asked for.
    """
    owners = {name: database.owner() for name, database in databases.items()}
    if all(owner is not None and owner[0] == url for owner in owners.values()):
        return
    who, _ = client.who_am_i()
    organization_id = who.get("OrganizationId")
    if not isinstance(organization_id, str) or not organization_id:
        raise ProtocolError("the answer to WhoAmI names no organization")
    for name, owner in owners.items():
        if owner is not None:
            _compare(name, owner, organization_id, url)
    for database in databases.values():
        database.belong_to(url, organization_id.lower())


def check_organization(url: str, organization_id: str, databases: Mapping[str, Owned]) -> None:
    """Compare the databases with the organization that was read, which may be a new one at the same address.

    Raises:
        ConfigError: one belongs to another organization.
    """
    for name, database in databases.items():
        owner = database.owner()
        if owner is not None and organization_id:
            _compare(name, owner, organization_id, url)


def _compare(name: str, owner: tuple[str, str], organization_id: str, url: str) -> None:
    if owner[1].lower() != organization_id.lower():
        raise ConfigError(
            f"the {name} belongs to organization {owner[1]} ({owner[0]}), but {url} is organization {organization_id}",
            hint=f"check dataverse.url, or set storage.{name} to another database for this organization",
        )
