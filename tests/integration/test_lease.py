"""One at a time: who holds the lease may write, and who lost it cannot, whatever it believes (fault list, row 16)."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from d365sync.cli.commands import cli
from d365sync.cli.main import main
from d365sync.core.goals.backfill import Batch, Window
from d365sync.errors import LeaseError, LeaseLostError
from d365sync.journal.store import Ending, Intent, Journal, WriteOutcome
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Mirror
from d365sync.sync import holding
from tests.integration.test_mirror import DEALS, deal

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
TTL = dt.timedelta(minutes=1)
WINDOW = Window(dt.date(2026, 1, 1), dt.date(2026, 12, 31))


def at(seconds: int) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


@pytest.fixture
def journals(database_url: str) -> Iterator[tuple[Journal, Journal]]:
    one, other = Journal.open(database_url), Journal.open(database_url)
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def mirrors(database_url: str) -> Iterator[tuple[Mirror, Mirror]]:
    one, other = Mirror.open(database_url), Mirror.open(database_url)
    yield one, other
    one.close()
    other.close()


def test_a_lease_is_one_instances_until_it_ends_or_is_given_back(journals: tuple[Journal, Journal]) -> None:
    one, other = journals
    assert one.lease() is None
    lease = one.acquire_lease("one", NOW, TTL)
    assert lease is not None
    assert (lease.holder, lease.epoch, lease.since, lease.until) == ("one", 1, NOW, at(60))
    assert other.acquire_lease("other", at(59), TTL) is None
    assert one.acquire_lease("one", at(59), TTL) is None
    assert other.lease() == lease
    renewed = one.renew_lease(lease, at(59), TTL)
    assert (renewed.epoch, renewed.since, renewed.until) == (1, NOW, at(119))
    assert other.acquire_lease("other", at(118), TTL) is None
    one.release_lease(renewed)
    assert other.lease() is None
    taken = other.acquire_lease("other", at(118), TTL)
    assert taken is not None
    assert taken.epoch == 2


def test_a_lease_that_is_over_can_be_renewed_as_long_as_nobody_took_it(journals: tuple[Journal, Journal]) -> None:
    one, other = journals
    lease = one.acquire_lease("one", NOW, TTL)
    assert lease is not None
    lease = one.renew_lease(lease, at(600), TTL)
    assert other.acquire_lease("other", at(601), TTL) is None
    assert other.acquire_lease("other", at(660), TTL) is not None
    with pytest.raises(LeaseLostError, match="one lost its lease: other took it at 2026-11-20T09:11:00Z"):
        one.renew_lease(lease, at(661), TTL)
    one.release_lease(lease)
    found = other.lease()
    assert found is not None
    assert found.holder == "other"


def test_of_many_that_want_the_lease_at_one_moment_one_gets_it(database_url: str) -> None:
    journals = [Journal.open(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for turn in range(5):
            now = at(100 * turn)
            got = list(pool.map(lambda one, now=now: one.acquire_lease(f"i{id(one)}", now, TTL), journals))
            assert [lease.epoch for lease in got if lease] == [turn + 1]
    for journal in journals:
        journal.close()


JOURNAL_WRITES: dict[str, Callable[[Journal, str], object]] = {
    "belong_to": lambda journal, _run: journal.belong_to("https://b.test", "b"),
    "start_run": lambda journal, _run: journal.start_run("sync", "override", NOW),
    "finish_run": lambda journal, run: journal.finish_run(run, "ok", {}, "", NOW),
    "intend": lambda journal, run: journal.intend(run, [Intent("g", "Goal", 'W/"1"', {}, {})], NOW),
    "done": lambda journal, _run: journal.done([Ending(1, WriteOutcome.DONE)], NOW),
    "begin_backfill": lambda journal, run: journal.begin_backfill(run, WINDOW, "override", None),
    "add_batches": lambda journal, run: journal.add_batches(run, [Batch(1, "2026", ("g",))]),
    "resume_run": lambda journal, run: journal.resume_run(run),
    "batch_done": lambda journal, run: journal.batch_done(run, 1, NOW),
    "load": lambda journal, _run: journal.load(Path("nowhere.db")),
    "prune": lambda journal, _run: journal.prune(at(1), NOW),
}


def everything(journal: Journal, run: str) -> object:
    return journal.owner(), journal.runs(99), journal.written_by(run), journal.written_values(["g"])


def test_an_instance_that_was_paused_past_its_lease_stores_nothing_more(journals: tuple[Journal, Journal]) -> None:
    one, other = journals
    lease = one.acquire_lease("one", NOW, TTL)
    one.fence(lease)
    one.belong_to("https://a.test", "a")
    run = one.start_run("sync", "override", NOW)
    one.intend(run, [Intent("g", "Goal", 'W/"1"', {"actualmoney": 1}, {"actualmoney": 2})], NOW)
    other.fence(other.acquire_lease("other", at(60), TTL))
    before = everything(other, run)
    for write in JOURNAL_WRITES.values():
        with pytest.raises(LeaseLostError, match="one lost its lease: other took it"):
            write(one, run)
    assert everything(other, run) == before == everything(one, run)
    other.done([Ending(1, WriteOutcome.DONE)], NOW)


def test_every_method_of_the_journal_that_writes_is_among_those_tried() -> None:
    """One that opens a writing transaction and is not listed above would be one nobody saw refused."""
    files = [Path(f"d365sync/journal/{name}.py").read_text(encoding="utf-8") for name in ("store", "backfills")]
    source = [part for file in files for part in file.split("    def ")[1:]]
    writing = {part.partition("(")[0] for part in source if "_transaction(writes=True)" in part}
    assert writing - {"__init__"} == JOURNAL_WRITES.keys()


MIRROR_WRITES: dict[str, Callable[[Mirror], object]] = {
    "belong_to": lambda mirror: mirror.belong_to("https://b.test", "b"),
    "ensure": lambda mirror: mirror.ensure(DEALS),
    "forget_definitions": lambda mirror: mirror.forget_definitions(),
    "index": lambda mirror: mirror.index(frozenset()),
    "save_definitions": lambda mirror: mirror.save_definitions({"goal": "{}"}, NOW),
    "drop_positions": lambda mirror: mirror.drop_positions(),
    "forget_positions": lambda mirror: mirror.forget_positions([DEALS.name]),
    "begin_load": lambda mirror: mirror.begin_load(DEALS.name),
    "append": lambda mirror: mirror.append(DEALS, [], 1),
    "fill": lambda mirror: mirror.fill(DEALS, Position(NOW)),
    "put": lambda mirror: mirror.put(DEALS, [DEALS.rows.stored(deal(2, "9"))]),
    "remove_missing": lambda mirror: mirror.remove_missing(DEALS, [], Position(NOW)),
    "verify": lambda mirror: mirror.verify(NOW),
    "note_unreadable": lambda mirror: mirror.note_unreadable(DEALS.name, "closed", "open it"),
    "settle": lambda mirror: mirror.settle([]),
    "visible": lambda mirror: mirror.visible().__enter__(),
}


def test_the_mirror_refuses_an_instance_that_was_paused_past_its_lease(mirrors: tuple[Mirror, Mirror]) -> None:
    one, other = mirrors
    one.fence(1)
    one.belong_to("https://a.test", "a")
    one.ensure(DEALS)
    one.apply(DEALS, [deal(1, "5")], last=Position(NOW))
    other.fence(2)
    for write in MIRROR_WRITES.values():
        with pytest.raises(LeaseLostError, match="another instance's now: it has epoch 2, this one 1"):
            write(one)
    with pytest.raises(LeaseLostError):
        one.fence(1)
    assert other.owner() == ("https://a.test", "a")
    assert other.bookmarks() == {DEALS.name: Position(NOW)}
    assert [row["opportunityid"] for row in other.rows(DEALS)] == [deal(1, "5")["opportunityid"]]
    assert other.epoch() == 2
    other.apply(DEALS, [deal(2, "5")])
    one.fence(3)
    one.apply(DEALS, [deal(3, "5")])


def test_every_method_of_the_mirror_that_writes_is_among_those_tried() -> None:
    source = Path("d365sync/mirror/store.py").read_text(encoding="utf-8").split("    def ")[1:]
    writing = {part.partition("(")[0] for part in source if "self._writing()" in part or "for_writing(" in part}
    assert writing == MIRROR_WRITES.keys() | {"__init__"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Journal, Mirror]]:
    journal, mirror = Journal.open(f"sqlite:///{tmp_path}/journal.db"), Mirror.open(f"sqlite:///{tmp_path}/mirror.db")
    yield journal, mirror
    journal.close()
    mirror.close()


def test_a_process_that_was_killed_on_this_machine_is_not_waited_for(pair: tuple[Journal, Mirror]) -> None:
    code = "from d365sync.sync.holding import own_name; print(own_name())"
    dead = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    journal, mirror = pair
    assert holding.is_gone(dead)
    assert journal.acquire_lease(dead, NOW, TTL) is not None
    lease = holding.take(journal, mirror, "me", NOW)
    assert lease is not None
    assert (lease.holder, lease.epoch, mirror.epoch()) == ("me", 2, 2)


@pytest.mark.parametrize(
    "change", [lambda name: f"elsewhere{name}", lambda name: name.replace(":", "-"), lambda name: name]
)
def test_a_holder_that_lives_or_cannot_be_looked_at_is_waited_for(
    change: Callable[[str], str], pair: tuple[Journal, Mirror]
) -> None:
    journal, mirror = pair
    assert journal.acquire_lease(change(holding.own_name()), NOW, TTL) is not None
    assert holding.take(journal, mirror, "me", at(59)) is None
    assert holding.take(journal, mirror, "me", at(60)) is not None


def test_a_later_process_of_the_same_number_is_told_from_the_holder() -> None:
    head, _, began = holding.own_name().rpartition("-")
    assert holding.is_gone(f"{head}-{int(began) - 1}")


def test_a_journal_put_back_from_a_backup_raises_its_epoch_above_the_mirrors(pair: tuple[Journal, Mirror]) -> None:
    journal, mirror = pair
    mirror.fence(41)
    lease = holding.take(journal, mirror, "me", NOW)
    assert lease is not None
    assert lease.epoch == mirror.epoch() == 42


def test_a_command_gives_the_lease_back_whatever_happens(pair: tuple[Journal, Mirror]) -> None:
    journal, mirror = pair

    def fail() -> None:
        with holding.held(journal, mirror, lambda: NOW) as lease:
            assert journal.lease() == lease
            assert holding.shown(lease.holder).startswith(f"process {os.getpid()} on ")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert journal.lease() is None


def test_a_command_that_finds_the_lease_held_says_by_whom_since_when_and_what_to_do(
    pair: tuple[Journal, Mirror],
) -> None:
    journal, mirror = pair
    journal.acquire_lease("crm-2:4711:abc-1", NOW, TTL)
    with pytest.raises(LeaseError) as refusal, holding.held(journal, mirror, lambda: at(5)):
        pass
    assert str(refusal.value) == (
        "another instance works here: process 4711 on crm-2 has held the lease since 2026-11-20T09:00:00Z, "
        "until 2026-11-20T09:01:00Z unless it renews it"
    )
    assert refusal.value.exit_code == 10
    assert "db unlock" in refusal.value.hint


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "d365sync.toml"
    path.write_text('[dataverse]\nurl = "https://emulator.test"\nauth = "managed_identity"\n', encoding="utf-8")
    monkeypatch.setenv("D365SYNC_CONFIG", str(path))
    return tmp_path


@pytest.mark.parametrize("command", [["sync"], ["sync", "--dry-run"], ["plan"], ["undo", "20261120T090000Z-1a2b3c4d"]])
def test_commands_that_write_end_with_10_while_another_instance_works(
    command: list[str], configured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal.open(f"sqlite:///{configured}/journal.db")
    journal.acquire_lease("crm-2:4711:abc-1", dt.datetime.now(dt.UTC), TTL)
    journal.close()
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 10
    assert "process 4711 on crm-2 has held the lease since" in capsys.readouterr().err


def test_status_shows_who_holds_the_lease(configured: Path) -> None:
    assert "no instance holds the lease" in CliRunner().invoke(cli, ["status"]).output
    journal = Journal.open(f"sqlite:///{configured}/journal.db")
    journal.acquire_lease("crm-2:4711:abc-1", NOW, TTL)
    journal.close()
    told = " ".join(CliRunner().invoke(cli, ["status"]).output.split())
    assert (
        "process 4711 on crm-2 has held the lease since 2026-11-20T09:00:00Z, was due for renewal at "
        "2026-11-20T09:01:00Z (epoch 1)"
    ) in told
