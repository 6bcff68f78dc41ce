"""``db``: look after the mirror and the journal.

IO: terminal, files, databases.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from d365sync.cli.context import Settings
from d365sync.cli.output import console, print_json
from d365sync.core.counts import by_count, counted
from d365sync.errors import LeaseError, UsageError

if TYPE_CHECKING:
    from d365sync.config import Config
    from d365sync.journal.copies import Copy
    from d365sync.journal.store import Journal

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def db() -> None:
    """Look after the databases: check, backup, restore, prune, upgrade, unlock.

    The mirror is a copy of what Dataverse holds: if it is lost it is pulled again. The journal is not; back it up.
    """


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def check(settings: Settings, *, as_json: bool) -> int:
    """Look for damage and leftovers; show sizes, and who holds the lease. Changes nothing.

    \b
    Examples:
      d365sync db check
    """
    from d365sync.cli.doctor import print_check
    from d365sync.doctor.check import exit_code_of
    from d365sync.doctor.dbcheck import check_databases

    checks = list(check_databases(settings.load()))
    if as_json:
        print_json({"checks": checks})
    else:
        for one in checks:
            print_check(one)
    return exit_code_of(checks, strict=False)


@db.command()
@click.argument("file", required=False, type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def backup(settings: Settings, *, file: Path | None, as_json: bool) -> int:
    """Copy the journal to FILE, or to a new file beside it; instances may go on working meanwhile.

    The copy is a SQLite file that only you may read, whatever database the journal is in.

    \b
    Examples:
      d365sync db backup /var/backups/d365sync/journal.db
    """
    from d365sync.app import system_clock
    from d365sync.journal.copies import check_copy, copy_name, unused

    config = settings.load()
    if file is None:
        place = config.database_path(config.storage.journal)
        stem = place.stem if place else "journal"
        file = unused((place.parent if place else config.folder) / copy_name(stem, "backup", system_clock()))
    with _journal(config) as journal:
        journal.copy_to(file)
    made = check_copy(file)
    if as_json:
        print_json(_document(made))
    else:
        console().print(
            f"copied {counted(made.runs, 'run')} and {counted(made.writes, 'write')} to {made.path}", soft_wrap=True
        )
    return 0


@db.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def restore(settings: Settings, *, file: Path, as_json: bool) -> int:
    """Put the copy FILE in place of the journal, which is kept under another name.

    The copy is read through first. Stop every instance before: none is disturbed that holds the lease (exit code 10).
    What was written to goals since the copy was made is unknown to it: those overrides count as a person's.

    \b
    Examples:
      d365sync db restore journal-backup-20261120T090000Z.db
    """
    from d365sync.app import system_clock
    from d365sync.sync.restoring import restore as put_back

    done = put_back(settings.load(), file, system_clock())
    if as_json:
        print_json({"copy": _document(done.copy), "kept_as": str(done.kept_as) if done.kept_as else None})
    else:
        out, copy = console(), done.copy
        until = f", the last of {copy.until:%Y-%m-%dT%H:%M:%SZ}" if copy.until else ""
        out.print(f"restored {counted(copy.runs, 'run')}{until}, and {counted(copy.writes, 'write')}")
        if done.kept_as:
            out.print(f"the journal that was there is kept as {done.kept_as}", soft_wrap=True)
    return 0


@db.command()
@click.option("--older-than", metavar="DURATION", help="Age of what is forgotten, such as 400d [storage.keep].")
@click.option("--dry-run", is_flag=True, help="Say what would be forgotten, and forget nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def prune(settings: Settings, *, older_than: str | None, dry_run: bool, as_json: bool) -> int:
    """Forget old runs and writes, but nothing that tells our overrides from a person's.

    The last write of each goal stays, however old. Runs that were forgotten cannot be undone. `sync` and `run` do this
    once a day, by storage.keep.

    \b
    Examples:
      d365sync db prune --older-than 400d --dry-run
    """
    config = settings.load()
    seconds = config.storage.keep if older_than is None else _duration(older_than)
    if not seconds:
        raise UsageError("storage.keep is 0: everything is kept", hint="name an age: --older-than 400d")
    with settings.app(config, offline=True) as app, app.lease():
        now = app.clock()
        done = app.line.journal.prune(now - dt.timedelta(seconds=seconds), now, try_only=dry_run)
    if as_json:
        print_json({"runs": done.runs, "writes": done.writes, "kept": done.kept, "dry_run": dry_run})
    else:
        would = "would forget" if dry_run else "forgot"
        kept = f"{counted(done.kept, 'old write')} {by_count(done.kept, 'stays', 'stay')}"
        console().print(f"{would} {counted(done.runs, 'run')} and {counted(done.writes, 'write')}; {kept}")
    return 0


@db.command()
@click.option("--no-backup", is_flag=True, help="Put no copy aside before.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def upgrade(settings: Settings, *, no_backup: bool, as_json: bool) -> int:
    """Bring the journal to this version's format, after a copy was put aside. Every command does so by itself.

    \b
    Examples:
      d365sync db upgrade --no-backup     where there is no room for a copy, and you have one
    """
    from d365sync.journal.models import FORMAT
    from d365sync.journal.upgrading import present_format

    config = settings.load()
    before = present_format(config.database_url(config.storage.journal))
    with _journal(config, copies=not no_backup):
        pass
    if as_json:
        print_json({"before": before, "format": FORMAT})
    elif before == FORMAT:
        console().print(f"the journal has format {FORMAT} already")
    else:
        console().print(f"the journal has format {FORMAT} now" + (f", it had {before}" if before else ""))
    return 0


@db.command()
@click.option("--force", is_flag=True, help="Also if its holder may still be working.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def unlock(settings: Settings, *, force: bool, as_json: bool) -> int:
    """End the lease of an instance that is gone. One that lives after all stores nothing more.

    \b
    Examples:
      d365sync db unlock
    """
    from d365sync.app import system_clock
    from d365sync.sync.holding import is_gone, refused, shown

    with _journal(settings.load()) as journal:
        found, now = journal.lease(), system_clock()
        if found and not (force or found.is_over(now) or is_gone(found.holder)):
            raise LeaseError(str(refused(found, now)), hint="stop it; if you know that it is gone, add --force")
        if found:
            journal.release_lease(found)
    if as_json:
        print_json({"ended": found})
    else:
        console().print(f"ended the lease of {shown(found.holder)}" if found else "nobody holds the lease")
    return 0


def _document(copy: Copy) -> dict[str, object]:
    return {**{one.name: getattr(copy, one.name) for one in fields(copy)}, "path": str(copy.path)}


@contextmanager
def _journal(config: Config, *, copies: bool = True) -> Iterator[Journal]:
    from d365sync.journal.store import Journal
    from d365sync.journal.upgrading import Keeping

    url = config.database_url(config.storage.journal)
    journal = Journal.open(url, keeping=Keeping(folder=config.folder, copies=copies))
    try:
        yield journal
    finally:
        journal.close()


def _duration(text: str) -> int:
    from pydantic import TypeAdapter, ValidationError

    from d365sync.config_rules import Duration

    try:
        return int(TypeAdapter(Duration).validate_python(text))
    except ValidationError:
        raise UsageError(f"{text!r} is no duration", hint="such as 400d, 36h or 90m") from None
