"""A server that replays pages of opportunities over loopback TLS, in a process of its own.

Pages are one text made beforehand, but for the end of the keys and the instant rows were made, which are filled in: the
server has to cost little, so that it is not what is measured. It answers what the ways that are compared ask: pages
(also tracked, and by ranges of ``createdon``), and the table's names.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from urllib.parse import parse_qs, unquote_plus

from werkzeug.wrappers import Request, Response

from d365sync.core.schema import GUID_TYPES, Column, ColumnType, DateBehavior, Table
from d365sync.core.storage import scale_of
from d365sync.core.values import format_instant, parse_instant
from d365sync.emulator.schema.loader import build_catalogue
from d365sync.emulator.server import serving

BASE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LEFT_OUT = "createdonbehalfby"
KEY_END, MADE = b"KEYENDKEYEND", b"MADEMADEMADEMADEMADE"
PAGE_OF = re.compile(r"page=(\d+)")
SPAN = re.compile(r"createdon (ge|lt) (\S+?Z)")
LIST = "/api/data/v9.2/opportunities"


@dataclass(frozen=True, slots=True)
class Replay:
    """How many rows, in pages of which size, each answered after how many seconds.

    ``by_the_second`` makes a row each second, for ranges; otherwise those of a page are made at one instant.
    ``compressed`` sends gzip, as Dataverse does, prepared before anything is asked.
    """

    rows: int
    page_rows: int = 5000
    delay_s: float = 0.0
    by_the_second: bool = False
    compressed: bool = False


@cache
def table() -> Table:
    """Return the table whose rows are replayed."""
    return build_catalogue({}, {}).schema.table("opportunity")


@cache
def columns() -> tuple[Column, ...]:
    """Return the 37 columns that are asked for, the key first."""
    return tuple(column for column in table().columns.values() if column.logical_name != LEFT_OUT)


@contextmanager
def replaying(replay: Replay) -> Iterator[tuple[str, str]]:
    """Serve until the block ends; yield the address and the file of the certificate authority."""
    command = [sys.executable, "-m", __name__, json.dumps(asdict(replay))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, ca_file = json.loads(process.stdout.readline())
        try:
            yield address, ca_file
        finally:
            process.terminate()


class Pages:
    """The replayed table; one row is made each second, in order."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        dice = random.Random(5)
        self._fragments = [_fragment(dice) for _ in range(replay.page_rows)]
        self._template = b",".join(self._fragments)
        self._kept: dict[str, bytes] = {}

    def __call__(self, environ: dict[str, object], start: object) -> object:
        """Answer one request (WSGI)."""
        time.sleep(self._replay.delay_s)
        request = Request(environ)
        body = self._answer(request)
        response = Response(body, content_type="application/json; odata.metadata=minimal")
        if self._replay.compressed and "gzip" in request.headers.get("Accept-Encoding", ""):
            response.set_data(self._squeezed(request.full_path, body))
            response.headers["Content-Encoding"] = "gzip"
        response.headers["x-ms-dop-hint"] = "16"
        return response(environ, start)  # type: ignore[arg-type]

    def _answer(self, request: Request) -> bytes:
        if "EntityDefinitions" in request.path:
            return self._definitions()
        if "RetrieveTotalRecordCount" in request.path:
            counts = {"Count": 1, "Keys": ["opportunity"], "Values": [self._replay.rows]}
            return json.dumps({"EntityRecordCountCollection": counts}).encode()
        return self._rows(request)

    def _squeezed(self, path: str, body: bytes) -> bytes:
        """Return a body compressed; it is kept, so that only the first, unmeasured way waits for it."""
        if path not in self._kept:
            self._kept[path] = gzip.compress(body, 5)
        return self._kept[path]

    def _definitions(self) -> bytes:
        entry = {"LogicalName": "opportunity", "EntitySetName": "opportunities", "PrimaryIdAttribute": "opportunityid"}
        return json.dumps({"value": [entry]}).encode()

    def _rows(self, request: Request) -> bytes:
        query = request.query_string.decode()
        root = f"{request.host_url.rstrip('/')}{LIST}"
        options = {name: values[0] for name, values in parse_qs(query).items()}
        if "$deltatoken" in options:
            return self._page(range(0), "deltaLink", f"{root}?$deltatoken=2")
        if "$top" in options:
            at = 0 if "asc" in options["$orderby"] else self._replay.rows - 1
            return json.dumps({"value": [{"createdon": made(at)}]}).encode()
        first, end = self._span(unquote_plus(query))
        start = first + self._replay.page_rows * int((PAGE_OF.search(query) or ["", "0"])[1])
        stop = min(start + self._replay.page_rows, end)
        if stop < end:
            number = (stop - first) // self._replay.page_rows
            kept = "&".join(part for part in query.split("&") if not part.startswith("page="))
            return self._page(range(start, stop), "nextLink", f"{root}?{kept}&page={number}")
        return self._page(range(start, stop), "deltaLink", f"{root}?$deltatoken=1" if "filter" not in query else "")

    def _span(self, query: str) -> tuple[int, int]:
        if "createdon eq null" in query:
            return 0, 0
        bounds = {word: int((parse_instant(instant) - BASE).total_seconds()) for word, instant in SPAN.findall(query)}
        return max(bounds.get("ge", 0), 0), min(bounds.get("lt", self._replay.rows), self._replay.rows)

    def _page(self, rows: range, name: str, link: str) -> bytes:
        ending = f',"@odata.{name}":{json.dumps(link)}' if link else ""
        whole = len(rows) == self._replay.page_rows and rows.start % self._replay.page_rows == 0
        filled = self._whole(rows.start) if whole and not self._replay.by_the_second else self._rendered(rows)
        return b'{"@odata.context":"$metadata#opportunities","value":[' + filled + f"]{ending}}}".encode()

    def _whole(self, start: int) -> bytes:
        """Return a page whose rows share the end of their keys: two replacements, whatever its size."""
        return self._template.replace(KEY_END, b"%012x" % start).replace(MADE, made(start).encode())

    def _rendered(self, rows: range) -> bytes:
        return b",".join(
            self._fragments[number % self._replay.page_rows]
            .replace(KEY_END, b"%012x" % number)
            .replace(MADE, made(number).encode())
            for number in rows
        )


