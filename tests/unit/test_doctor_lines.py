"""What doctor says of identities, privileges, settings, databases and the service: values in, a line out."""

from __future__ import annotations

import datetime as dt
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from d365sync.config import Config, parse
from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.schedule import Schedule
from d365sync.doctor.check import Check, Step, Stop, Verdict, examined, exit_code_of
from d365sync.doctor.identity import account_told, token_told
from d365sync.doctor.organization import fiscal_told, longest_wait, retained
from d365sync.doctor.privileges import excess_told, privileges_told
from d365sync.doctor.service import lease_told, ping_told, port_told, queue_told, user_told
from d365sync.doctor.storage import (
    Server,
    Soundness,
    checked,
    in_bytes,
    not_there_yet,
    quick_check,
    room,
    served,
    size_of,
    version_told,
)
from d365sync.errors import ConfigError, RetryableError
from d365sync.journal.lease import Lease
from d365sync.sync.role import Excess, needed
from tests.emulated import NOW

DAY = dt.timedelta(days=1)
CLIENT = "00000000-0000-0000-0000-000000000001"


def configured(mode: str = "override", **dataverse: Any) -> Config:
    secret = {"auth": "client_secret", "client_secret": "env:S", "tenant_id": "t", "client_id": CLIENT}
    document = {"dataverse": {"url": "https://crm.example", **secret, **dataverse}, "writeback": {"mode": mode}}
    return parse(document, {}, folder=Path())


# -- one check after another -----------------------------------------------------------------------------------------


def well(name: str) -> Step[None]:
    return Step(name, lambda _case: [Check(name, Verdict.OK, "well")], "", "")


def ill(name: str, *needs: str) -> Step[None]:
    def ask(_case: None) -> list[Check]:
        raise Stop(Check(name, Verdict.FAIL, "ill", exit_code=5))

    return Step(name, ask, "", "", needs)


def needing(name: str, *needs: str) -> Step[None]:
    return Step(name, lambda _case: [Check(name, Verdict.OK, "well")], "", "", needs)


def told(*steps: Step[None]) -> list[tuple[str, str]]:
    return [(check.name, check.found) for check in examined(steps, None)]


def test_a_failure_hides_no_other_check() -> None:
    assert told(ill("a"), well("b"), ill("c")) == [("a", "ill"), ("b", "well"), ("c", "ill")]


def test_what_needs_it_names_the_first_cause() -> None:
    found = told(ill("a"), needing("b", "a"), needing("c", "b"), well("d"))
    assert found[1:3] == [("b", "not checked: needs a"), ("c", "not checked: needs a")]


def test_an_error_nobody_expected_is_a_line_of_its_own() -> None:
    def ask(_case: None) -> list[Check]:
        raise ConfigError("the file is gone", hint="make it")

    (check, other) = examined([Step("a", ask, "", ""), needing("b", "a")], None)
    assert (check.verdict, check.found, check.mend, check.exit_code) == (Verdict.FAIL, "the file is gone", "make it", 2)
    assert other.found == "not checked: needs a"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), ValueError("no such port")])
def test_what_the_machine_refuses_is_a_line_too(error: Exception) -> None:
    def ask(_case: None) -> list[Check]:
        raise error

    first, other, last = examined([Step("a", ask, "", ""), needing("b", "a"), well("c")], None)
    assert (first.verdict, first.exit_code) == (Verdict.FAIL, 1)
    assert str(error.args[-1]) in first.found
    assert (other.found, last.found) == ("not checked: needs a", "well")


def test_lines_before_a_failure_stay() -> None:
    def ask(_case: None) -> Any:
        yield Check("a", Verdict.OK, "first")
        raise Stop(Check("a", Verdict.FAIL, "second"))

    assert told(Step("topic", ask, "", "")) == [("a", "first"), ("a", "second")]


def test_a_step_that_does_not_apply_is_not_there() -> None:
    assert told(Step("a", lambda _case: [Check("a", Verdict.OK, "")], "", "", applies=lambda _case: False)) == []


