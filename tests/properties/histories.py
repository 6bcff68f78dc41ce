"""Random histories: organizations in a zone, periods of every length, queries that depend on the day; then edits."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from d365sync.core.values import Row, Value, parse_instant
from d365sync.emulator import Emulator
from tests.properties.orgs import DAYS, INSTANTS, RATES, Maker

ZONES = ["UTC", "Europe/Berlin", "Asia/Tehran", "America/Los_Angeles", "Pacific/Apia"]
START = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
PERIODS = [
    ("2026-10-01", "2026-12-31"), ("2026-10-01", "2026-10-31"), ("2026-11-01", "2026-11-30"),
    ("2026-12-01", "2026-12-31"), ("2026-01-01", "2026-12-31"), ("2026-11-15", "2026-11-15"),
    ("2026-09-23", "2026-12-21"), ("2026-10-15", "2027-01-14"),
]  # fmt: skip
RELATIVE = [
    '<condition attribute="actualclosedate" operator="last-x-days" value="{n}"/>',
    '<condition attribute="actualclosedate" operator="this-month"/>',
    '<condition attribute="actualclosedate" operator="on-or-before" value="2026-11-2{n}"/>',
    '<condition attribute="createdon" operator="last-x-hours" value="{n}"/>',
    '<condition attribute="createdon" operator="today"/>',
    '<condition attribute="createdon" operator="olderthan-x-days" value="{n}"/>',
    '<condition attribute="estimatedclosedate" operator="next-x-weeks" value="{n}"/>',
    '<condition attribute="actualclosedate" operator="in-fiscal-period" value="4"/>',
    '<condition attribute="actualclosedate" operator="this-fiscal-year"/>',
]
QUANTIFIED = [
    (
        '<filter type="or"><link-entity name="opportunityproduct" from="opportunityid" to="opportunityid" '
        'link-type="any"><filter><condition attribute="quantity" operator="gt" value="1"/></filter></link-entity>'
        '<condition attribute="salesstage" operator="eq" value="2"/></filter>'
    ),
    (
        '<filter><link-entity name="opportunity" from="parentaccountid" to="parentaccountid" link-type="not any">'
        '<filter><condition attribute="statecode" operator="eq" value="2"/></filter></link-entity></filter>'
    ),
]
TABLES = (
    ["opportunity"] * 6
    + ["phonecall"] * 2
    + ["opportunityproduct"] * 2
    + ["goal"] * 3
    + ["goalrollupquery"]
    + [
        "account",
        "transactioncurrency",
        "rollupfield",
    ]
)


class HistoryMaker(Maker):
    """Makes organizations whose goals lie in a zone and have many periods."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.zone = self.pick(ZONES)
        self.queries = [self.guid() for _ in range(5)]

    def day(self, text: str) -> str:
        """Return a day's midnight in the zone, as the Web API spells it."""
        midnight = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), ZoneInfo(self.zone))
        return midnight.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def deal(self) -> dict[str, Any]:
        return {**super().deal(), "createdon": self.pick([one for one in INSTANTS if one])}

    def goal(self, kind: str, metric_id: str, tree: list[dict[str, Any]]) -> dict[str, Any]:
        goal = super().goal(kind, metric_id, tree)
        parent = goal["_parentgoalid_value"]
        above = next((one for one in tree if one["goalid"] == parent), None)
        first, last = self.pick(PERIODS)
        period = {"goalstartdate": self.day(first), "goalenddate": self.day(last)}
        if above is not None:
            period = {name: above.get(name) for name in period}
        return goal | period | {"isfiscalperiodgoal": False, "fiscalyear": None, "fiscalperiod": None}

    def query(self, query_id: str) -> dict[str, Any]:
        return {**super().query(query_id), "fetchxml": self.query_text()}

    def query_text(self) -> str:
        """Return a query: one in three looks at the day, one in three at related rows."""
        text = str(super().query("")["fetchxml"])
        more = ""
        if self.often(0.4):
            more += self.pick(RELATIVE).format(n=self.pick([1, 3, 9]))
        if self.often(0.3):
            more += self.pick(QUANTIFIED)
        return text.replace("</filter></entity>", f"{more}</filter></entity>") if "</filter></entity>" in text else text


