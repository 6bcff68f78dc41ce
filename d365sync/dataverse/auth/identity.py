"""The identity that Azure gives to a machine or an app: no secret, nothing to expire.

The endpoint is found by MSAL in the environment (App Service and others), else it is the machine's own (IMDS). It is on
this machine, so no proxy has a part in it, and it is asked without TLS: nothing else is.

Source: Managed identities for Azure resources, how to acquire a token.

IO: HTTP, environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from d365sync.dataverse.auth.answers import Answering
from d365sync.dataverse.auth.source import MsalTokens
from d365sync.dataverse.silence import first_line
from d365sync.errors import AuthError, RetryableError

PROMPT_S = 10
"""The endpoint is on this machine: it answers at once, or it is not there."""


class IdentityTokens(MsalTokens):
    """Tokens of the system-assigned identity, or of the user-assigned one with this client id."""

    what = "the managed identity endpoint"
    hint = "assign a managed identity to this machine or app, or choose another dataverse.auth"

    def __init__(self, resource: str, client_id: str, session: requests.Session) -> None:
        super().__init__("this machine", session, PROMPT_S)
        self._http = Answering(session, PROMPT_S, direct=True)
        self._resource = resource
        self._client_id = client_id
        self._client: Any = None

    def _acquire(self, *, fresh: bool) -> Mapping[str, Any]:
        from msal import ManagedIdentityClient, SystemAssignedManagedIdentity, UserAssignedManagedIdentity

        if self._client is None or fresh:
            identity = (
                UserAssignedManagedIdentity(client_id=self._client_id)
                if self._client_id
                else SystemAssignedManagedIdentity()
            )
            self._client = ManagedIdentityClient(identity, http_client=self._http)
        result: Mapping[str, Any] = self._client.acquire_token_for_client(resource=self._resource)
        return result

    def _refusal(self, result: Mapping[str, Any]) -> AuthError | RetryableError:
        error = super()._refusal(result)
        if isinstance(error, RetryableError):
            return error
        whose = f"with the client id {self._client_id} " if self._client_id else ""
        told = first_line(str(result.get("error_description") or result.get("error") or "no explanation"))
        return AuthError(
            f"the managed identity {whose}gets no token: {told}",
            code=str(result.get("error", "")),
            hint="assign it to this machine or app; client_id is a user-assigned identity's, else left out",
        )
