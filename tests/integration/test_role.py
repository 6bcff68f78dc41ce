"""The shipped list of privileges is enough for every write mode, and of none can one be left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from d365sync.emulator import Emulator
from d365sync.errors import D365SyncError
from d365sync.sync.cycle import CycleResult, Outcome
from d365sync.sync.role import MODES, needed
from tests.emulated import NOW, application
from tests.security import APPLICATION_USER, GLOBAL, Security

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
COUNTED = ("opportunity",)
ASKED_BY_DATAVERSE_ALONE = {"prvReadRelationship"}
"""The emulator does not ask for it where relationships are expanded."""


def cycle(folder: Path, mode: str, privileges: list[str]) -> CycleResult:
    """Run a cycle as a user that has these privileges and no others."""
    org = folder / "org"
    shutil.copytree(SMALL, org, dirs_exist_ok=True)
    security = Security(administrator=False)
    security.role("d365sync", **dict.fromkeys(privileges, GLOBAL))
    security.give("d365sync", user=APPLICATION_USER)
    security.write(org)
    columns = {"actualmoney": "new_actual"} if mode == "columns" else {}
    emulator = Emulator.load(org, now=NOW)
    with application(emulator, folder, writeback={"mode": mode, "columns": columns}) as app:
        return app.sync(write=mode != "plan")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "columns"])
def test_the_list_is_enough(mode: str, tmp_path: Path) -> None:
    result = cycle(tmp_path, mode, list(needed(mode, COUNTED)))
    assert result.outcome is Outcome.OK
    assert bool(result.pushed and (result.pushed.written or result.pushed.asked)) == (mode != "plan")


@pytest.mark.parametrize("left_out", sorted(set(needed("override", COUNTED)) - ASKED_BY_DATAVERSE_ALONE))
def test_none_can_be_left_out(left_out: str, tmp_path: Path) -> None:
    privileges = [name for name in needed("override", COUNTED) if name != left_out]
    with pytest.raises(D365SyncError, match=f"(?i){left_out}"):
        cycle(tmp_path, "override", privileges)
