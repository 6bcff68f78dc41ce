"""A guard stops a sync, and what an administrator sees and does then."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from tests.golden.casebook import write_org
from tests.scenarios.conftest import CASES, initialise, served

STRICT = {"D365SYNC_GUARDS__TOTALS_GOALS": "1"}


def test_an_administrator_reads_the_refused_plan_and_accepts_its_number(tmp_path: Path) -> None:
    case = copy.deepcopy(CASES["tree"])
    for row in case.tables["Goals"]:
        row["options"] = ",".join(filter(None, [row.get("options", ""), "actualmoney=90000"]))
    write_org(case, tmp_path / "org")
    with served(tmp_path / "org") as remote:
        admin = initialise(tmp_path / "admin", remote)
        shown = admin.run("plan", **STRICT)
        assert shown.code == 0
        assert (
            "a guard would stop this: actualmoney of all goals of metric 'Revenue' would go from 450,000" in shown.out
        )
        refused = admin.run("sync", **STRICT)
        assert (refused.code, refused.out) == (4, "")
        plan = tmp_path / "admin" / "journal.refused.json"
        assert f"the plan is in {plan}" in refused.err
        assert "mend: look at the plan; to accept it, run `d365sync sync --accept 5`" in refused.err
        assert len(json.loads(plan.read_text(encoding="utf-8"))["goals"]) == 5
        assert plan.stat().st_mode & 0o077 == 0
        document = admin.run("sync", "--json", "--accept", "4", **STRICT).document
        assert document["error"]["exit_code"] == 4
        assert [one["guard"] for one in document["refused"]["guards"]] == ["totals"]
        assert (document["refused"]["accept"], len(document["refused"]["goals"])) == (5, 5)
        done = admin.run("sync", "--accept", "5", **STRICT)
        assert done.code == 0
        assert "accepted: actualmoney of all goals" in done.out
        assert "wrote 5 of 5 goals" in done.out
