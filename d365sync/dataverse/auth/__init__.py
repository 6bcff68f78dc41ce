"""Signing in: secret, certificate, managed identity, device code. Nothing else knows MSAL, which is loaded when used.

Source: Authenticate to Dataverse with the Web API; MSAL for Python; MSAL extensions for Python.

IO: HTTP, files, environment.
"""

from d365sync.dataverse.auth.source import SignIn, TokenSource

__all__ = ["SignIn", "TokenSource"]
