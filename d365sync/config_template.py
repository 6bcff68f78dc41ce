"""The complete, commented configuration that ``init`` writes and ``config/d365sync.sample.toml`` shows.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

DEFAULTS: Mapping[str, str] = {
    "url": "https://contoso.crm4.dynamics.com",
    "tenant_id": "00000000-0000-0000-0000-000000000000",
    "client_id": "00000000-0000-0000-0000-000000000000",
    "auth": "client_secret",
    "client_secret": "env:D365SYNC_CLIENT_SECRET",
    "certificate": "",
    "certificate_password": "",
    "sign_in_cache": "encrypted",
    "cloud": "",
    "authority": "",
    "ca_bundle": "",
    "mirror": "sqlite:///mirror.db",
    "journal": "sqlite:///journal.db",
    "mode": "plan",
    "time_zone": "UTC",
}

TEMPLATE = """\
# d365sync configuration. Every key may also be given as an environment variable D365SYNC_SECTION__KEY,
# which wins over this file. Relative paths are relative to this file. Check it with `d365sync doctor`.

[dataverse]
# The organization's address, as in the browser, without a path.
url = {url}
# How to sign in: client_secret, certificate, managed_identity, or device_code (a person at a console).
auth = {auth}
# Microsoft Entra tenant (directory) id, and the application (client) id of the app registration. managed_identity needs
# neither: a client_id there is that of a user-assigned identity.
tenant_id = {tenant_id}
client_id = {client_id}
# For client_secret: where the secret is, env:NAME, file:PATH, systemd:NAME (a credential of the unit),
# keyring:SERVICE/USER or azurekv:VAULT/NAME.
client_secret = {client_secret}
# For certificate: a PEM file with private key and certificate, or a PFX file; and its password (env:, file:, keyring:).
certificate = {certificate}
certificate_password = {certificate_password}
# Whether the certificate is sent along (trust by subject name and issuer) instead of its thumbprint alone.
certificate_chain = false
# For device_code: where the sign-in is remembered: encrypted (by the platform), file (readable by this user only) or
# memory (not at all: somebody has to sign in at each start); and the file, unless the platform keeps it elsewhere.
sign_in_cache = {sign_in_cache}
sign_in_cache_file = "sign-in.cache"
# The cloud: public, gcc, gcc_high, dod or china. Empty: by the organization's host.
cloud = {cloud}
# Only for the emulator or AD FS: the sign-in authority (AD FS: https://HOST/adfs). Empty: that of the cloud.
authority = {authority}
# What tokens are asked for. Empty: the address of the organization, without its path.
resource = ""
# Version of the Web API; on-premises servers may have an older one.
api_version = "v9.2"
# Further trust anchors (PEM), for a private CA. TLS verification cannot be switched off.
ca_bundle = {ca_bundle}
# Rows per page (1 to 5000), time-out of one request, and how long a failing request is repeated.
page_size = 5000
timeout = "120s"
retry_budget = "6m"
# Requests at once; 0: as many as the server advises, fewer when it complains.
concurrency = 0
# A proxy for every request (http://host:port); empty: HTTPS_PROXY and NO_PROXY of the environment.
proxy = ""
# The tenant's requests of 24 hours for application users, and from which share of them `status` warns.
daily_requests = 500000
daily_warning_pct = 50

[storage]
# The mirror is a copy and may be deleted at any time. The journal is not: back it up.
# sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE
mirror = {mirror}
journal = {journal}
# How long runs and writes stay in the journal; 0 keeps all. What tells our overrides from a person's stays for ever.
keep = "400d"

[pull]
# Tables without change tracking: up to this many rows they are read whole in every cycle,
reread_up_to = 1000
# larger ones by modifiedon, looking back by this overlap, with a search for deleted rows now and then.
overlap = "10m"
sweep_every = "1h"
# Tables read at one time, and ranges of one large table at its first load (1: page after page).
tables = 4
partitions = 8
# Whether the first load by ranges of a table with change tracking may go on from another table's delta token
# (false: such a table is loaded page after page).
shared_token = true

