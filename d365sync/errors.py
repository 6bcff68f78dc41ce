"""Every exception d365sync raises, named by what to do next.

::

    D365SyncError                 root; carries ``hint`` (the mend, one sentence)
    ├── ConfigError               the configuration, all problems at once          exit 2
    ├── UsageError                a command given something it cannot use          exit 2
    ├── RemoteError               Dataverse answered, or did not                   exit 1
    │   ├── RetryableError        throttled, overloaded, unreachable: try later    exit 5
    │   │   └── StoppedError      broken off because somebody asked for an end
    │   ├── AuthError             no token, no user, no privilege                  exit 6
    │   ├── ConflictError         412: somebody changed the row since it was read
    │   ├── BookmarkExpiredError  the delta link is too old: full load
    │   └── RejectedError         a 4xx that a repeat will not mend
    ├── ProtocolError             an answer that is not the protocol               exit 1
    │   └── MisfitError           a value that is not of its column's type
    ├── FetchXmlError             a query that cannot be understood (path, snippet)
    ├── SchemaError               a table or column that is not there
    ├── OrgFolderError            an emulator org folder that cannot be loaded     exit 2
    ├── GuardError                a plan, or rows gone, that are not plausible     exit 4
    ├── DatabaseError             a database failed; busy or full: try later       exit 1, 5
    │   ├── MirrorError           the mirror failed: it is pulled again
    │   └── JournalError          the journal failed: it cannot be recreated
    └── LeaseError                another instance holds the lease                 exit 10
        └── LeaseLostError        another instance took the lease that was held here

Raise when the run cannot go on; return a :class:`~d365sync.core.problems.Problem` when one goal cannot.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum


class D365SyncError(Exception):
    """Root of the hierarchy; ``str()`` is one sentence, ``hint`` says what mends it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(D365SyncError):
    """The configuration cannot be used; ``problems`` lists every fault found, not only the first."""

    exit_code = 2

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class UsageError(D365SyncError):
    """A command was given something it cannot use (an unknown goal, an unreadable file)."""

    exit_code = 2


FORBIDDEN, NOT_THERE, THROTTLED = 403, 404, 429
"""Statuses of refusals that are told apart by them."""


class RemoteError(D365SyncError):
    """Dataverse (or the token endpoint) failed; ``status`` is None when no answer came.

    ``at`` is then what was not passed: ``proxy``, ``TLS``, or empty for the way to the server.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        hint: str = "",
        at: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.at = at
        self.status = status
        self.code = code
        self.request_id = request_id


class RetryableError(RemoteError):
    """Throttled, overloaded or unreachable, and still so after the retry budget was used."""

    exit_code = 5

    def __init__(self, message: str, *, retry_after_s: float | None = None, **kwargs: object) -> None:
        super().__init__(message, **kwargs)  # type: ignore[arg-type]
        self.retry_after_s = retry_after_s


class StoppedError(RetryableError):
    """Broken off, before anything more was sent, because the work it belongs to was told to end."""


class AuthError(RemoteError):
    """No token, no application user or no privilege."""

    exit_code = 6


class ConflictError(RemoteError):
    """The row changed since it was read (HTTP 412)."""


class BookmarkExpiredError(RemoteError):
    """The delta link is no longer honoured: drop it and load the table in full."""


class RejectedError(RemoteError):
    """The request itself is refused; sending it again changes nothing."""


class ProtocolError(D365SyncError):
    """An answer that is not what the protocol promises; never read as an empty one."""


class MisfitError(ProtocolError):
    """A value that is not of its column's type: the row is damaged, or the definitions remembered are old."""


class FetchXmlError(D365SyncError):
    """A FetchXML document that cannot be understood; ``path`` names the element."""

    def __init__(self, message: str, *, path: str = "", snippet: str = "", code: str = "") -> None:
        super().__init__(f"{message} (at {path})" if path else message)
        self.path = path
        self.snippet = snippet
        self.code = code


class SchemaError(D365SyncError):
    """A table or column that the schema does not have; ``table`` and ``column`` name it."""

    def __init__(self, message: str, *, table: str = "", column: str = "") -> None:
        super().__init__(message)
        self.table = table
        self.column = column


class OrgFolderError(D365SyncError):
    """An org folder of the emulator that cannot be loaded; the message names file and row."""

    exit_code = 2


class GuardError(D365SyncError):
    """A plan, or rows gone, that are not plausible; nothing was written.

    ``plan`` is the write plan, None when it was not come to; ``document`` says in plain values what was seen.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, hint: str = "", plan: object = None, document: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.plan = plan
        self.document = dict(document or {})


class Fault(StrEnum):
    """What is wrong with a database, as far as that decides what to do next."""

    DAMAGED = "damaged"
    BUSY = "busy"
    FULL = "full"
    AWAY = "away"
    OTHER = "other"


class DatabaseError(D365SyncError):
    """The mirror or the journal failed; nothing of the transaction was stored. Some faults pass by themselves."""

    def __init__(self, message: str, *, hint: str = "", fault: Fault = Fault.OTHER) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault
        if fault in (Fault.BUSY, Fault.FULL, Fault.AWAY):
            self.exit_code = RetryableError.exit_code


class MirrorError(DatabaseError):
    """The mirror failed; it is disposable: delete it and pull again."""


class JournalError(DatabaseError):
    """The journal failed; it cannot be recreated from Dataverse."""


class LeaseError(D365SyncError):
    """Another instance holds the lease."""

    exit_code = 10


class LeaseLostError(LeaseError):
    """The lease was this instance's and is another's now; what it was about to store was refused."""
