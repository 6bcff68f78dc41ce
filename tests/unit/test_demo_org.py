"""The demo org: what it promises to hold, that its generator makes it, and that the emulator counts the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.values import parse_instant
from d365sync.emulator import Emulator

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "fixtures" / "orgs" / "demo"
NOW = "2026-11-20T09:00:00Z"
LAST_GOOD_NIGHT = "2026-11-11T01:00:00Z"
CATEGORIES = ("actual", "inprogress", "customrollupfield")
SUFFIXES = ("money", "decimal", "integer")
VALUE_COLUMNS = tuple(category + suffix for category in CATEGORIES for suffix in SUFFIXES)
TARGETS_OF = {
    "administratorid": "systemusers",
    "basecurrencyid": "transactioncurrencies",
    "businessunitid": "businessunits",
    "campaignid": "campaigns",
    "managerid": "systemusers",
    "metricid": "metrics",
    "opportunityid": "opportunities",
    "originatingleadid": "leads",
    "parentaccountid": "accounts",
    "parentbusinessunitid": "businessunits",
    "parentgoalid": "goals",
    "parentsystemuserid": "systemusers",
    "productid": "products",
    "qualifyingopportunityid": "opportunities",
    "territoryid": "territories",
    "transactioncurrencyid": "transactioncurrencies",
} | {f"rollupquery{c}{s}id": "goalrollupqueries" for c in ("actual", "inprogress", "custom") for s in SUFFIXES}
SETS = {"account": "accounts", "contact": "contacts", "systemuser": "systemusers", "team": "teams"}
SOURCES = {
    "opportunity": "opportunities",
    "opportunityproduct": "opportunityproducts",
    "phonecall": "phonecalls",
    "incident": "incidents",
}
KEYS = {"phonecalls": "activityid", "appointments": "activityid", "transactioncurrencies": "transactioncurrencyid"}

Row = dict[str, Any]
Org = dict[str, list[Row]]


def read_org(folder: Path) -> Org:
    return {path.stem: json.loads(path.read_text(), parse_float=Decimal) for path in sorted(folder.glob("*.json"))}


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "fixtures" / "orgs" / "generate_demo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def org() -> Org:
    return read_org(DEMO)


def key_of(row: Row, entity_set: str) -> str:
    name = KEYS.get(entity_set) or next(
        name for name in row if name == f"{entity_set[:-1]}id" or name == f"{entity_set[:-3]}yid"
    )
    return str(row[name])


def by_title(org: Org) -> dict[str, Row]:
    return {goal["title"]: goal for goal in org["goals"]}


def open_goals(org: Org) -> list[Row]:
    return [goal for goal in org["goals"] if goal["statecode"] == 0]


def values(goal: Row) -> dict[str, Decimal]:
    return {name: Decimal(goal[name]) for name in VALUE_COLUMNS if name in goal}


# --- the generator ---------------------------------------------------------------------------------------


def test_the_committed_folder_is_what_the_generator_makes() -> None:
    made = generate("--check")
    assert (made.returncode, made.stderr) == (0, "")


def test_check_names_a_file_that_was_edited_by_hand(tmp_path: Path) -> None:
    copy = shutil.copytree(DEMO, tmp_path / "demo")
    (copy / "metrics.json").write_text((copy / "metrics.json").read_text().replace("Revenue", "Turnover", 1))
    (copy / "surplus.json").write_text("[]")
    made = generate("--check", "--out", str(copy))
    assert made.returncode == 1
    assert [line.split()[0] for line in made.stderr.splitlines()] == ["metrics.json", "surplus.json"]


def test_files_are_small_and_diffs_are_readable(org: Org) -> None:
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 6_000_000
    for entity_set, rows in org.items():
        lines = (DEMO / f"{entity_set}.json").read_text().splitlines()
        assert len(lines) == len(rows) + 2
        assert all(list(row) == sorted(row) for row in rows)


# --- what is in it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity_set", "fewest", "most"),
    [
        ("opportunities", 2900, 3200),
        ("opportunityproducts", 1500, 2000),
        ("phonecalls", 3000, 6000),
        ("incidents", 400, 800),
        ("appointments", 200, 500),
        ("leads", 300, 600),
        ("accounts", 300, 300),
        ("contacts", 100, 200),
        ("goals", 145, 160),
        ("metrics", 6, 6),
        ("rollupfields", 13, 13),
        ("goalrollupqueries", 8, 8),
        ("systemusers", 30, 30),
        ("teams", 3, 3),
        ("territories", 3, 3),
        ("businessunits", 4, 4),
    ],
)
def test_sizes(org: Org, entity_set: str, fewest: int, most: int) -> None:
    assert fewest <= len(org[entity_set]) <= most


def test_ids_are_unique_and_every_reference_resolves(org: Org) -> None:
    keys = {entity_set: {key_of(row, entity_set) for row in rows} for entity_set, rows in org.items()}
    assert {entity_set: len(known) for entity_set, known in keys.items()} == {n: len(rows) for n, rows in org.items()}
    for rows in org.values():
        for row in rows:
            for name in (name for name in row if name.startswith("_") and name.endswith("_value")):
                table = row.get(f"{name}@Microsoft.Dynamics.CRM.lookuplogicalname")
                target = SETS[table] if table else TARGETS_OF[name[1:-6]]
                assert row[name] in keys[target], (name, row[name])
    for membership in org["teammemberships"]:
        assert membership["teamid"] in keys["teams"]
        assert membership["systemuserid"] in keys["systemusers"]


def test_opportunities_have_every_state_in_realistic_shares(org: Org) -> None:
    deals = org["opportunities"]
    pairs = Counter((deal["statecode"], deal["statuscode"]) for deal in deals)
    assert pairs.keys() == {(0, 1), (0, 2), (1, 3), (2, 4), (2, 5)}
    share = {state: sum(n for (s, _), n in pairs.items() if s == state) / len(deals) for state in (0, 1, 2)}
    assert 0.07 < share[0] < 0.2
    assert 0.3 < share[1] < 0.5
    assert 0.35 < share[2] < 0.6
    assert 0.45 < sum("estimatedvalue_base" in deal for deal in deals) / len(deals) < 0.55
    assert {deal["exchangerate"] for deal in deals} == {1, Decimal("1.08"), Decimal("1.12"), Decimal("1.16")}
    with_lines = {line["_opportunityid_value"] for line in org["opportunityproducts"]}
    assert 0.28 < len(with_lines) / len(deals) < 0.4


def test_there_are_busy_and_quiet_months(org: Org) -> None:
    months = Counter(deal["actualclosedate"][:7] for deal in org["opportunities"] if deal["statecode"] == 1)
    assert len(months) == 24
    assert months["2025-12"] > 2 * months["2026-01"] > 0


def test_nothing_is_dated_after_now(org: Org) -> None:
    allowed = {"estimatedclosedate", "goalenddate"}
    for rows in org.values():
        for row in rows:
            for name, value in row.items():
                if isinstance(value, str) and value[:3] == "202" and value[4:5] == "-" and name not in allowed:
                    assert value <= (NOW if "T" in value else NOW[:10]), (name, value)


def test_amounts_divide_exactly_by_the_rate_of_their_record(org: Org) -> None:
    for deal in org["opportunities"]:
        for name in ("actualvalue", "estimatedvalue"):
            if name not in deal:
                continue
            amount, rate = Decimal(deal[name]), Decimal(deal["exchangerate"])
            base = (amount / rate).quantize(Decimal("0.01"))
            assert base * rate == amount == amount.quantize(Decimal("0.0001"))
            assert deal.get(f"{name}_base", base) == base


def test_edge_rows_are_there(org: Org) -> None:
    deals, calls = org["opportunities"], org["phonecalls"]
    won_on = Counter(deal["actualclosedate"] for deal in deals if deal["statecode"] == 1)
    for day in ("2025-12-31", "2026-01-01", "2026-09-30", "2026-10-01", "2026-09-14", "2026-11-16"):
        assert won_on[day] >= 3
    assert sum(deal["statecode"] == 1 and "actualvalue" not in deal for deal in deals) >= 5
    assert sum(deal["statecode"] == 0 and "estimatedclosedate" not in deal for deal in deals) >= 5
    ends = Counter(call.get("actualend") for call in calls)
    assert ends["2026-10-31T23:59:59Z"] >= 3
    assert ends["2026-11-01T00:00:00Z"] >= 3
    owners = Counter(deal["_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] for deal in deals)
    assert owners["team"] > 50
    quantities = [Decimal(line["quantity"]) for line in org["opportunityproducts"]]
    assert {-int(q.as_tuple().exponent) for q in quantities} >= {0, 5}
    assert max(-int(q.as_tuple().exponent) for q in quantities) == 5


def test_the_emulator_loads_it_and_fills_in_the_same_base_amounts(org: Org) -> None:
    store = Emulator.load(DEMO, now=parse_instant(NOW)).store
    assert len(store.rows("opportunity")) == len(org["opportunities"])
    assert len(store.rows("goal")) == len(org["goals"])
    left_out = [deal for deal in org["opportunities"] if "estimatedvalue_base" not in deal]
    for deal in left_out:
        stored = store.rows("opportunity")[deal["opportunityid"]]
        assert stored["estimatedvalue_base"] == Decimal(deal["estimatedvalue"]) / deal["exchangerate"]


# --- counting the files again -----------------------------------------------------------------------------


def period_of(goal: Row) -> tuple[str, str]:
    """Return first and last day; the goals that leave their dates out are quarters of 2026."""
    if "goalstartdate" in goal:
        return goal["goalstartdate"][:10], goal["goalenddate"][:10]
    return {1: ("2026-01-01", "2026-03-31"), 4: ("2026-10-01", "2026-12-31")}[goal["fiscalperiod"]]


def matching_ids(folder: Path) -> dict[str, set[Any]]:
    """Return, by rollup query, the ids of the records that the query language finds."""
    store = Emulator.load(folder, now=parse_instant(NOW)).store
    schema, context = store.catalogue.schema, Context(now=parse_instant(NOW), time_zone=ZoneInfo("UTC"))
    tables = {name: list(store.rows(name).values()) for name in ("opportunity", "phonecall", "account")}
    found = {}
    for query_id, query in store.rows("goalrollupquery").items():
        key = schema.table(str(query["queryentitytype"])).primary_id
        rows = evaluate(parse_fetch(str(query["fetchxml"])), tables, schema, context)
        found[query_id] = {row[key] for row in rows}
    return found


def own_total(org: Org, deals: dict[str, Row], goal: Row, field: Row, found: set[Any] | None) -> Decimal:
    """Add up the records of one goal for one rollup field, as its row describes it."""
    if goal["rolluponlyfromchildgoals"]:
        return Decimal(0)
    first, last = period_of(goal)
    total = Decimal(0)
    for row in org[SOURCES[field["sourceentity"]]]:
        dated = deals[row["_opportunityid_value"]] if field["isstateparententityattribute"] else row
        in_period = first <= dated.get(field["dateattribute"], "")[:10] <= last
        mine = not goal["consideronlygoalownersrecords"] or row["_ownerid_value"] == goal["_goalownerid_value"]
        asked_for = found is None or row.get("opportunityid", row.get("activityid")) in found
        if in_period and mine and asked_for and dated["statecode"] == field["sourcestate"]:
            amount = Decimal(row.get(field["sourceattribute"], 0)) if "sourceattribute" in field else Decimal(1)
            total += amount / row["exchangerate"] if goal["amountdatatype"] == 0 else amount
    return total


def recount(folder: Path) -> dict[str, dict[str, Decimal]]:
    """Return the value columns of every goal of the folder, counted anew, closed goals too."""
    org, found = read_org(folder), matching_ids(folder)
    deals = {deal["opportunityid"]: deal for deal in org["opportunities"]}
    totals: dict[str, dict[str, Decimal]] = {}
    for goal in reversed(org["goals"]):
        totals[goal["goalid"]] = {}
        for field in (field for field in org["rollupfields"] if field["_metricid_value"] == goal["_metricid_value"]):
            column = field["goalattribute"]
            query = goal.get(f"_rollupquery{column.replace('customrollupfield', 'custom')}id_value")
            below = [
                totals[c["goalid"]][column] for c in org["goals"] if c.get("_parentgoalid_value") == goal["goalid"]
            ]
            totals[goal["goalid"]][column] = sum(below, own_total(org, deals, goal, field, query and found[query]))
    return totals


# --- the goals -------------------------------------------------------------------------------------------


def test_goals_have_the_states_and_owners_that_matter(org: Org) -> None:
    goals = org["goals"]
    by_id = {goal["goalid"]: goal for goal in goals}
    states = Counter((goal["statecode"], goal["statuscode"]) for goal in goals)
    assert states.keys() == {(0, 0), (1, 1), (1, 2)}
    assert states[1, 2] == 1
    overridden = [goal for goal in goals if goal["isoverridden"]]
    assert [("_parentgoalid_value" in goal, goal["statecode"]) for goal in overridden] == [(False, 0)]
    closed_children = [
        goal["title"]
        for goal in goals
        if goal["statuscode"] == 1 and by_id.get(goal.get("_parentgoalid_value", ""), goal)["statecode"] == 0
    ]
    assert closed_children == ["Revenue Q4 2026 - Walter Frost"]
    undated = [goal for goal in goals if "goalstartdate" not in goal]
    assert [(goal["isfiscalperiodgoal"], "goalenddate" in goal) for goal in undated] == [(True, False)] * 2
    kinds = Counter(goal["_goalownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] for goal in goals)
    assert kinds["team"] == 6
    assert {goal.get("fiscalperiod") for goal in goals} == {None, 1, 3, 4, 110, 111, 112, 301}


def test_children_share_metric_and_period_with_their_parent(org: Org) -> None:
    by_id = {goal["goalid"]: goal for goal in org["goals"]}
    same = ("_metricid_value", "isfiscalperiodgoal", "fiscalyear", "fiscalperiod", "goalstartdate", "goalenddate")
    children = [goal for goal in org["goals"] if "_parentgoalid_value" in goal]
    assert len(children) > 100
    for goal in children:
        parent = by_id[goal["_parentgoalid_value"]]
        assert [goal.get(name) for name in same] == [parent.get(name) for name in same]


def test_percentages_follow_from_actual_and_target(org: Org) -> None:
    for goal in org["goals"]:
        suffix = SUFFIXES[goal["amountdatatype"]]
        actual, target = Decimal(goal[f"actual{suffix}"]), Decimal(goal[f"target{suffix}"])
        assert goal["percentage"] == (100 * actual / target).quantize(Decimal(1), ROUND_HALF_UP)
        if goal["lastrolledupdate"] != LAST_GOOD_NIGHT:
            assert 30 <= goal["percentage"] <= 140, goal["title"]


def test_one_small_goal_by_hand(org: Org) -> None:
    goal = by_title(org)["Revenue autumn push - Anna Berg"]
    mine = [deal for deal in org["opportunities"] if deal["_ownerid_value"] == goal["_goalownerid_value"]]
    won = [d for d in mine if d["statecode"] == 1 and "2026-09-15" <= d["actualclosedate"] <= "2026-11-15"]
    due = [d for d in mine if d["statecode"] == 0 and "2026-09-15" <= d.get("estimatedclosedate", "") <= "2026-11-15"]
    assert {"2026-09-15", "2026-11-15"} <= {deal["actualclosedate"] for deal in won}
    assert Decimal(goal["actualmoney"]) == sum(
        Decimal(deal.get("actualvalue", 0)) / Decimal(deal["exchangerate"]) for deal in won
    )
    assert Decimal(goal["inprogressmoney"]) == sum(
        Decimal(deal["estimatedvalue"]) / Decimal(deal["exchangerate"]) for deal in due
    )


def test_a_parent_shows_the_sum_of_its_children(org: Org) -> None:
    for goal in org["goals"]:
        children = [child for child in org["goals"] if child.get("_parentgoalid_value") == goal["goalid"]]
        if children and goal["rolluponlyfromchildgoals"] and not goal["isoverridden"]:
            sums = {name: sum(values(child)[name] for child in children) for name in values(goal)}
            assert values(goal) == sums, goal["title"]


def test_half_of_the_open_goals_show_the_data_of_today_and_half_older_data(org: Org) -> None:
    counted = recount(DEMO)
    rolled = [goal for goal in org["goals"] if not goal["isoverridden"]]
    up_to_date = [goal["goalid"] for goal in rolled if counted[goal["goalid"]] == values(goal)]
    assert up_to_date == [goal["goalid"] for goal in rolled if goal["lastrolledupdate"] != LAST_GOOD_NIGHT]
    nights = Counter(goal["lastrolledupdate"] for goal in open_goals(org) if not goal["isoverridden"])
    assert nights == {"2026-11-20T06:00:00Z": 62, LAST_GOOD_NIGHT: 61}


def test_the_older_values_are_those_of_one_earlier_night(org: Org, tmp_path: Path) -> None:
    assert generate("--out", str(tmp_path), "--as-of", LAST_GOOD_NIGHT).returncode == 0
    counted = recount(tmp_path)
    older = [goal for goal in org["goals"] if goal["lastrolledupdate"] == LAST_GOOD_NIGHT]
    assert [goal["title"] for goal in older if counted[goal["goalid"]] != values(goal)] == []


def test_only_the_actual_of_the_overridden_goal_differs(org: Org) -> None:
    goal = next(goal for goal in org["goals"] if goal["isoverridden"])
    counted, stored = recount(DEMO)[goal["goalid"]], values(goal)
    assert {name for name in counted if counted[name] != stored[name]} == {"actualmoney"}