[writeback]
# plan: compute and show, write nothing. override: write goals, with the override flags set. columns: write columns of
# your own, named below, and leave the native rollup on. recalculate: write nothing, have Dataverse roll up the goals
# whose numbers are stale. See docs/write-back.md.
mode = {mode}
# Goals written by one request (1 to 1000). All must be done within dataverse.timeout; after a batch that was not,
# fewer are sent at once.
batch_size = 1000
# For mode recalculate: trees of goals in one cycle at most, and the pause between two.
recalculate_at_most = 10
recalculate_pause = "10s"

[writeback.columns]
# For mode columns: which number goes into which column of the goal table. The nine numbers, percentage, and
# lastrolledupdate (when they were written). Checked against the table before anything is written.
# actualmoney = "new_actual"
# percentage = "new_percentage"
# lastrolledupdate = "new_computedon"

[guards]
# What stops a cycle before its first write (exit code 4), until a person has looked and accepts it. See docs/guards.md.
# Guards switched off by name: deletions, emptied, changes, zeroed, jumps, totals, negative.
off = []
# deletions: a table of that many rows or more lost more than this part of them, or more rows than deletions_at_most
# whatever part they are (0: no such limit). emptied: a table that had that many rows or more has none.
deletions_rows = 50
deletions_percent = 50
deletions_at_most = 10000
emptied_rows = 10
# The others stop when they see at least so many goals and more than this percentage of those it could be.
# changes: goals written before that would change again.
changes_goals = 50
changes_percent = 80
# zeroed: goals in which a column would fall to nothing.
zeroed_goals = 10
zeroed_percent = 20
# jumps: goals in which a column would become more than jumps_factor times as large, or as small.
jumps_goals = 10
jumps_percent = 20
jumps_factor = 10
# totals: a metric's total over all goals would move by more than this percentage, in at least so many goals.
totals_goals = 20
totals_percent = 50
# negative: goals in which a column would become negative that is positive.
negative_goals = 5
negative_percent = 5
# The folder for the plan of a refused run. Empty: the journal's, or the configuration's if it is no file.
plans = ""

[rollup]
# IANA time zone in which goal days begin and end: that of the people who make the goals.
time_zone = {time_zone}
# What a closed child goal adds to its parent: stored (the value Dataverse holds) or excluded.
closed_child = "stored"
# What a child goal that a person overrode adds to its parent: stored or recomputed.
overridden_child = "stored"
# How the percentage becomes a whole number: half_up or half_even.
percentage_rounding = "half_up"
# Whose eyes decide which records count: service (all that d365sync may read), or manager (as Dataverse does: what the
# goal's manager may read, asked by impersonation; needs prvActOnBehalfOfAnotherUser). See docs/visibility.md.
visibility = "service"
# With manager: how often all of it is asked again. Records that changed are asked about in every cycle.
visibility_refresh = "1h"
# The percentage of a goal without a target, or with the target 0: null or zero.
percentage_without_target = "null"
# What a column with a rollup field holds when no record counts, in the goal or below it: zero or null.
empty_category = "zero"
# Whom rollup queries mean by the calling user: the goal's manager, its owner, or refuse such queries.
caller = "manager"
# What "user or reporting hierarchy" goes down in rollup queries: manager or position.
hierarchy = "manager"
# Days of a fiscal goal whose dates differ from its fiscal year and period: stored or computed.
bounds = "stored"
# IANA time zone in which the stored dates of goals are midnights. Empty: time_zone.
bounds_zone = ""
# Columns with a time count on a goal's last day to its end (true), or only at its first instant (false).
end_of_day = true
# Whether records that count in a goal and again below it are searched for and reported: report or off.
double_counting = "report"

