"""What the sign-in service refuses with. Source: Microsoft Entra authentication and authorization error codes.

IO: system clock, randomness.
"""

from __future__ import annotations

import time
import uuid
from typing import Any


class SignInError(Exception):
    """A refusal of the token endpoint: the AADSTS number, its error word, status and text."""

    def __init__(self, number: int, error: str, status: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.error = error
        self.status = status

    def document(self) -> dict[str, Any]:
        """Return the JSON body."""
        now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.number}: {self} Trace ID: {trace} Correlation ID: {correlation} "
            f"Timestamp: {now}",
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={self.number}",
        }
