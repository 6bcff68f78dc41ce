"""Reads the goal cases of fixtures/goals and builds the org folder each describes."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.period import start_of_day
from d365sync.core.values import format_instant, parse_on

Cells = dict[str, str]
IDS = uuid.UUID("7b0c1f64-5b57-4f0e-9d31-0f9c4a2f6f11")
STATES = {"open": (0, 1), "won": (1, 3), "lost": (2, 4)}
CALL_STATES = {"open": (0, 1), "completed": (1, 2), "cancelled": (2, 3)}
METRICS = {"Revenue": ("money", True, 0), "Units": ("decimal", True, 1), "Calls": ("integer", False, 2)}


@dataclass(frozen=True)
class Case:
    """One case: its tables by heading, and the zone its goal days are in."""

    name: str
    zone: ZoneInfo
    tables: dict[str, list[Cells]] = field(repr=False)

    @property
    def expected(self) -> dict[str, dict[str, Decimal | None]]:
        """The numbers that must come out, by goal and column; columns marked ``-`` are left out."""
        return {
            row["goal"]: {
                column: None if cell == "" else Decimal(cell)
                for column, cell in row.items()
                if column != "goal" and cell != "-"
            }
            for row in self.tables["Expected"]
        }


def read_cases(folder: Path) -> list[Case]:
    """Read every case of a folder, by file name."""
    return [_read(path) for path in sorted(folder.glob("*.md")) if path.stem != "README"]


def write_org(case: Case, folder: Path) -> None:
    """Write the org folder of a case."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in _org(case).items():
        text = json.dumps(rows, default=_number)
        (folder / f"{name}.json").write_text(re.sub(r'"#(-?[\d.]+)#"', r"\1", text), encoding="utf-8")


def made_id(kind: str, name: str) -> str:
    """Return the id of a thing named in a case."""
    return str(uuid.uuid5(IDS, f"{kind}:{name}"))


def _number(value: object) -> str:
    if isinstance(value, Decimal):
        return f"#{value}#"
    raise TypeError(type(value))


def _read(path: Path) -> Case:
    tables: dict[str, list[Cells]] = {}
    zone, heading, names = "UTC", "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("time zone:"):
            zone = line.partition(":")[2].strip()
        elif line.startswith("## "):
            heading, names = line[3:].strip(), []
        elif line.startswith("|"):
            cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
            if not names:
                names = cells
            elif not set(line) <= set("|- "):
                tables.setdefault(heading, []).append(dict(zip(names, cells, strict=True)))
    return Case(path.stem, ZoneInfo(zone), tables)


def _org(case: Case) -> dict[str, list[dict[str, Any]]]:
    named = ("owner", "manager", "user", "reports to", "team")
    owners = {row[name] for table in case.tables.values() for row in table for name in named if row.get(name)}
    users = {row["user"]: row for row in case.tables.get("Users", [])}
    return {
        "transactioncurrencies": [_currency("EUR", "1"), _currency("USD", "1.5")],
        "organizations": [
            {
                "organizationid": made_id("org", "org"),
                "name": case.name,
                "_basecurrencyid_value": made_id("currency", "EUR"),
            }
        ],
        "systemusers": [_user(name, users.get(name, {})) for name in sorted(owners) if not _is_team(name)],
        "businessunits": [
            {"businessunitid": made_id("unit", name), "name": name}
            for name in sorted({row["unit"] for row in users.values()})
        ],
        "teammemberships": [
            {
                "teammembershipid": made_id("member", f"{row['team']} {row['user']}"),
                "teamid": made_id("team", row["team"]),
                "systemuserid": made_id("user", row["user"]),
            }
            for row in case.tables.get("Members", [])
        ],
        "teams": [{"teamid": made_id("team", name), "name": name} for name in sorted(owners) if _is_team(name)],
        "metrics": [
            {"metricid": made_id("metric", name), "name": name, "isamount": is_amount, "amountdatatype": code}
            for name, (_, is_amount, code) in METRICS.items()
        ],
        "rollupfields": _fields(),
        "goalrollupqueries": [_query(row) for row in case.tables.get("Queries", [])],
        "opportunities": [_deal(row) for row in case.tables.get("Deals", [])],
        "opportunityproducts": [_product(row) for row in case.tables.get("Products", [])],
        "phonecalls": [_call(row) for row in case.tables.get("Calls", [])],
        "goals": [_goal(case, row) for row in case.tables["Goals"]],
    }


def _user(name: str, row: Cells) -> dict[str, Any]:
    user: dict[str, Any] = {"systemuserid": made_id("user", name), "fullname": name}
    if row.get("reports to"):
        user["_parentsystemuserid_value"] = made_id("user", row["reports to"])
    if row.get("unit"):
        user["_businessunitid_value"] = made_id("unit", row["unit"])
    return user


def _is_team(name: str) -> bool:
    return name.startswith("Team ")