def made(number: int) -> str:
    """Return when the row of a number was made."""
    return format_instant(BASE + dt.timedelta(seconds=number))


def _fragment(dice: random.Random) -> bytes:
    parts = [f'"@odata.etag":"W/\\"{dice.randrange(10**6, 10**8)}\\""']
    for column in columns():
        parts.append(f'"{column.property_name}":{_spelled(column, dice)}')
        if column.is_polymorphic:
            target = column.targets[0] if column.targets else "systemuser"
            parts.append(f'"{column.property_name}@Microsoft.Dynamics.CRM.lookuplogicalname":"{target}"')
    return ("{" + ",".join(parts) + "}").encode()


def _spelled(column: Column, dice: random.Random) -> str:
    if column.logical_name == "opportunityid":
        return f'"{_key(dice)[:-12]}{KEY_END.decode()}"'
    if column.logical_name == "createdon":
        return f'"{MADE.decode()}"'
    if column.type in GUID_TYPES:
        return f'"{_key(dice)}"' if dice.random() < 0.8 else "null"
    day = f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
    spelled = {
        ColumnType.MONEY: f"{dice.randrange(10**11)}.{dice.randrange(10**4):04}",
        ColumnType.DECIMAL: f"1.{dice.randrange(10**9):0{scale_of(column)}}",
        ColumnType.STRING: json.dumps(f"Renewal {dice.randrange(10**6)} of a deal"),
        ColumnType.BOOLEAN: dice.choice(["true", "false"]),
        ColumnType.DATETIME: f'"{day}"'
        if column.date_behavior is DateBehavior.DATE_ONLY
        else f'"{day}T12:{dice.randint(10, 59)}:07Z"',
        ColumnType.BIGINT: str(dice.randrange(10**6, 10**8)),
    }
    return spelled.get(column.type, str(dice.randrange(4)))


def _key(dice: random.Random) -> str:
    text = f"{dice.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def main() -> None:
    """Serve the pages described by the argument until the process is ended."""
    with serving(Pages(Replay(**json.loads(sys.argv[1]))), 0, lambda: dt.datetime.now(dt.UTC)) as (address, ca_file):  # type: ignore[arg-type]
        print(json.dumps([address, str(ca_file)]), flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main()
