"""The mirror that the benchmarks measure on: generated, the same in every run, kept from one run to the next.

One million opportunities (or as many as asked for) belong to the owners of the goals, some to nobody of them; they
close within thirteen months, of which twelve are the goals' year. Amounts are in four currencies with odd rates, so
most have four decimals. The tables are made and their bookmarks saved by the mirror itself, the rows appended in
stored spelling, as a pull would leave them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.rowshape import ETAG_KEY
from d365sync.core.schema import Schema
from d365sync.core.storage import FOLD_SUFFIX
from d365sync.core.values import Row, Value
from d365sync.emulator.schema.loader import build_catalogue
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import ETAG_COLUMN, LOAD_COLUMN, MirrorTable
from d365sync.sync.pull import mirror_table
from tests.bench import goals
from tests.bench.goals import YEAR, guid

NOW = dt.datetime(YEAR, 11, 20, 9, tzinfo=dt.UTC)
OPPORTUNITY_COLUMNS = (
    "name", "statecode", "statuscode", "ownerid", "actualvalue", "actualvalue_base", "actualclosedate",
    "estimatedvalue", "estimatedvalue_base", "estimatedclosedate", "transactioncurrencyid", "exchangerate",
    "parentaccountid", "salesstage", "modifiedon",
)  # fmt: skip
ACCOUNT_COLUMNS = ("name", "industrycode", "ownerid")
CURRENCIES = (("EUR", 10_000_000_000), ("USD", 10_834_561_237), ("GBP", 8_561_234_567), ("IRR", 453_210_987_654_321))
"""Code, and units of it for one unit of the base currency, times 10**10: how ``exchangerate`` is stored."""
RATE_SCALE = 10**10
FIRST_DAY = dt.date(YEAR - 1, 12, 1)
DAYS = 396
PER_STATEMENT = 20_000

Stored = dict[str, int | float | str | None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much to generate: opportunities, team leaders and sellers with goals, rollup queries."""

    rows: int
    teams: int
    sellers: int
    queries: int = 0

    @property
    def goals(self) -> int:
        """The number of goals."""
        return 2 * len(goals.periods()) * (2 + self.teams + self.sellers)

    @property
    def accounts(self) -> int:
        """The number of accounts that opportunities point to."""
        return max(5, self.rows // 50)

    def scaled(self, scale: float) -> Size:
        """Return the same in small; two teams, two sellers each and six queries at the least."""
        sellers, queries = max(4, int(self.sellers * scale)), max(6, int(self.queries * scale))
        return Size(
            max(200, int(self.rows * scale)), max(2, int(self.teams * scale)), sellers, queries if self.queries else 0
        )


def database(size: Size, folder: Path) -> Path:
    """Return the file of a mirror of that size in a folder, generating it if it is not there."""
    sources = b"".join(Path(module).read_bytes() for module in (__file__, str(goals.__file__)))
    shapes = "".join(table.shape for table in tables().values())
    key = hashlib.sha256(sources + f"{shapes}{size}".encode()).hexdigest()[:16]
    file = folder / f"mirror-{key}.db"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            fill(Path(work) / "mirror.db", size)
            shutil.move(Path(work) / "mirror.db", file)
    return file


def schema() -> Schema:
    """Return the definitions of the platform's tables."""
    return build_catalogue({}, {}).schema


def tables() -> Mapping[str, MirrorTable]:
    """Return the tables as they are mirrored."""
    known = schema()
    wanted = {**BOOK_COLUMNS, "opportunity": OPPORTUNITY_COLUMNS, "account": ACCOUNT_COLUMNS}
    return {name: mirror_table(known.table(name), columns) for name, columns in wanted.items()}


def fill(file: Path, size: Size) -> None:
    """Make the mirror of a size in a new file."""
    made = tables()
    mirror = Mirror.open(f"sqlite:///{file}")
    for name, table in made.items():
        mirror.ensure(table)
        mirror.save_definitions({name: msgspec.json.encode(table.table).decode()}, NOW)
    mirror.close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        for name, rows in _small_tables(size).items():
            _append(connection, made[name], (made[name].stored_row(_versioned(row), 0) for row in rows))
        names = [name for name, _ in made["opportunity"].stored_columns]
        stored = (tuple(row.get(name) for name in names) for row in opportunities(size))
        _append(connection, made["opportunity"], stored)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    mirror = Mirror.open(f"sqlite:///{file}")
    for table in made.values():
        mirror.apply(table, [], last=Position(NOW, delta_link="next", swept_at=NOW))
    mirror.close()


def _append(connection: sqlite3.Connection, table: MirrorTable, rows: Iterable[tuple[object, ...]]) -> None:
    marks = ", ".join("?" * len(table.stored_columns))
    remaining = iter(rows)
    while batch := list(islice(remaining, PER_STATEMENT)):
        connection.executemany(f'INSERT INTO "{table.name}" VALUES ({marks})', batch)


def _versioned(row: Row) -> Row:
    return {"versionnumber": 1, ETAG_KEY: 'W/"1"', **row}


def _small_tables(size: Size) -> dict[str, Iterable[Row]]:
    owners = goals.users(size.teams, size.sellers)
    return {
        **goals.defining_rows(size.queries),
        "goal": goals.goal_rows(size.teams, size.sellers, size.queries),
        "systemuser": ({"systemuserid": one, "fullname": f"User {n}"} for n, one in enumerate(owners)),
        "account": map(_account, range(size.accounts)),
        "transactioncurrency": [
            {"transactioncurrencyid": guid("currency", n), "isocurrencycode": code, "currencyname": code}
            for n, (code, _) in enumerate(CURRENCIES)
        ],
        "organization": [
            {
                "organizationid": guid("organization"),
                "name": "Generated",
                "basecurrencyid": guid("currency", 0),
                "basecurrencyprecision": 4,
                "fiscalcalendarstart": dt.datetime(YEAR, 1, 1, tzinfo=dt.UTC),
                "fiscalperiodtype": 2002,
            }
        ],
    }


def _account(n: int) -> dict[str, Value]:
    return {
        "accountid": guid("account", n),
        "name": f"Account {n}",
        "industrycode": n % 12,
        "ownerid": guid("user", 0),
        "owneridtype": "systemuser",
    }


def opportunities(size: Size) -> Iterator[Stored]:
    """Return the opportunities in stored spelling, money in ten-thousandths."""
    draw = random.Random(size.rows)
    owners = [*goals.users(size.teams, size.sellers), *(guid("other", n) for n in range(size.sellers // 10 + 1))]
    days = [(FIRST_DAY + dt.timedelta(days=n)).isoformat() for n in range(DAYS)]
    accounts = [guid("account", n) for n in range(size.accounts)]
    currencies = [(guid("currency", n), rate) for n, (_, rate) in enumerate(CURRENCIES)]
    for n in range(size.rows):
        yield _opportunity(n, draw, owners, days, accounts, currencies)


def _opportunity(
    n: int,
    draw: random.Random,
    owners: list[str],
    days: list[str],
    accounts: list[str],
    currencies: list[tuple[str, int]],
) -> Stored:
    bits = draw.getrandbits(128)
    key = f"{bits:032x}"
    share = draw.random()
    state = 1 if share < 0.45 else 0 if share < 0.8 else 2
    currency, rate = currencies[min(bits & 15, 3) if bits & 16 else 0]
    estimated = (bits >> 20) % 1_000_000_0000 * rate // RATE_SCALE
    actual = estimated * (80 + (bits >> 8) % 41) // 100 if state == 1 else None
    name = f"Deal {n}"
    return {
        "opportunityid": f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}",
        "name": name,
        "name" + FOLD_SUFFIX: name.casefold(),
        "statecode": state,
        "statuscode": 3 if state == 1 else 1 + state * 3 // 2 + (bits >> 5) % 2,
        "ownerid": owners[int(draw.random() * len(owners))],
        "owneridtype": "systemuser",
        "actualvalue": actual,
        "actualvalue_base": None if actual is None else actual * RATE_SCALE // rate,
        "actualclosedate": days[(bits >> 64) % DAYS] if state else None,
        "estimatedvalue": estimated,
        "estimatedvalue_base": estimated * RATE_SCALE // rate,
        "estimatedclosedate": days[(bits >> 75) % DAYS],
        "transactioncurrencyid": currency,
        "exchangerate": rate,
        "parentaccountid": None if bits >> 124 == 0 else accounts[(bits >> 90) % len(accounts)],
        "salesstage": (bits >> 40) % 4,
        "modifiedon": f"{YEAR}-11-01T00:00:00Z",
        "versionnumber": n + 1,
        ETAG_COLUMN: f'W/"{n + 1}"',
        LOAD_COLUMN: 0,
    }
