"""The ``Prefer`` header: what a request would like, and what was granted. Source: Compose HTTP requests.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from d365sync.emulator.odata.literals import MAX_DIGITS
from d365sync.emulator.refuse import bad_uri

_PART = re.compile(r'(?:"[^"]*"|[^,])+')
_PREFERENCE = re.compile(r'([\w.\-]+)\s*(?:=\s*(?:"([^"]*)"|([^"]*)))?')


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences that are honoured; ``annotations`` are the patterns asked for."""

    max_page_size: int | None = None
    annotations: tuple[str, ...] = ()
    track_changes: bool = False
    representation: bool = False
    continue_on_error: bool = False
    given: tuple[str, ...] = ()

    def wants(self, annotation: str) -> bool:
        """Say whether an annotation was asked for, by name or by what it begins with: ``Prefix*``, ``*``."""
        return any(
            pattern == annotation or (pattern.endswith("*") and annotation.startswith(pattern[:-1]))
            for pattern in self.annotations
        )

    @property
    def applied(self) -> str:
        """The value of ``Preference-Applied``; empty when nothing was granted."""
        return ",".join(self.given)


def parse_preferences(headers: Iterable[str]) -> Preferences:
    """Read every ``Prefer`` header; preferences that are not known are not granted.

    Raises:
        Refusal: a page size has more digits than any number.
    """
    size: int | None = None
    annotations: tuple[str, ...] = ()
    granted: list[str] = []
    flags: set[str] = set()
    for name, value in _pairs(headers):
        shown = f'{name}="{value}"' if name == "odata.include-annotations" else f"{name}={value}" if value else name
        if name == "odata.maxpagesize" and len(value) > MAX_DIGITS:
            raise bad_uri(f"The value '{value[:40]}…' of the preference 'odata.maxpagesize' is too long.")
        if name == "odata.maxpagesize" and value.isdecimal() and int(value) > 0:
            size = int(value)
        elif name == "odata.include-annotations":
            annotations = tuple(part.strip() for part in value.split(","))
        elif shown in ("odata.track-changes", "return=representation"):
            flags.add(shown)
        elif shown in ("odata.continue-on-error", "odata.continue-on-error=true"):
            flags.add(name)
            continue
        else:
            continue
        granted.append(shown)
    return Preferences(
        max_page_size=size,
        annotations=annotations,
        track_changes="odata.track-changes" in flags,
        representation="return=representation" in flags,
        continue_on_error="odata.continue-on-error" in flags,
        given=tuple(dict.fromkeys(granted)),
    )


def _pairs(headers: Iterable[str]) -> Iterable[tuple[str, str]]:
    for header in headers:
        for part in _PART.findall(header):
            match = _PREFERENCE.fullmatch(part.strip())
            if match is not None:
                yield match[1], (match[2] or match[3] or "").strip()
