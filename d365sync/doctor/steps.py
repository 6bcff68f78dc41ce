"""All checks in the order in which they are made, with what docs/doctor.md says of each.

A new check is a function that yields lines and an entry here; ``make docs`` writes the page.

Pure; what the functions ask is theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from d365sync.doctor import goals, identity, network, organization, privileges, service, storage
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Step, Stop, Verdict, examined, failure
from d365sync.doctor.kept import certificate_lasts, secrets_kept
from d365sync.errors import ConfigError
from d365sync.secretstore import resolve_secret

TO_SIGN_IN = "dataverse."


def examine(case: Case) -> Iterator[Check]:
    """Yield the lines of every check that applies, as they are made."""
    return examined(STEPS, case)


def _configuration(case: Case) -> Iterator[Check]:
    config = case.config
    yield Check("configuration", Verdict.OK, f"{config.path or 'environment'}, mode {config.writeback.mode}")


def _files(case: Case) -> Iterator[Check]:
    found = list(secrets_kept(case.config))
    judged = os.name == "posix"
    well = "for the eyes they are meant for" if judged else "who may read them is up to their folders here; not judged"
    yield from found or [Check("files", Verdict.OK, well)]


def _secret(case: Case) -> Iterator[Check]:
    stop: Check | None = None
    for key, reference in case.config.secret_references().items():
        try:
            resolve_secret(reference, case.machine.environ, case.config.folder)
            yield Check("secret", Verdict.OK, f"{key} can be read")
        except ConfigError as error:
            check = failure("secret", error)
            if stop is None and key.startswith(TO_SIGN_IN):
                stop = check
            else:
                yield check
    if stop is not None:
        raise Stop(stop)


def _certificate(case: Case) -> Iterator[Check]:
    if case.certificate_until is None:
        return
    try:
        until = case.certificate_until()
    except ConfigError as error:
        raise Stop(failure("certificate", error)) from None
    yield certificate_lasts(until, case.now())


STEPS: tuple[Step[Case], ...] = (
    Step(
        "configuration",
        _configuration,
        "The file that was read, and what d365sync may do with its results.",
        "Every fault of the file is listed before anything is checked (exit code 2).",
    ),
    Step(
        "system user",
        service.user,
        "As whom d365sync runs (not on Windows). Root may do more than it needs, and leaves files that others "
        "cannot use.",
        "Make a user for the service; run `doctor` as that user, because what may be read differs.",
    ),
    Step(
        "files",
        _files,
        "Who may read what is secret: the configuration, files of secrets and keys, the databases (not on Windows).",
        "`chmod 600 FILE`. A secret that stood in the configuration: make a new one, and refer to it.",
    ),
    Step(
        "secret",
        _secret,
        "Whether each secret can be read where the configuration says.",
        "Set the variable, the file or the entry that the line names, for the user that d365sync runs as.",
        applies=lambda case: bool(case.config.secret_references()),
    ),
    Step(
        "certificate",
        _certificate,
        "Days until the certificate that signs in ends: a warning from 30 days on. When a client secret ends is not"
        " told by the sign-in service before it has ended; note the date.",
        "Make a new certificate, upload its public part to the app registration, then exchange the file.",
        applies=lambda case: case.config.dataverse.auth == "certificate",
    ),
    Step(
        "SQLite",
        storage.library,
        "The version of SQLite in this Python. 3.7.0 to 3.51.2 have the WAL-reset bug, but for 3.50.7 and 3.44.6 "
        "and later ones of those lines: two connections at a checkpoint can, rarely, damage a database.",
        "Use a Python with a later SQLite, or PostgreSQL. Back up the journal until then.",
        applies=storage.uses_sqlite,
    ),
    Step(
        "databases",
        storage.databases,
        "Lines `mirror` and `journal`. A SQLite file: whether this user may read and write it, and whether SQLite's"
        " quick check finds it sound. PostgreSQL: version, a primary server, rights to make tables and temporary "
        "tables.",
        "A damaged mirror may be deleted. A damaged journal must be restored from a backup. Rights are the database's.",
    ),
    Step(
        "disk",
        storage.disks,
        "What kind of disk the SQLite files are on, and the room on it: a warning below 500 MB, or below the size "
        "of the databases; a failure below 50 MB, and on drives of other machines (NFS, SMB), on which SQLite can "
        "lose data.",
        "Make room, or set `storage.mirror` and `storage.journal` to a local disk or to PostgreSQL.",
        applies=storage.uses_sqlite,
    ),
    Step(
        "lease",
        service.lease,
        "Which instance works on these databases. A warning means that one ended without giving the lease back.",
        "The next instance takes it over by itself. If one should still be running, look why it does not renew it.",
    ),
    Step(
        "schedule",
        service.schedule,
        "When `run` would begin its cycles (`daemon.every` or `daemon.cron`).",
        "Set `daemon.every`, or `daemon.cron` and `daemon.time_zone`.",
    ),
    Step(
        "listen",
        service.port,
        "Whether `run` could answer health checks at `daemon.listen`, or does so already.",
        "Another program has the port: set `daemon.listen`, or stop that program.",
    ),
    Step(
        "queue",
        service.queue,
        "Whether the database of the queue that machines share can be reached (only with `daemon.queue`).",
        "Start the server, mend `daemon.queue`, or install `d365sync[workers]`.",
        applies=lambda case: bool(service.queue_url(case)),
    ),
    Step(
        "ping",
        service.ping,
        "Whether the host of the dead-man switch can be reached (only with `daemon.ping`). It is asked for "
        "`/robots.txt`, so that it takes nothing for a sign of life.",
        "Mend `daemon.ping`, or let the proxy or firewall pass its host.",
        applies=service.has_ping,
    ),
    Step(
        "DNS",
        network.names,
        "Whether the organization's host and that of the sign-in service have addresses, of which kind, and how "
        "long it takes to be told: a warning from 2 seconds on. With a proxy it is the proxy's name; the proxy "
        "looks up the others.",
        "The address in the configuration, or the name servers of this machine.",
    ),
    Step(
        "proxy",
        network.proxy,
        "Which proxy is used, what names it (`dataverse.proxy` goes before `HTTPS_PROXY`; `NO_PROXY` exempts from "
        "the latter only), and whether it can be reached. A proxy that refuses is told by its status: 407 asks for "
        "a password.",
        "The proxy's address, user and password; have it allow the host; or name the host in `NO_PROXY`.",
        needs=("DNS",),
    ),
    Step(
        "reach",
        network.reach,
        "Whether the server answers, asked without a token.",
        "The address, the firewall, the network. Try again later if it was reached before.",
        needs=("DNS", "proxy"),
    ),
    Step(
        "TLS",
        network.tls,
        "Whose certificate the server has, who issued it, and until when it is valid: a warning from 14 days on. A "
        "certificate that is not trusted, has ended or is for another host is a failure; nothing is sent then. A "
        "proxy that opens TLS shows by its issuer.",
        "A private authority is named in `dataverse.ca_bundle`. An ended certificate is renewed by whoever runs the"
        " server.",
        needs=("reach",),
    ),
    Step(
        "clock",
        network.clock,
        "This machine's clock against the server's: a warning beyond 2 minutes, a failure beyond 5.",
        "Set the clock by a time server.",
        needs=("reach",),
    ),
    Step(
        "sign in",
        identity.sign_in,
        "Whether the sign-in service gives a token; a wrong tenant, application or secret, and one that has ended, "
        "are told apart.",
        "As the line says: see [connect](connect.md#1-choose-a-way-in).",
        needs=("secret", "certificate", "reach"),
    ),
    Step(
        "token",
        identity.token,
        "What the token tells of itself: what it is for, how long it lasts, the application, its app roles "
        "(Dataverse needs none). A warning if it is for another address or application than configured, or "
        "short-lived.",
        "`dataverse.resource` or `dataverse.url`; `dataverse.client_id`; this machine's clock.",
        needs=("sign in",),
    ),
    Step(
        "WhoAmI",
        identity.who_am_i,
        "Which user of which organization the identity is: whether there is one, enabled, with a role.",
        "Make an application user and give it a role: [connect](connect.md#2-make-an-application-user).",
        needs=("sign in",),
    ),
    Step(
        "service account",
        identity.account,
        "The user's row: application user or person, access mode, business unit, licence. A warning for access "
        "modes that do not reach the records of sales, or may not write, and for an application that acts as a "
        "person.",
        "Make an application user; its access mode is Non-interactive.",
        needs=("WhoAmI",),
    ),
    Step(
        "privileges",
        privileges.held,
        "What the user's roles lack of the privileges to read what defines goals.",
        "Give the role the privilege named, with the depth Organization.",
        needs=("WhoAmI",),
    ),
    Step(
        "tables that define goals",
        goals.definitions,
        "Whether the tables of goals, metrics and what belongs to them are there, with their columns. Lines `table "
        "…` name what is missing.",
        "Sales must be installed in the environment; see also the privileges to read definitions.",
        needs=("WhoAmI",),
    ),
    Step(
        "goals",
        goals.defining,
        "Lines `read …`: every row of those tables can be read, and their changes where they are tracked.",
        "Give the role the privilege named, with the depth Organization: narrower ones hide rows, and change "
        "tracking "
        "refuses them.",
        needs=("tables that define goals",),
    ),
    Step(
        "sources",
        goals.counted_tables,
        "Lines `read …` for each table that goals count records of, with its change tracking; lines `goal` for "
        "rollup fields and queries that cannot be computed.",
        "Switch on change tracking for the table; give the role the privilege named; correct the rollup field or "
        "query.",
        needs=("goals",),
    ),
    Step(
        "delta retention",
        organization.retention,
        "How long the organization remembers changes (`ExpireChangeTrackingInDays`), against the longest time "
        "between two cycles. After a longer pause every table is read anew; nothing is lost.",
        "Let cycles come more often, or have the setting raised.",
        needs=("WhoAmI",),
    ),
    Step(
        "fiscal year",
        organization.fiscal,
        "The fiscal years and periods that goals with fiscal periods get, as the organization and `[fiscal]` say.",
        "Set the keys of `[fiscal]` that the line names.",
        needs=("goals",),
    ),
    Step(
        "time zone",
        goals.bounds,
        "Whether the dates of the stored goals are midnights in the zone of the configuration.",
        "Set `rollup.time_zone` (or `rollup.bounds_zone`) to the zone of those who made the goals.",
        needs=("goals",),
    ),
    Step(
        "columns to write",
        goals.own_columns,
        "Mode `columns` only: whether the organization's own columns can take the numbers.",
        "Change the column, or name another in `writeback.columns`: [write-back](write-back.md).",
        needs=("tables that define goals",),
        applies=goals.writes_columns,
    ),
    Step(
        "act for goal managers",
        goals.managers,
        'Only with `rollup.visibility = "manager"`: one manager is acted for, and those are counted who cannot be.',
        "Give the user the privilege to act on behalf of others directly: [visibility](visibility.md).",
        needs=("goals",),
        applies=goals.asks_for_managers,
    ),
    Step(
        "write goals",
        goals.writable,
        "Whether goals may be written; tried by an update that cannot happen.",
        "Give the role write on Goal, with the depth Organization.",
        needs=("goals",),
    ),
    Step(
        "least privilege",
        privileges.excess,
        "What the user may change, or do as somebody else, that this configuration does not need. To read more than"
        " needed is not judged: every user reads what basic roles give.",
        "Give it a role of its own with what [security](security.md#the-least-that-d365sync-needs) lists, and no "
        "other.",
        needs=("privileges", "sources"),
    ),
)