def edit(emulator: Emulator, maker: HistoryMaker, dice: random.Random) -> None:
    """Do one thing that somebody could do: to a record, a goal, a query, a currency, or let time pass."""
    if dice.random() < 0.12:
        emulator.clock.advance(dt.timedelta(hours=dice.choice([1, 7, 16, 30])))
        return
    store = emulator.store
    table = dice.choice(TABLES)
    rows = list(store.rows(table).values())
    if not rows:
        return
    row, key = dice.choice(rows), store.catalogue.tables[table].key
    deletable = table not in ("goal", "goalrollupquery", "transactioncurrency", "rollupfield")
    if deletable and dice.random() < 0.2:
        store.remove(table, str(row[key]))
    elif table in ("opportunity", "phonecall", "opportunityproduct") and dice.random() < 0.25:
        store.put(table, {**row, key: maker.guid()})
    else:
        store.change(table, str(row[key]), _change(table, row, rows, maker, dice))


def _change(table: str, row: Row, rows: list[Row], maker: HistoryMaker, dice: random.Random) -> Mapping[str, Value]:
    if table == "opportunity":
        return _deal_change(row, maker, dice)
    if table == "goal":
        return _goal_change(row, rows, maker, dice)
    if table == "goalrollupquery":
        return {"fetchxml": maker.query_text()}
    if table == "account":
        return {"name": dice.choice(["Acme", "Other"])}
    if table == "transactioncurrency":
        return {"exchangerate": Decimal(dice.choice(RATES))}
    if table == "rollupfield":
        return {"sourcestatus": None}
    if table == "phonecall":
        when = dice.choice(INSTANTS)
        return {"statecode": dice.choice([0, 1]), "actualend": parse_instant(when) if when else None}
    return {"quantity": Decimal(dice.randint(0, 10**6)).scaleb(-5)}


def _deal_change(row: Row, maker: HistoryMaker, dice: random.Random) -> Mapping[str, Value]:
    amount, rate = Decimal(dice.randint(0, 10**6)).scaleb(-2), Decimal(dice.choice(RATES))
    day = dt.date.fromisoformat(dice.choice([day for day in DAYS if day]))
    return dice.choice(
        [
            {"actualvalue": amount, "actualvalue_base": amount},
            {"exchangerate": rate, "actualvalue": amount, "actualvalue_base": round(amount / rate, 4)},
            {"name": dice.choice(["Anna", "x"])},
            {"statecode": 1, "statuscode": 3, "actualclosedate": day},
            {"statecode": 2, "statuscode": 4, "actualclosedate": day},
            {"statecode": 0, "statuscode": 1, "actualclosedate": None},
            {"ownerid": dice.choice(maker.users), "owneridtype": "systemuser"},
            {"ownerid": maker.teams[0], "owneridtype": "team"},
            {"parentaccountid": dice.choice([*maker.accounts, None])},
        ]
    )


def _goal_change(row: Row, rows: list[Row], maker: HistoryMaker, dice: random.Random) -> Mapping[str, Value]:
    """Change a goal's definition; a move stays within its metric and never makes a circle."""
    younger = {str(one["goalid"]) for one in rows[: rows.index(row)]}
    parents = [one for one in rows if one["goalid"] in younger and one.get("metricid") == row.get("metricid")]
    first, last = (parse_instant(maker.day(day)) for day in dice.choice(PERIODS))
    alone = row.get("parentgoalid") is None and not any(one.get("parentgoalid") == row["goalid"] for one in rows)
    return dice.choice(
        [
            {"consideronlygoalownersrecords": dice.random() < 0.5},
            {"rolluponlyfromchildgoals": dice.random() < 0.5},
            {"goalownerid": dice.choice(maker.users), "goalowneridtype": "systemuser"},
            {"parentgoalid": dice.choice([None, *(str(one["goalid"]) for one in parents)])},
            {"goalstartdate": first, "goalenddate": last} if alone else {},
            {"rollupqueryactualmoneyid": dice.choice([None, *maker.queries])},
        ]
    )
