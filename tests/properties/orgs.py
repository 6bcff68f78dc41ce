"""Random small organizations: goals in trees, records at the edges of periods, queries, currencies, odd values."""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

LOOKUP = "@Microsoft.Dynamics.CRM.lookuplogicalname"
Row = dict[str, Any]

DAYS = ["2026-09-30", "2026-10-01", "2026-10-15", "2026-12-31", "2027-01-01", None]
INSTANTS = [
    "2026-09-30T21:59:59Z", "2026-09-30T22:00:00Z", "2026-09-30T23:59:59Z", "2026-10-01T00:00:00Z",
    "2026-11-05T12:00:00Z", "2026-12-31T22:59:59Z", "2026-12-31T23:00:00Z", "2026-12-31T23:59:59Z",
    "2027-01-01T00:00:00Z", None,
]  # fmt: skip
AMOUNTS = ["0", "0.01", "99.9999", "100", "1234567.89", "922337203685.4775", "-50.5", None]
RATES = ["1", "1.07", "0.9", "42000.5", "1.123456789012"]
CONDITIONS = [
    '<condition attribute="actualvalue" operator="gt" value="100"/>',
    '<condition attribute="name" operator="like" value="%a%"/>',
    '<condition attribute="name" operator="ne" value="ANNA"/>',
    '<condition attribute="name" operator="begins-with" value="b"/>',
    '<condition attribute="statuscode" operator="in"><value>3</value><value>1</value></condition>',
    '<condition attribute="salesstage" operator="null"/>',
    '<condition attribute="estimatedvalue" operator="between"><value>0</value><value>5000</value></condition>',
    '<condition attribute="ownerid" operator="eq-userid"/>',
    '<condition attribute="ownerid" operator="ne-userid"/>',
    '<condition attribute="ownerid" operator="eq-useroruserteams"/>',
    '<condition attribute="ownerid" operator="eq-useroruserhierarchyandteams"/>',
    '<condition attribute="owningbusinessunit" operator="eq-businessid"/>',
    (
        '<filter type="or"><condition attribute="salesstage" operator="eq" value="2"/>'
        '<condition attribute="actualclosedate" operator="on-or-after" value="2026-10-15"/></filter>'
    ),
]
LINK = (
    '<link-entity name="account" from="accountid" to="parentaccountid" link-type="inner"><filter>'
    '<condition attribute="name" operator="eq" value="acme"/></filter></link-entity>'
)
NAMES = ["Anna", "anna", "Bob", "Ünal", "a%b", "", "zeta"]