@pytest.mark.parametrize(
    ("verdicts", "strict", "code"),
    [
        ([("OK", 0), ("WARN", 0)], False, 0),
        ([("OK", 0), ("WARN", 0)], True, 1),
        ([("OK", 0)], True, 0),
        ([("FAIL", 0)], False, 1),
        ([("FAIL", 1), ("FAIL", 6), ("WARN", 0)], True, 6),
        ([], True, 0),
    ],
)
def test_what_the_command_exits_with(verdicts: list[tuple[str, int]], strict: bool, code: int) -> None:
    checks = [Check("a", Verdict(verdict), "", exit_code=exit_code) for verdict, exit_code in verdicts]
    assert exit_code_of(checks, strict=strict) == code


# -- the token and the account ---------------------------------------------------------------------------------------


def claims(**other: Any) -> dict[str, Any]:
    return {"aud": "https://crm.example", "exp": int(NOW.timestamp()) + 3599, "appid": CLIENT, **other}


def test_a_token_tells_what_it_is_for() -> None:
    check = token_told(claims(roles=["Sales.Read"]), configured(), NOW)
    assert check.verdict is Verdict.OK
    assert check.found == f"for https://crm.example, for 59 minutes, application {CLIENT}; app roles: Sales.Read"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"aud": "https://other.example"}, "https://crm.example was asked for"),
        ({"appid": CLIENT.replace("1", "2")}, "is configured"),
        ({"exp": int(NOW.timestamp()) + 60}, "that is short"),
    ],
)
def test_a_token_that_is_not_what_was_asked_for_is_told(other: dict[str, Any], words: str) -> None:
    check = token_told(claims(**other), configured(), NOW)
    assert (check.verdict, words in check.found, bool(check.mend)) == (Verdict.WARN, True, True)


@pytest.mark.parametrize("told", [{}, {"aud": CLIENT}, {"aud": ["x"], "exp": "soon", "roles": "all"}])
def test_a_token_that_says_little_is_no_fault(told: dict[str, Any]) -> None:
    assert token_told(told, configured(), NOW).verdict is Verdict.OK


def user(**other: Any) -> dict[str, Any]:
    return {"fullname": "# service", "accessmode": 4, "applicationid": CLIENT, "isdisabled": False, **other}


@pytest.mark.parametrize(
    ("other", "mode", "verdict", "words"),
    [
        ({}, "override", "OK", "application user, Non-interactive"),
        ({"isdisabled": True}, "override", "FAIL", "is disabled"),
        ({"accessmode": 1}, "plan", "WARN", "does not reach records of sales"),
        ({"accessmode": 2}, "plan", "OK", "Read"),
        ({"accessmode": 2}, "override", "WARN", "may not write goals"),
        ({"accessmode": 77}, "override", "OK", "access mode 77"),
        ({"accessmode": None}, "override", "OK", "not told"),
        ({"applicationid": None}, "override", "WARN", "acts as a person"),
    ],
)
def test_the_service_account(other: dict[str, Any], mode: str, verdict: str, words: str) -> None:
    check = account_told(user(**other), configured(mode))
    assert (check.verdict, words in check.found) == (verdict, True)


def test_a_person_who_signs_in_is_a_person_and_needs_a_licence() -> None:
    person = configured(auth="device_code")
    assert account_told(user(applicationid=None), person).verdict is Verdict.OK
    assert account_told(user(applicationid=None, accessmode=0, islicensed=True), person).verdict is Verdict.OK
    without = account_told(user(applicationid=None, accessmode=0, islicensed=False), person)
    assert (without.verdict, "without a licence" in without.found) == (Verdict.WARN, True)
    assert account_told(user(accessmode=0, islicensed=False), configured()).verdict is Verdict.OK


# -- privileges ------------------------------------------------------------------------------------------------------


def held(*names: str, depth: str = "Global") -> dict[str, str]:
    return {name.lower(): depth for name in names}


def test_all_that_is_missing_is_one_line() -> None:
    reads = list(needed("plan", ()))
    check = privileges_told(held(*reads[2:]))
    assert (check.verdict, check.exit_code) == (Verdict.FAIL, 6)
    assert check.found == "the user's roles lack prvReadEntity, prvReadAttribute"
    one = privileges_told(held(*reads[1:]))
    assert "prvReadEntity (read on Entity" in one.found
    assert privileges_told(held(*reads)).verdict is Verdict.OK


def test_a_depth_that_is_not_enough_is_told_with_its_table() -> None:
    assert privileges_told(held(*needed("plan", ()), depth="Local")).verdict is Verdict.OK