def _owner(column: str, name: str) -> dict[str, Any]:
    table = "team" if _is_team(name) else "systemuser"
    return {
        f"_{column}_value": made_id("team" if _is_team(name) else "user", name),
        f"_{column}_value@Microsoft.Dynamics.CRM.lookuplogicalname": table,
    }


def _currency(code: str, rate: str) -> dict[str, Any]:
    return {
        "transactioncurrencyid": made_id("currency", code),
        "isocurrencycode": code,
        "currencyname": code,
        "currencyprecision": 2,
        "exchangerate": Decimal(rate),
    }


FIELDS = (
    ("Revenue", "actualmoney", "opportunity", "actualvalue", 1, "actualclosedate"),
    ("Revenue", "inprogressmoney", "opportunity", "estimatedvalue", 0, "estimatedclosedate"),
    ("Units", "actualdecimal", "opportunityproduct", "quantity", 1, "actualclosedate"),
    ("Units", "inprogressdecimal", "opportunityproduct", "quantity", 0, "estimatedclosedate"),
    ("Calls", "actualinteger", "phonecall", None, 1, "actualend"),
)


def _fields() -> list[dict[str, Any]]:
    return [
        {
            "rollupfieldid": made_id("field", column + metric),
            "_metricid_value": made_id("metric", metric),
            "goalattribute": column,
            "sourceentity": source,
            "sourceattribute": summed,
            "sourcestate": state,
            "dateattribute": date,
            "entityfordateattribute": "opportunity" if source == "opportunityproduct" else source,
            "isstateparententityattribute": source == "opportunityproduct",
        }
        for metric, column, source, summed, state, date in FIELDS
    ]


def _query(row: Cells) -> dict[str, Any]:
    return {
        "goalrollupqueryid": made_id("query", row["query"]),
        "name": row["query"],
        "queryentitytype": row["table"],
        "fetchxml": f'<fetch><entity name="{row["table"]}"><filter>{row["condition"]}</filter></entity></fetch>',
    }


def _deal(row: Cells) -> dict[str, Any]:
    state, status = STATES[row["state"]]
    return {
        "opportunityid": made_id("deal", row["deal"]),
        "name": row["deal"],
        "statecode": state,
        "statuscode": status,
        **_owner("ownerid", row["owner"]),
        "actualvalue": _amount(row.get("amount")),
        "actualclosedate": row.get("closed") or None,
        "estimatedvalue": _amount(row.get("expected")),
        "estimatedclosedate": row.get("expected close") or None,
        "_transactioncurrencyid_value": made_id("currency", row.get("currency") or "EUR"),
        "exchangerate": Decimal(row.get("rate") or "1"),
    }


def _product(row: Cells) -> dict[str, Any]:
    return {
        "opportunityproductid": made_id("product", row["product"]),
        "productname": row["product"],
        "_opportunityid_value": made_id("deal", row["deal"]),
        "quantity": Decimal(row["quantity"]),
    }


def _call(row: Cells) -> dict[str, Any]:
    state, status = CALL_STATES[row["state"]]
    return {
        "activityid": made_id("call", row["call"]),
        "subject": row["call"],
        "statecode": state,
        "statuscode": status,
        **_owner("ownerid", row["owner"]),
        "actualend": row["ended"] or None,
    }


def _goal(case: Case, row: Cells) -> dict[str, Any]:
    data_type = METRICS[row["metric"]][0]
    target = _amount(row.get("target"))
    goal: dict[str, Any] = {
        "goalid": made_id("goal", row["goal"]),
        "title": row["goal"],
        "_metricid_value": made_id("metric", row["metric"]),
        **_owner("goalownerid", row["owner"]),
        **(_owner("ownerid", row["manager"]) if row.get("manager") else {}),
        "_parentgoalid_value": made_id("goal", row["parent"]) if row.get("parent") else None,
        "isfiscalperiodgoal": False,
        "goalstartdate": format_instant(start_of_day(parse_on(row["from"]), case.zone)),
        "goalenddate": format_instant(start_of_day(parse_on(row["to"]), case.zone)),
        f"target{data_type}": int(target) if target is not None and data_type == "integer" else target,
    }
    for option in filter(None, (part.strip() for part in row.get("options", "").split(","))):
        goal.update(_option(option, data_type))
    return goal


def _option(option: str, data_type: str) -> dict[str, Any]:
    if option.startswith("query "):
        return {f"_rollupqueryactual{data_type}id_value": made_id("query", option.removeprefix("query "))}
    name, equals, value = option.partition("=")
    if equals and name in VALUE_COLUMNS:
        return {name: Decimal(value)}
    return {
        "all": {"consideronlygoalownersrecords": False},
        "children only": {"rolluponlyfromchildgoals": True},
        "closed": {"statecode": 1, "statuscode": 1},
        "overridden": {"isoverridden": True},
    }[option]


def _amount(cell: str | None) -> Decimal | None:
    return Decimal(cell) if cell else None
