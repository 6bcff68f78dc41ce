"""What doctor says about acting for goal managers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d365sync.doctor.check import Check, Verdict
from d365sync.emulator import Emulator, EmulatorSettings
from tests.emulated import NOW
from tests.examined import examined
from tests.integration.test_visibility import user, watching, write
from tests.security import Security

NAME = "act for goal managers"


@pytest.fixture
def checks(tmp_path: Path) -> Callable[..., dict[str, Check]]:
    def made(*, edit: Callable[[Emulator], object] | None = None, visibility: str = "manager", **settings: Any) -> Any:
        write(tmp_path / "org", Security())
        emulator = Emulator.load(tmp_path / "org", now=NOW, settings=EmulatorSettings(**settings))
        if edit is not None:
            edit(emulator)
        with watching(emulator, tmp_path, visibility=visibility) as (app, _):
            return {check.name: check for check in examined(app.config, app.line.client)}

    return made


def test_it_tries_one_manager(checks: Callable[..., dict[str, Check]]) -> None:
    found = checks()[NAME]
    assert found.verdict is Verdict.OK
    assert found.found == "possible; 2 of 2 managers are enabled users with an Entra object id"


def test_it_does_not_where_managers_do_not_matter(checks: Callable[..., dict[str, Check]]) -> None:
    assert NAME not in checks(visibility="service", missing_privileges=frozenset({"prvActOnBehalfOfAnotherUser"}))


def test_it_names_the_privilege_that_is_missing(checks: Callable[..., dict[str, Check]]) -> None:
    found = checks(missing_privileges=frozenset({"prvActOnBehalfOfAnotherUser"}))[NAME]
    assert (found.verdict, found.exit_code) == (Verdict.FAIL, 6)
    assert "prvActOnBehalfOfAnotherUser" in found.found
    assert "Delegate" in found.mend


def test_it_counts_the_managers_who_cannot_be_asked(checks: Callable[..., dict[str, Check]]) -> None:
    found = checks(edit=lambda emulator: emulator.store.change("systemuser", user("Sam"), {"isdisabled": True}))[NAME]
    assert found.verdict is Verdict.WARN
    assert "1 of 2" in found.found


def test_it_says_when_there_is_nobody_to_try(checks: Callable[..., dict[str, Check]]) -> None:
    def disable(emulator: Emulator) -> None:
        for name in ("Nina", "Sam"):
            emulator.store.change("systemuser", user(name), {"azureactivedirectoryobjectid": None})

    assert checks(edit=disable)[NAME].verdict is Verdict.WARN
