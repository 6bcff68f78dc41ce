"""The clouds that Dataverse runs in: which host belongs to which, and where each signs in.

Source: Discovery service, global and national clouds; Microsoft Entra national clouds.

Pure.
"""

from __future__ import annotations

from enum import StrEnum


class Cloud(StrEnum):
    """A cloud, as the configuration names it."""

    PUBLIC = "public"
    GCC = "gcc"
    GCC_HIGH = "gcc_high"
    DOD = "dod"
    CHINA = "china"


HOSTS = (
    (".crm9.dynamics.com", Cloud.GCC),
    (".crm.microsoftdynamics.us", Cloud.GCC_HIGH),
    (".crm.appsplatform.us", Cloud.DOD),
    (".crm.dynamics.cn", Cloud.CHINA),
    (".dynamics.com", Cloud.PUBLIC),
)
"""How the hosts of organizations end; the first that fits decides."""
SIGN_IN = {
    Cloud.PUBLIC: "https://login.microsoftonline.com",
    Cloud.GCC: "https://login.microsoftonline.com",
    Cloud.GCC_HIGH: "https://login.microsoftonline.us",
    Cloud.DOD: "https://login.microsoftonline.us",
    Cloud.CHINA: "https://login.partner.microsoftonline.cn",
}


def cloud_of(host: str) -> Cloud | None:
    """Return the cloud of an organization's host; None for a host that is in none (on-premises, the emulator)."""
    return next((cloud for ending, cloud in HOSTS if host.lower().endswith(ending)), None)


def sign_in_host(host: str, setting: str = "") -> str:
    """Return where to sign in: by the setting, else by the host, else in the public cloud."""
    return SIGN_IN[Cloud(setting) if setting else cloud_of(host) or Cloud.PUBLIC]
