"""What the role of d365sync holds, and what a user has beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest

from d365sync.sync.role import MODES, Excess, beyond, document, missing, needed

SHIPPED = Path(__file__).parents[2] / "config" / "role-privileges.json"


def test_the_shipped_list_is_what_is_needed() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == document(), "run `make docs`"


def test_only_modes_that_write_may_write_and_only_goals() -> None:
    writes = {mode: {name for name in needed(mode) if not name.startswith("prvRead")} for mode in MODES}
    assert writes.pop("plan") == set()
    assert all(found == {"prvWriteGoal"} for found in writes.values())
    assert "prvActOnBehalfOfAnotherUser" in needed("plan", impersonates=True)
    with pytest.raises(KeyError):
        needed("everything")


def test_tables_that_share_a_privilege_are_named_once() -> None:
    found = needed("plan", ["opportunity", "opportunityproduct", "phonecall", "email"])
    assert [name for name in found if name in ("prvReadOpportunity", "prvReadActivity")] == [
        "prvReadOpportunity",
        "prvReadActivity",
    ]


def test_what_changes_nothing_is_no_excess() -> None:
    held = {"prvreadgoal": "Global", "prvreadaccount": "Basic", "prvexporttoexcel": "Global", "prvwritegoal": "Global"}
    assert beyond(held, needed("override")) == ()
    assert beyond(held, needed("plan")) == (Excess("prvwritegoal", "Global"),)
    assert beyond({}, needed("plan")) == ()


@pytest.mark.parametrize(
    "privilege",
    ["prvdeletegoal", "prvcreateopportunity", "prvactonbehalfofanotheruser", "prvassignrole", "prvpublishall"],
)
def test_what_changes_anything_is_excess(privilege: str) -> None:
    assert beyond({privilege: "Basic"}, needed("override")) == (Excess(privilege, "Basic"),)


def test_what_is_missing_is_named_with_the_depth_that_is_held() -> None:
    wanted = needed("override", ["opportunity"])
    held = {name.lower(): "Global" for name in wanted} | {"prvreadopportunity": "Local"}
    del held["prvreadteam"]
    assert missing(held, wanted) == (
        Excess("prvReadTeam", "", "Global"),
        Excess("prvReadOpportunity", "Local", "Global"),
    )
