"""An application by itself: with a secret or a certificate.

Source: Microsoft identity platform, client credentials flow.

IO: HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from d365sync.dataverse.auth.source import MsalTokens, SignIn


class ApplicationTokens(MsalTokens):
    """Tokens of the application; MSAL's cache is in memory."""

    def __init__(self, sign_in: SignIn, session: requests.Session, timeout_s: float) -> None:
        super().__init__(sign_in.host, session, timeout_s)
        self._sign_in = sign_in
        self._app: Any = None

    def _acquire(self, *, fresh: bool) -> Mapping[str, Any]:
        from msal import ConfidentialClientApplication

        if self._app is None:
            self._app = ConfidentialClientApplication(
                self._sign_in.client_id,
                client_credential=self._sign_in.credential,
                http_client=self._http,
                **self._sign_in.application_options,
            )
        if fresh:
            self._app.remove_tokens_for_client()
        result: Mapping[str, Any] = self._app.acquire_token_for_client([f"{self._sign_in.resource}/.default"])
        return result