def test_privileges_that_are_not_told_are_not_missing() -> None:
    assert privileges_told({}).verdict is Verdict.OK


def test_of_many_some_are_named_and_the_rest_counted() -> None:
    names = ("prvappendtogoal", "prvdeleteaccount", "prvwritegoal", *(f"prvpublish{name}" for name in "abcdefghi"))
    check = excess_told([Excess(name, "Global") for name in names], "plan")
    assert check.verdict is Verdict.WARN
    assert "12 privileges that mode plan does not need: prvAppendToGoal, prvDeleteAccount, prvWriteGoal" in check.found
    assert check.found.endswith("and 4 more")
    assert excess_told([], "plan").verdict is Verdict.OK


# -- settings of the organization ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "wait", "verdict"),
    [
        (7, dt.timedelta(minutes=5), "OK"),
        (7, 5 * DAY, "WARN"),
        (2, dt.timedelta(minutes=5), "WARN"),
        (7, 7 * DAY, "FAIL"),
        (0, dt.timedelta(minutes=5), "FAIL"),
        (None, dt.timedelta(minutes=5), "WARN"),
    ],
)
def test_changes_must_be_remembered_for_longer_than_a_pause(days: int | None, wait: dt.timedelta, verdict: str) -> None:
    assert retained(days, wait, "every now and then").verdict == verdict


def test_the_longest_wait_of_a_cron_expression_is_that_of_the_weekend() -> None:
    assert longest_wait(Schedule(cron="0 6 * * 1-5"), NOW) == 3 * DAY
    assert longest_wait(Schedule(every=dt.timedelta(minutes=5)), NOW) == dt.timedelta(minutes=5)


def test_fiscal_years_are_said_in_words() -> None:
    calendar = FiscalCalendar(4, 1, FiscalTemplate.FOUR_WEEK, "end")
    check = fiscal_told(calendar, is_told=True)
    assert check == Check("fiscal year", Verdict.OK, "four-week periods, years from 1 April, named by their end")
    assert fiscal_told(calendar, is_told=False).verdict is Verdict.WARN
    assert fiscal_told(FiscalCalendar(fault="unknown"), is_told=True, goals=2).verdict is Verdict.FAIL
    assert fiscal_told(FiscalCalendar(fault="unknown"), is_told=True).verdict is Verdict.WARN


# -- databases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 6, 23), "OK"),
        ((3, 7, 0), "WARN"),
        ((3, 40, 1), "WARN"),
        ((3, 44, 5), "WARN"),
        ((3, 44, 6), "OK"),
        ((3, 45, 0), "WARN"),
        ((3, 50, 6), "WARN"),
        ((3, 50, 7), "OK"),
        ((3, 51, 2), "WARN"),
        ((3, 51, 3), "OK"),
        ((3, 53, 0), "OK"),
    ],
)
def test_versions_of_sqlite_with_the_wal_reset_bug(version: tuple[int, ...], verdict: str) -> None:
    assert version_told(version).verdict == verdict


def test_a_sound_file_and_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x TEXT UNIQUE)")
        connection.executemany("INSERT INTO t VALUES (?)", ((str(n) * 50,) for n in range(500)))
    connection.close()
    assert quick_check(path) == Soundness()
    assert checked("journal", path, Soundness(), writable=True).verdict is Verdict.OK
    assert checked("journal", path, Soundness(), writable=False).verdict is Verdict.FAIL
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(8192)
    path.write_bytes(content)
    check = checked("journal", path, quick_check(path), writable=True)
    assert (check.verdict, check.exit_code) == (Verdict.FAIL, 1)
    assert "is damaged" in check.found
    assert "restore the journal" in check.mend


