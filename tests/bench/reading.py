"""Reading a table: pull and store against merely listing and against the bare limit, by ranges against page after page.

Every way runs in a process of its own, which prints seconds, rows, a checksum of the money and its peak memory.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import requests
import structlog

from d365sync.config import PullSection
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.retry import RetryPolicy
from d365sync.dataverse.session import make_session
from d365sync.dataverse.transport import Transport
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.collecting import uncollected
from d365sync.sync.pull import Puller
from tests.bench.large import peak_mib
from tests.bench.replay import LIST, Replay, columns, replaying, table

NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
LIMIT_MIB = 200
RANGES = 16
PAGE_ROWS = 100
"""Rows of a page where waiting is measured; ten pages of so many make a table large."""
FEW = 5000
"""Fewer rows are no measurement: they only show that the ways agree, and need no processes of their own for that."""


class Token:
    """A token for all purposes: ours and Azure's."""

    token_text = "bench"

    def token(self, *, fresh: bool = False) -> str:
        """Return it."""
        return self.token_text

    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        """Return it with its end, as Azure's clients ask."""
        from azure.core.credentials import AccessToken

        return AccessToken(self.token_text, int(time.time()) + 3600)


class AsyncToken(Token):
    """The same for the async client."""

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        """Return it with its end."""
        return super().get_token(*scopes, **options)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> AsyncToken:
        """Return it."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Nothing is held open."""


@dataclass(frozen=True, slots=True)
class Read:
    """One way, measured: ``money`` is a checksum of estimatedvalue, None where rows are only listed."""

    seconds: float
    rows: int
    peak_mib: float
    money: int | None = None


def ours(url: str, ca_file: str, file: Path, partitions: int = 1, page_size: int = 5000) -> None:
    """Pull the table into a mirror, as the first cycle does."""
    wanted = frozenset(column.logical_name for column in columns())
    mirrored = MirrorTable(replace(table(), change_tracking=True), wanted)
    mirror = Mirror.open(f"sqlite:///{file}")
    transport = Transport(make_session(ca_file), url, Token(), retry=RetryPolicy(budget_s=60))
    client = DataverseClient(transport, page_size=page_size)
    if partitions > 1:
        other = MirrorTable(replace(table(), logical_name="other"), frozenset())
        mirror.ensure(other)
        mirror.apply(other, [], last=Position(NOW, delta_link=f"{url}{LIST}?$deltatoken=1"))
    Puller(client, mirror, PullSection(partitions=partitions), NOW).pull([mirrored])
    mirror.close()


def bare(url: str, ca_file: str, file: Path) -> None:
    """Read the same with a loop: requests, an exact decode, an append to SQLite, the index after.

    Amounts stay the text that they came as: the least that is exact. Nothing is checked, folded or respelled.
    """
    asked = columns()
    names = {one.logical_name: one.property_name for one in asked}
    row_type = msgspec.defstruct("Row", [(name, Any, None) for name in names], rename=names, gc=False)
    page_type = msgspec.defstruct(
        "Page",
        [("value", list[row_type]), ("next", str | None, None)],  # type: ignore[valid-type]
        rename={"next": "@odata.nextLink"},
    )
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(page_type, float_hook=str)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"CREATE TABLE opportunity ({', '.join(one.logical_name for one in asked)})")
    insert = f"INSERT INTO opportunity VALUES ({', '.join('?' * len(asked))})"
    link = f"{url}{LIST}?$select={','.join(names.values())}"
    with requests.Session() as session:
        while link:
            page = decoder.decode(session.get(link, verify=ca_file, timeout=60).content)
            connection.executemany(insert, map(msgspec.structs.astuple, page.value))
            connection.commit()
            link = page.next
    connection.execute("CREATE UNIQUE INDEX key ON opportunity (opportunityid)")
    connection.commit()
    connection.close()


def _stored(file: Path) -> tuple[int, int | None]:
    """Return how many rows were stored, and a checksum of their money; none where rows are only listed."""
    if not file.exists():
        return 0, None
    money = "SUM(CAST(REPLACE(estimatedvalue, '.', '') AS INTEGER) % 1000003)"
    with closing(sqlite3.connect(file)) as connection:
        rows, sum_ = connection.execute(f"SELECT COUNT(*), {money} FROM opportunity").fetchone()
    return int(rows), int(sum_)


def sdk(url: str, _ca_file: str, _file: Path) -> int:
    """List with Microsoft's client."""
    from PowerPlatform.Dataverse.client import DataverseClient as Theirs  # type: ignore[import-untyped,import-not-found,unused-ignore]

    selected = [column.property_name for column in columns()]
    with Theirs(url, Token()) as client:
        pages = client.records.list_pages("opportunity", select=selected, page_size=5000)
        return sum(len(page) for page in pages)


def sdk_async(url: str, _ca_file: str, _file: Path) -> int:
    """List with Microsoft's async client."""
    from PowerPlatform.Dataverse.aio.async_client import AsyncDataverseClient  # type: ignore[import-untyped,import-not-found,unused-ignore]

    selected = [column.property_name for column in columns()]

    async def listed() -> int:
        rows = 0
        async with AsyncDataverseClient(url, AsyncToken()) as client:
            async for page in client.records.list_pages("opportunity", select=selected, page_size=5000):
                rows += len(page)
        return rows

    return asyncio.run(listed())


