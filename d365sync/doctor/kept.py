"""Whether files with secrets may be read by others, and whether what is kept there will soon expire.

IO: files.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.doctor.check import Check, Verdict
from d365sync.doctor.storage import database_files
from d365sync.secretstore import file_of, is_literal_secret

EXPIRES_SOON_DAYS = 30
GROUP, OTHERS = 0o070, 0o007


def secrets_kept(config: Config) -> Iterator[Check]:
    """Yield a check for each secret that is not kept as it should be; on Windows permissions are not judged.

    A file of secrets should be read by its owner alone. The configuration may be read by its group, unless it holds a
    secret itself, or a proxy's password.
    """
    remote = config.dataverse
    references = {_shown(key): reference for key, reference in config.secret_references().items()}
    literal = [name for name, reference in references.items() if is_literal_secret(reference)]
    for name in literal:
        yield Check(
            name,
            Verdict.WARN,
            "the secret itself stands in the configuration file",
            "use env:NAME, file:PATH, systemd:NAME or keyring:SERVICE/USER, and create a new secret",
        )
    for database in database_files(config):
        yield from _readable(database, "database file", OTHERS)
    if config.path is not None:
        yield from _readable(
            config.path, "configuration file", GROUP | OTHERS if literal or "@" in remote.proxy else OTHERS
        )
    for name, reference in references.items():
        path = file_of(reference, {}, config.folder)
        if path is not None:
            yield from _readable(path, f"{name} file", GROUP | OTHERS)
    if remote.auth == "certificate":
        path = config.resolve(remote.certificate.removeprefix("file:"))
        yield from _readable(path, "certificate file", GROUP | OTHERS)


def certificate_lasts(until: dt.datetime, now: dt.datetime) -> Check:
    """Return the check of a certificate by the days it is still valid."""
    days = (until - now).days
    when = until.date().isoformat()
    renew = "make a new certificate and upload its public part to the app registration"
    if until <= now:
        return Check("certificate", Verdict.FAIL, f"expired on {when}", renew, 6)
    verdict = Verdict.WARN if days < EXPIRES_SOON_DAYS else Verdict.OK
    left = counted(days, "day")
    mend = f"{renew} before that" if verdict is Verdict.WARN else ""
    return Check("certificate", verdict, f"valid until {when}, {left} left", mend)


def _shown(key: str) -> str:
    """Name a key as checks do: the words of its last part, without the section of what signs in."""
    return key.removeprefix("dataverse.").replace("_", " ")


def _readable(path: Path, what: str, who: int) -> Iterator[Check]:
    if os.name != "posix" or not path.is_file():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & who:
        whom = "everybody on this machine" if mode & OTHERS else "its group"
        yield Check(what, Verdict.WARN, f"{path} may be read by {whom} ({mode:04o})", f"chmod 600 {path}")
