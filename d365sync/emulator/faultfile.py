"""The faults file: which requests meet a fault, and which one.

A faults file is TOML, a list of ``[[fault]]``. ``match`` is ``METHOD PATTERN`` (or only the pattern): a glob against
the path, with or without the service root and the query; without a wildcard it is the first segment, such as
``opportunities``. ``holding`` is a text that the request's body must hold, too. ``nth`` (a number or a list, from 1),
``from`` (that one and all after it), ``every``, or ``chance`` (0 to 1, drawn by the file's ``seed``) choose among the
matching requests; without any, all. One of these happens:

- ``status``: this HTTP status instead of an answer, with ``code`` and ``retry_after`` (seconds, or any text)
- ``body``: this text instead of an answer's body
- ``content_type``: the answer says it is of this type (also beside ``status`` and ``body``)
- ``headers``: these headers stand in the answer, an empty one is missing (also beside ``status`` and ``body``)
- ``delay_s``: the answer comes late
- ``cut_after_bytes``: the connection breaks after so many bytes of the body
- ``shorten_to_bytes``: the body ends after so many bytes, as if it were whole
- ``close``: the request is carried out, then the connection breaks without an answer (``"before"``: not carried out)
- ``duplicate_page``: every row of the page comes twice
- ``reverse_page``: the rows of the page come in the opposite order
- ``stale_page``: every row comes once more, in an older version with other amounts
- ``loop_page``: the page's next link is the page's own address
- ``next_link``, ``delta_link``: the page goes on at this address
- ``replace``: texts of the body are replaced by others: ``["old", "new"]``, or a list of such pairs
- ``compress``: the body comes compressed (gzip)
- ``inflate_to_bytes``: the body is compressed and becomes so large when unpacked
- ``expire_delta``: the delta link is too old
- ``expire_token``: the access token is no longer accepted
- ``meanwhile``: before the request is carried out somebody else makes another one, ``METHOD PATH`` (with ``json``)

The requests inside a ``$batch`` are matched and counted too, but only for ``status``, ``delay_s`` and
``expire_delta``: nothing else happens to them.

IO: files.
"""

from __future__ import annotations

import fnmatch
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from werkzeug.wrappers import Request

from d365sync.emulator.calls import service_path
from d365sync.errors import UsageError