[fetchxml]
# IANA time zone of whoever runs rollup queries: "today", "last-x-days", dates without a zone. Empty: rollup.time_zone.
time_zone = ""
# First day of the week in rollup queries: organization, or sunday to saturday.
week_start = "organization"
# next-x-hours runs to the end of a whole hour (true), or to now plus x hours.
next_x_hours_whole = true
# A value equal to now belongs to last-x (true), or to next-x.
now_is_past = false
# Whether empty columns pass ne (and neq, ne-userid, ne-businessid), not-in, not-begin-with and not-end-with,
# not-contain-values, not-under, and ne between two empty columns.
ne_keeps_null = true
not_in_keeps_null = false
not_begin_keeps_null = true
not_contain_keeps_null = true
not_under_keeps_null = false
valueof_ne_keeps_both_null = false
# Whether not-under returns the row it names.
not_under_keeps_anchor = true
# Whether text that differs in accents, or in blanks at its end, differs.
accents_count = true
trailing_blanks_count = true
# Whether the upper end of between without a time means the end of that day (true), or its first instant.
between_to_end_of_day = false
# Whether a literal with a zone is turned into the caller's wall clock for columns without one (true), or loses it.
literals_follow_zone = false
# Whether a fiscal period number that the template does not have is refused (true), or gives no rows.
missing_period_refused = false
# Whether all and not all mean what their names say (true), or what Microsoft's document says.
all_means_every = false
# Whether matchfirstrowusingcrossapply keeps rows without a linked row.
matchfirst_keeps_unmatched = false
# A link that drops rows inside an outer link: refused, flat (it drops rows) or nested (it narrows the outer link).
inner_under_outer = "refused"
# The fiscal years, first and last, that in-fiscal-period looks at.
fiscal_years = [1900, 2100]

[fiscal]
# A fiscal year is named by the calendar year of its start or of its end, or as the organization says.
year_named_by = "start"
# The days that thirteen four-week periods leave over: own_period (they belong to no number) or last_period.
leftover_days = "own_period"
# Fiscal period 101 is January by_name, or the first month of the year by_position.
month_codes = "by_name"
# The template (annual, semiannual, quarterly, monthly, four_week) and the first day (MM-DD), or the organization's.
template = "organization"
start = "organization"

[daemon]
# `d365sync run`: how often a cycle runs; or when, as a cron expression (minute hour day month weekday), which goes
# before it.
every = "5m"
cron = ""
# The zone of the cron expression. Empty: rollup.time_zone.
time_zone = ""
# Within how much time environments are spread that would otherwise begin at the same second.
jitter = "0s"
# Environments whose cycles run at the same time, and how long a stop waits for their current pages.
at_once = 4
stop_within = "8s"
# A dead-man switch in the manner of healthchecks.io: told of the begin (/start), the end and the failure (/fail) of
# each cycle, it raises the alarm when it hears nothing. {{environment}} stands for the environment's name.
ping = ""
# Where the service answers health checks.
listen = "127.0.0.1:8365"
# Several machines share all environments by a job queue in this PostgreSQL database (postgresql+psycopg://…); mirrors
# and journals must be in PostgreSQL too. Empty: one instance runs all, others of the same databases stand by.
queue = ""

[health]
# Host names, besides those of this machine, by which health checks and metrics may be asked for.
hosts = []
# A secret (env:NAME, file:PATH, …) without which metrics and details are not told. Beyond this machine one is needed.
token = ""

[logging]
# How `d365sync run` logs: debug, info, warning or error; auto (for people on a terminal, JSON lines otherwise), human
# or json; and a file instead of stderr, which begins anew at size_mb and keeps so many older ones.
level = "info"
format = "auto"
file = ""
size_mb = 10
backups = 5

[telemetry]
# Where spans of cycles and their steps are sent (OTLP over HTTP, such as http://localhost:4318/v1/traces; needs
# d365sync[otel]). Empty: nowhere. Headers are secrets by reference: {{ Authorization = "file:otlp-header" }}
endpoint = ""
service_name = "d365sync"
headers = {{}}

# Several organizations in one file: each table below [environments.NAME] goes over the one above, key by key.
# Databases are then NAME/mirror.db and NAME/journal.db unless [storage] says otherwise. Commands take
# --environment NAME.
# [environments.east.dataverse]
# url = "https://east.crm4.dynamics.com"
"""


def render(values: Mapping[str, str]) -> str:
    """Return the configuration text with these values over the defaults; empty values keep the default.

    Raises:
        KeyError: a value for something the template does not have.
    """
    unknown = set(values) - set(DEFAULTS)
    if unknown:
        raise KeyError(", ".join(sorted(unknown)))
    merged = {**DEFAULTS, **{name: value for name, value in values.items() if value}}
    return TEMPLATE.format(**{name: json.dumps(value, ensure_ascii=False) for name, value in merged.items()})


if __name__ == "__main__":
    print(render({}), end="")  # noqa: T201 - `make docs` keeps the sample file