WAYS: Mapping[str, Callable[[str, str, Path], int | None]] = {
    "pull and store": lambda url, ca_file, file: ours(url, ca_file, file, PullSection().partitions),
    "pull and store page after page": ours,
    "pull and store by ranges": lambda url, ca_file, file: ours(url, ca_file, file, RANGES, PAGE_ROWS),
    "the bare loop": bare,
    "Microsoft's client, listing": sdk,
    "Microsoft's async client, listing": sdk_async,
}
OURS, PAGED, RANGED, BARE, SDK, SDK_ASYNC = WAYS


def listing(part: str, rows: int, rounds: int) -> Iterator[str]:
    """Pull and store against Microsoft's clients that only list, without and with 100 ms a request."""
    for delay_s in (0.0, 0.1) if rounds > 1 else (0.1,):
        found = _compared(Replay(rows, delay_s=delay_s, compressed=True), [OURS, SDK, SDK_ASYNC, BARE], rounds)
        for other in (SDK, SDK_ASYNC):
            bound = 0.8 if delay_s else 1.0
            ratio = found[OURS].seconds / found[other].seconds
            yield _line(
                part,
                f"{rows:,} rows, {delay_s * 1000:.0f} ms a request",
                found,
                OURS,
                other,
                f"at most {bound}",
                ratio <= bound,
            )
        yield _line(part, f"{rows:,} rows, {delay_s * 1000:.0f} ms a request", found, OURS, BARE, "", None)


def million(part: str, rows: int, rounds: int) -> Iterator[str]:
    """Pull and store against the bare limit, and its memory."""
    found = _compared(Replay(rows), [PAGED, BARE], rounds)
    share = found[BARE].seconds / found[PAGED].seconds
    yield _line(part, f"{rows:,} rows", found, PAGED, BARE, "0.6 of its rows a second", share >= 0.6)
    yield _memory(part, found[PAGED])


def ranges(part: str, pages: int, page_rows: int, delay_s: float) -> Iterator[str]:
    """A first load by ranges against page after page, where a page takes its time."""
    replay = Replay(pages * page_rows, page_rows, delay_s, by_the_second=True)
    found = _compared(replay, [PAGED, RANGED], 1)
    share = found[PAGED].seconds / found[RANGED].seconds
    title = f"{pages} pages, {delay_s * 1000:.0f} ms each, {RANGES} ranges"
    yield _line(part, title, found, RANGED, PAGED, "8x as fast", share >= 8)
    full = Replay(20 * 50 * page_rows, 50 * page_rows, delay_s / 5, by_the_second=True)
    yield _memory(f"{part}, {full.rows:,} rows, {full.page_rows:,} a page", _compared(full, [RANGED], 1)[RANGED])


def _memory(title: str, read: Read) -> str:
    word = "yes" if read.peak_mib < LIMIT_MIB else "no"
    return f"| {title} | peak memory {read.peak_mib:.0f} MiB | | | | | under {LIMIT_MIB} MiB: {word} |"


def _compared(replay: Replay, ways: list[str], rounds: int) -> dict[str, Read]:
    """Measure ways in turn; all have read every row, and what is stored is the same."""
    reads: dict[str, list[Read]] = {way: [] for way in ways}
    with replaying(replay) as (url, ca_file):
        for way in ways if replay.compressed and rounds > 1 else ():
            _in_a_child(way, url, ca_file)  # every page is prepared then
        for _ in range(rounds):
            for way in ways:
                here = replay.rows < FEW and way in (OURS, PAGED, RANGED, BARE)
                reads[way].append((_here if here else _in_a_child)(way, url, ca_file))
    every = [one for some in reads.values() for one in some]
    if {one.rows for one in every} != {replay.rows} or len({one.money for one in every} - {None}) != 1:
        raise AssertionError(f"the ways did not read the same: {every}")
    return {
        way: replace(some[0], seconds=statistics.median(one.seconds for one in some)) for way, some in reads.items()
    }


def _in_a_child(way: str, url: str, ca_file: str) -> Read:
    command = [sys.executable, "-m", __name__, way, url, ca_file]
    trust = {**os.environ, "REQUESTS_CA_BUNDLE": ca_file, "SSL_CERT_FILE": ca_file}
    done = subprocess.run(
        command, check=True, env=trust, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    return Read(**json.loads(done.stdout.splitlines()[-1]))


def _line(part: str, title: str, found: Mapping[str, Read], ours: str, other: str, goal: str, met: bool | None) -> str:
    one, two = found[ours], found[other]
    verdict = "" if met is None else f"{goal}: {'yes' if met else 'no'}"
    return (
        f"| {part}, {title} | {ours} ({one.rows / one.seconds / 1000:,.0f} k rows/s) | {one.seconds * 1000:,.0f} | "
        f"{other} ({two.rows / two.seconds / 1000:,.0f} k rows/s) | {two.seconds * 1000:,.0f} | "
        f"{one.seconds / two.seconds:.2f} | {verdict} |"
    )


def _here(way: str, url: str, ca_file: str) -> Read:
    columns()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.db"
        started = time.perf_counter()
        with uncollected():
            listed = WAYS[way](url, ca_file, file)
        taken, peak = time.perf_counter() - started, peak_mib()
        rows, money = _stored(file)
    return Read(taken, listed or rows, peak, money)


def main() -> None:
    """Read in one way, and print what it took."""
    way, url, ca_file = sys.argv[1:]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if way in (SDK, SDK_ASYNC):
        import PowerPlatform.Dataverse.aio.async_client  # type: ignore[import-untyped,import-not-found,unused-ignore]
        import PowerPlatform.Dataverse.client  # noqa: F401 - half a second that is not measured
    print(json.dumps(asdict(_here(way, url, ca_file))))  # noqa: T201


if __name__ == "__main__":
    main()