class Maker:
    """Makes one organization from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.users = [self.guid() for _ in range(3)]
        self.teams = [self.guid()]
        self.currencies = [self.guid(), self.guid()]
        self.accounts = [self.guid() for _ in range(2)]
        self.queries = [self.guid() for _ in range(3)]
        self.units = [self.guid() for _ in range(2)]

    def guid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def pick(self, values: Sequence[Any]) -> Any:
        return self.random.choice(values)

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def owner(self, column: str) -> Row:
        team = self.often(0.2)
        return {
            f"_{column}_value": self.pick(self.teams if team else self.users),
            f"_{column}_value{LOOKUP}": "team" if team else "systemuser",
        }

    def amount(self) -> Decimal | None:
        text = self.pick(AMOUNTS)
        return None if text is None else Decimal(text)

    def org(self) -> dict[str, list[Row]]:
        deals = [self.deal() for _ in range(self.random.randint(0, 25))]
        metrics = {name: self.guid() for name in ("money", "decimal", "integer", "calls")}
        return {
            "transactioncurrencies": [
                {
                    "transactioncurrencyid": one,
                    "isocurrencycode": code,
                    "currencyname": code,
                    "exchangerate": Decimal(rate),
                }
                for one, code, rate in zip(self.currencies, ("EUR", "USD"), ("1", "1.1"), strict=True)
            ],
            "organizations": [
                {
                    "organizationid": self.guid(),
                    "name": "random",
                    "_basecurrencyid_value": self.currencies[0],
                    "fiscalcalendarstart": "2026-01-01T00:00:00Z",
                    "fiscalperiodtype": 2002,
                }
            ],
            "businessunits": [{"businessunitid": one, "name": "unit"} for one in self.units],
            "systemusers": [self.user(n, one) for n, one in enumerate(self.users)],
            "teammemberships": [
                {"teammembershipid": self.guid(), "teamid": team, "systemuserid": user}
                for team in self.teams
                for user in self.users
                if self.often(0.5)
            ],
            "teams": [{"teamid": one, "name": f"Team {n}"} for n, one in enumerate(self.teams)],
            "accounts": [
                {"accountid": one, "name": name} for one, name in zip(self.accounts, ("Acme", "Other"), strict=True)
            ],
            "opportunities": deals,
            "opportunityproducts": [self.product(deals) for _ in range(self.random.randint(0, 12) if deals else 0)],
            "phonecalls": [self.call() for _ in range(self.random.randint(0, 20))],
            "metrics": [
                {"metricid": metrics["money"], "name": "Money", "isamount": True, "amountdatatype": 0},
                {"metricid": metrics["decimal"], "name": "Decimal", "isamount": True, "amountdatatype": 1},
                {"metricid": metrics["integer"], "name": "Integer", "isamount": True, "amountdatatype": 2},
                {
                    "metricid": metrics["calls"],
                    "name": "Calls",
                    "isamount": False,
                    "amountdatatype": self.pick([2, None]),
                },
            ],
            "rollupfields": list(self.fields(metrics)),
            "goalrollupqueries": [self.query(one) for one in self.queries],
            "goals": self.goals(metrics),
        }

    def user(self, number: int, user_id: str) -> Row:
        return {
            "systemuserid": user_id,
            "fullname": f"User {number}",
            "_businessunitid_value": self.pick(self.units),
            "_parentsystemuserid_value": self.pick([None, *self.users]),
        }

    def deal(self) -> Row:
        state, status = self.pick([(0, 1), (0, 2), (1, 3), (1, 3), (2, 4), (2, 5)])
        return {
            "opportunityid": self.guid(),
            "name": self.pick(NAMES),
            "statecode": state,
            "statuscode": status,
            **self.owner("ownerid"),
            "actualvalue": self.amount(),
            "actualclosedate": self.pick(DAYS),
            "estimatedvalue": self.amount(),
            "estimatedclosedate": self.pick(DAYS),
            "salesstage": self.pick([0, 1, 2, 3, None]),
            "_transactioncurrencyid_value": self.pick(self.currencies),
            "exchangerate": Decimal(self.pick(RATES)),
            "_parentaccountid_value": self.pick([*self.accounts, None]),
        }

    def product(self, deals: list[Row]) -> Row:
        return {
            "opportunityproductid": self.guid(),
            "productname": self.pick(NAMES),
            "_opportunityid_value": self.pick(deals)["opportunityid"],
            "quantity": Decimal(self.pick(["1", "2.5", "0.00001", "99999.99999", "-3"])),
        }

    def call(self) -> Row:
        state, status = self.pick([(0, 1), (1, 2), (1, 4), (2, 3)])
        return {
            "activityid": self.guid(),
            "subject": self.pick(NAMES),
            "statecode": state,
            "statuscode": status,
            **self.owner("ownerid"),
            "actualend": self.pick(INSTANTS),
            "scheduledend": self.pick(INSTANTS),
            "actualdurationminutes": self.pick([0, 5, 90, None]),
        }

    def fields(self, metrics: dict[str, str]) -> Any:
        deal, call = ("opportunity",) * 2, ("phonecall",) * 2
        line = ("opportunityproduct", "opportunity")
        recipes = [
            ("money", "actualmoney", deal, "actualvalue", 1, "actualclosedate", None),
            ("money", "inprogressmoney", deal, "estimatedvalue", 0, "estimatedclosedate", None),
            ("money", "customrollupfieldmoney", deal, "estimatedvalue", 2, "actualclosedate", self.pick([None, 4])),
            ("decimal", "actualdecimal", line, "quantity", 1, "actualclosedate", None),
            ("decimal", "inprogressdecimal", line, "quantity", 0, "estimatedclosedate", self.pick([None, 1])),
            ("integer", "actualinteger", call, "actualdurationminutes", 1, "actualend", None),
            ("calls", "actualinteger", call, None, 1, "actualend", self.pick([None, 4])),
            ("calls", "inprogressinteger", call, None, 0, "scheduledend", None),
        ]
        for metric, column, (source, dated), summed, state, date, status in recipes:
            if self.often(0.85):
                yield {
                    "rollupfieldid": self.guid(),
                    "_metricid_value": metrics[metric],
                    "goalattribute": column,
                    "sourceentity": source,
                    "sourceattribute": summed,
                    "sourcestate": state,
                    "sourcestatus": status,
                    "dateattribute": date,
                    "entityfordateattribute": dated,
                    "isstateparententityattribute": source != dated,
                }

    def query(self, query_id: str) -> Row:
        conditions = "".join(self.random.sample(CONDITIONS, self.random.randint(0, 2)))
        link = LINK if self.often(0.3) else ""
        return {
            "goalrollupqueryid": query_id,
            "name": "query",
            "queryentitytype": "opportunity",
            "fetchxml": '<fetch><entity name="opportunity"><attribute name="name"/>'
            f"<filter>{conditions}</filter>{link}</entity></fetch>",
        }

    def goals(self, metrics: dict[str, str]) -> list[Row]:
        goals: list[Row] = []
        for metric in metrics:
            tree: list[Row] = []
            for _ in range(self.random.randint(0, 6)):
                tree.append(self.goal(metric, metrics[metric], tree))
            goals += tree
        return goals

    def goal(self, kind: str, metric_id: str, tree: list[Row]) -> Row:
        data_type = {"calls": "integer"}.get(kind, kind)
        goal: Row = {
            "goalid": self.guid(),
            "title": f"{kind} {len(tree)}",
            "_metricid_value": metric_id,
            **self.owner("goalownerid"),
            "_ownerid_value": self.pick(self.users),
            f"_ownerid_value{LOOKUP}": "systemuser",
            "_parentgoalid_value": self.pick(tree)["goalid"] if tree and self.often(0.8) else None,
            "isfiscalperiodgoal": True,
            "fiscalyear": 2026,
            "fiscalperiod": 4,
            "consideronlygoalownersrecords": self.often(0.7),
            "rolluponlyfromchildgoals": self.often(0.3),
            f"target{data_type}": self.pick([None, 0, 7, 1000]),
        }
        if self.often(0.8):
            goal |= {"goalstartdate": "2026-10-01T00:00:00Z", "goalenddate": "2026-12-31T00:00:00Z"}
        if data_type == "money":
            for category in ("actual", "inprogress", "custom"):
                if self.often(0.5):
                    goal[f"_rollupquery{category}moneyid_value"] = self.pick(self.queries)
        if self.often(0.5):
            goal[f"actual{data_type}"] = self.pick([0, 5, 100])
        goal |= self.pick([{}, {}, {}, {}, {"statecode": 1, "statuscode": 1}, {"isoverridden": True}])
        return goal


def write_random_org(seed: int, folder: Path) -> None:
    """Write the org folder of a seed."""
    write_org(Maker(seed).org(), folder)


def write_org(org: dict[str, list[Row]], folder: Path) -> None:
    """Write an org folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in org.items():
        text = json.dumps(rows, default=lambda value: f"#{value:f}#")
        (folder / f"{name}.json").write_text(re.sub(r'"#(-?[\d.]+)#"', r"\1", text), encoding="utf-8")