KINDS: Mapping[str, type | tuple[type, ...]] = {
    "status": int,
    "body": str,
    "content_type": str,
    "headers": dict,
    "delay_s": (int, float),
    "cut_after_bytes": int,
    "shorten_to_bytes": int,
    "close": (bool, str),
    "duplicate_page": bool,
    "reverse_page": bool,
    "stale_page": bool,
    "loop_page": bool,
    "next_link": str,
    "delta_link": str,
    "replace": list,
    "compress": bool,
    "inflate_to_bytes": int,
    "expire_delta": bool,
    "expire_token": bool,
    "meanwhile": str,
}
"""What may happen, and the kind of its value."""
BESIDE: Mapping[str, tuple[str, ...]] = {
    "code": ("status",),
    "retry_after": ("status",),
    "body": ("status",),
    "content_type": ("status", "body"),
    "headers": ("status", "body"),
    "json": ("meanwhile",),
}
"""What may stand beside something that happens."""
CHOICE: Mapping[str, type | tuple[type, ...]] = {
    "nth": (int, list),
    "from": int,
    "every": int,
    "chance": (int, float),
}
KEYS: Mapping[str, type | tuple[type, ...]] = {
    "match": str,
    "holding": str,
    **CHOICE,
    "code": str,
    "retry_after": (int, float, str),
    "json": dict,
    **KINDS,
}
CLOSE: Mapping[object, Literal["", "before", "after"]] = {
    False: "",
    True: "after",
    "before": "before",
    "after": "after",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the file; see the module for what each field means. ``start`` is the file's ``from``."""

    match: str
    nth: tuple[int, ...] = ()
    every: int = 1
    start: int = 1
    chance: float = 1
    seed: str = ""
    holding: str = ""
    status: int | None = None
    retry_after: float | str | None = None
    code: str = ""
    body: str | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0
    cut_after_bytes: int | None = None
    shorten_to_bytes: int | None = None
    close: Literal["", "before", "after"] = ""
    duplicate_page: bool = False
    reverse_page: bool = False
    stale_page: bool = False
    loop_page: bool = False
    next_link: str = ""
    delta_link: str = ""
    replace: tuple[tuple[str, str], ...] = ()
    compress: bool = False
    inflate_to_bytes: int | None = None
    expire_delta: bool = False
    expire_token: bool = False
    meanwhile: str = ""
    json: Mapping[str, Any] = field(default_factory=dict)

    @property
    def happens_inside(self) -> bool:
        """Whether it can happen to a request inside a batch."""
        return self.status is not None or self.delay_s > 0 or self.expire_delta

    def concerns(self, request: Request) -> bool:
        """Say whether a request matches; the choice among those that match comes after."""
        method, _, pattern = self.match.strip().rpartition(" ")
        if method and not fnmatch.fnmatchcase(request.method, method.strip()):
            return False
        query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
        _, below = service_path(request.path) or ("", request.path)
        spellings = [spelling + tail for spelling in (request.path, below, f"/{below}") for tail in ("", query)]
        spellings.append(below.partition("(")[0].partition("/")[0])
        if not any(fnmatch.fnmatchcase(spelling, pattern) for spelling in spellings):
            return False
        return not self.holding or self.holding.encode() in request.get_data()

    def strikes(self, count: int) -> bool:
        """Say whether it happens to the ``count``-th matching request, from 1."""
        if self.nth:
            return count in self.nth
        drawn = self.chance >= 1 or random.Random(f"{self.seed}/{count}").random() < self.chance  # noqa: S311
        return count >= self.start and count % self.every == 0 and drawn


def read_faults(path: Path) -> tuple[Fault, ...]:
    """Read a faults file.

    Raises:
        UsageError: it cannot be read, or a fault is not right; the message says which.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the faults file {path} cannot be read: {error}") from None
    entries, seed = document.pop("fault", []), document.pop("seed", 0)
    if document or not isinstance(entries, list):
        raise UsageError(f"{path}: only [[fault]] entries are expected, not {', '.join(document) or 'fault'}")
    return tuple(
        _fault(f"{path.name}: fault {index}", entry, f"{seed}/{index}") for index, entry in enumerate(entries, 1)
    )


def _fault(where: str, entry: Mapping[str, Any], seed: str) -> Fault:
    unknown = [name for name in entry if name not in KEYS]
    if unknown:
        raise UsageError(f"{where} has the unknown key {unknown[0]}", hint=f"known are {', '.join(KEYS)}")
    _check_effect(where, entry)
    for name, value in entry.items():
        _check_value(where, name, value)
    nth = entry.get("nth", [])
    values = {name: value for name, value in entry.items() if name not in ("nth", "from", "close", "every", "replace")}
    return Fault(
        nth=tuple(nth if isinstance(nth, list) else [nth]),
        close=CLOSE[entry.get("close", False)],
        every=max(1, entry.get("every", 1)),
        start=entry.get("from", 1),
        replace=tuple((old, new) for old, new in _pairs(entry.get("replace", []))),
        seed=seed,
        **values,
    )


def _check_effect(where: str, entry: Mapping[str, Any]) -> None:
    happens = [name for name in KINDS if name in entry]
    main = [name for name in happens if not set(BESIDE.get(name, ())) & set(happens)]
    if len(main) != 1 and set(main) != {"content_type", "headers"}:
        raise UsageError(f"{where} needs 'match' and exactly one of {', '.join(KINDS)}")
    if not isinstance(entry.get("match"), str):
        raise UsageError(f"{where} needs 'match' and exactly one of {', '.join(KINDS)}")
    for name, others in BESIDE.items():
        if name in entry and name not in KINDS and not set(others) & set(entry):
            raise UsageError(f"{where}: {name} stands beside {' or '.join(others)} only")


def _check_value(where: str, name: str, value: object) -> None:
    kinds = KEYS[name] if isinstance(KEYS[name], tuple) else (KEYS[name],)
    listed = value if name == "nth" and isinstance(value, list) else [value]
    for one in listed:
        if type(one) not in kinds:  # type: ignore[operator]
            raise UsageError(f"{where}: {name} must be {_kind_words(kinds)}")  # type: ignore[arg-type]
        if isinstance(one, int | float) and not isinstance(one, bool) and one < 0 and name != "retry_after":
            raise UsageError(f"{where}: {name} must not be negative")
    if name == "close" and value not in CLOSE:
        raise UsageError(f'{where}: close must be true, "before" or "after"')
    if name == "replace" and not all(_is_pair(one) for one in _pairs(value)):
        raise UsageError(f'{where}: replace must be ["old", "new"], or a list of such pairs')
    if name == "headers" and not all(isinstance(one, str) for one in value.values()):  # type: ignore[attr-defined]
        raise UsageError(f"{where}: headers must be texts")


def _pairs(value: Any) -> list[Any]:
    return [value] if _is_pair(value) else value


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and [type(one) for one in value] == [str, str]


def _kind_words(kinds: tuple[type, ...]) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        dict: "a table",
        list: "a list",
    }
    return " or ".join(words[kind] for kind in kinds if not (kind is int and float in kinds))
