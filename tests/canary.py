"""Secrets that tests hand to d365sync, and a search for them in everything it writes and says.

Planted wherever a test configures d365sync against the emulator; looked for after each test in the files of its folder,
in the log at its most talkative, in what every command printed, and in what pytest itself would show of the test.
Access tokens are known by their shape.
"""

from __future__ import annotations

import io
import logging
import re
import stat
from pathlib import Path

import structlog

from d365sync import logs

TOKEN = re.compile(rb"eyJ[\w-]{16,}\.eyJ[\w-]{16,}")
MAY_HOLD_IT = ("secret", "d365sync.toml")
"""Files in which the tests themselves put the secret."""
MEANT_TO = "sign-in.cache"
"""The sign-in of a person, where the configuration asks for a plain file: nobody else may read it."""

HIDDEN = "(hidden: a secret or an access token)"

log = io.StringIO()
"""What was logged since the last harvest, at level DEBUG, as JSON lines like those of a service."""
_planted: dict[str, Path] = {}
_ever: set[str] = set()


def plant(secret: str, folder: Path) -> str:
    """Look for this secret from now on, in this folder after the test; return it."""
    _planted[secret] = folder
    _ever.add(secret)
    return secret


def listen() -> None:
    """Let everything that is logged, by d365sync and by the libraries it uses, come to ``log``."""
    structlog.configure(
        processors=logs.processors(tty=False),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(file=log),
    )
    handler = logging.StreamHandler(log)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)


def harvest() -> list[str]:
    """Return the files that give a secret or token away ("log" is the log), and begin anew."""
    found = ["log"] if _gives_away(log.getvalue().encode()) else []
    log.seek(0)
    log.truncate()
    for folder in set(_planted.values()):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not _may_hold_it(path) and _gives_away(path.read_bytes()):
                found.append(str(path))
    _planted.clear()
    return found


def assert_silent(text: str) -> None:
    """Fail if a text gives a secret or token away; say where, not what."""
    if _gives_away(text.encode()):
        raise AssertionError("a secret or an access token was printed")


def hidden(text: str) -> str:
    """Return a text without any secret that was ever planted, and without tokens."""
    for secret in _ever:
        text = text.replace(secret, HIDDEN)
    return TOKEN.sub(HIDDEN.encode(), text.encode("utf-8", "replace")).decode()


def _may_hold_it(path: Path) -> bool:
    private = stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.name in MAY_HOLD_IT or (path.name == MEANT_TO and private)


def _gives_away(content: bytes) -> bool:
    return bool(TOKEN.search(content)) or any(secret.encode() in content for secret in _planted)