def test_a_file_that_is_locked_is_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.commit()
        connection.execute("BEGIN EXCLUSIVE")
        faults = quick_check(path, patience_s=0.01)
        check = checked("journal", path, faults, writable=True)
    connection.close()
    assert (check.verdict, "locked" in check.found, "damaged" in check.found) == (Verdict.WARN, True, False)
    assert "restore" not in check.mend


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "no#1.db", "ü.db"])
def test_a_file_of_any_name_is_checked(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    sqlite3.connect(path).close()
    path.touch()
    assert quick_check(path).sound


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "mirror.db"
    path.write_bytes(b"something else entirely" * 500)
    assert "delete the mirror" in checked("mirror", path, quick_check(path), writable=True).mend


def test_a_database_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "mirror.db"
    assert not_there_yet("mirror", path, may_make=True).verdict is Verdict.OK
    assert not_there_yet("mirror", path, may_make=False).verdict is Verdict.FAIL
    assert quick_check(path).unread
    assert not path.exists()


@pytest.mark.parametrize(
    ("free", "size", "kind", "verdict"),
    [
        (10**12, 10**9, "ext4", "OK"),
        (10**12, 10**9, "", "OK"),
        (10**9, 2 * 10**9, "xfs", "WARN"),
        (4 * 10**8, 0, "NTFS", "WARN"),
        (10**7, 0, "ext4", "FAIL"),
        (10**12, 0, "nfs4", "FAIL"),
        (10**12, 0, "fuse.sshfs", "FAIL"),
        (10**12, 0, "remote", "FAIL"),
        (10**12, 0, "smb3", "FAIL"),
    ],
)
def test_disks_by_kind_and_room(free: int, size: int, kind: str, verdict: str) -> None:
    assert room(Path("/var/lib/d365sync"), free, size, kind).verdict == verdict


def test_the_log_counts_to_the_size(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"x" * 10)
    (tmp_path / "a.db-wal").write_bytes(b"x" * 5)
    assert (size_of(tmp_path / "a.db"), size_of(tmp_path / "b.db")) == (15, 0)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (6_543_210, "6.5 MB"), (10**15, "1000.0 TB")],
)
def test_bytes_are_said_in_a_fitting_unit(count: int, shown: str) -> None:
    assert in_bytes(count) == shown


def server(**other: Any) -> Server:
    told = {"version": 160004, "version_shown": "16.4", "is_replica": False, "may_create": True}
    return Server(**{**told, "may_make_temporary": True, "is_superuser": False, "user": "d365sync", **other})


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        ({}, "OK"),
        ({"is_replica": True}, "FAIL"),
        ({"may_create": False}, "FAIL"),
        ({"may_make_temporary": False}, "FAIL"),
        ({"version": 120000}, "WARN"),
        ({"is_superuser": True}, "WARN"),
    ],
)
def test_a_postgresql_server(other: dict[str, Any], verdict: str) -> None:
    check = served("journal", server(**other))
    assert (check.verdict, bool(check.mend)) == (verdict, verdict != "OK")


# -- the service -----------------------------------------------------------------------------------------------------


def test_root_is_told() -> None:
    assert (user_told(0).verdict, user_told(1000).verdict) == (Verdict.WARN, Verdict.OK)


def test_who_holds_the_lease() -> None:
    lease = Lease("host:1:machine-began", 3, NOW + DAY, NOW)
    assert lease_told(None, NOW, is_gone=False).found == "nobody holds it"
    live = lease_told(lease, NOW, is_gone=False)
    assert (live.verdict, "process 1 on host" in live.found, "epoch 3" in live.found) == (Verdict.OK, True, True)
    assert lease_told(lease, NOW, is_gone=True).verdict is Verdict.WARN
    assert lease_told(lease, NOW + DAY, is_gone=False).verdict is Verdict.WARN


def test_a_port_that_is_free_ours_or_another_s() -> None:
    taken = OSError(errno.EADDRINUSE, "Address already in use")
    assert port_told("127.0.0.1:1", None, lambda: False).verdict is Verdict.OK
    assert port_told("127.0.0.1:1", taken, lambda: True).verdict is Verdict.OK
    assert port_told("127.0.0.1:1", taken, lambda: False).verdict is Verdict.WARN
    refused = port_told("192.0.2.1:1", OSError(errno.EADDRNOTAVAIL, "Cannot assign"), lambda: pytest.fail("not asked"))
    assert (refused.verdict, "Cannot assign" in refused.found) == (Verdict.WARN, True)


def test_a_monitor_that_answers_whatever_it_says() -> None:
    assert ping_told("hc.example", 404).verdict is Verdict.OK
    check = ping_told("hc.example", RetryableError("no answer from hc.example (refused)", hint="look"))
    assert (check.verdict, check.mend) == (Verdict.WARN, "look")


def test_a_queue_whose_tables_are_to_come() -> None:
    assert {queue_told(is_there=there).verdict for there in (True, False)} == {Verdict.OK}
