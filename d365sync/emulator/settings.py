"""What Microsoft's documents leave open, each as one setting with the default the emulator takes.

Every field is an assumption or a situation to rehearse; nothing here is a platform fact.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo


class ClosedGoals(StrEnum):
    """What a native rollup does with a closed or discarded goal inside the tree."""

    STORED = "stored"
    """The goal keeps its columns and its stored value flows into its parent."""
    RECOMPUTE = "recompute"
    """The goal is rolled up like an open one."""
    SKIP = "skip"
    """The goal keeps its columns and contributes nothing."""


class AskingUser(StrEnum):
    """Whom a rollup query means by the calling user."""

    MANAGER = "manager"
    """The owner of the goal's row."""
    OWNER = "owner"
    """The goal owner."""
    NOBODY = "nobody"
    """Such a query cannot be used."""


class HierarchyModel(StrEnum):
    """Which way the reports of a user are found."""

    MANAGER = "manager"
    POSITION = "position"


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """The service protection limits of each user; None for one of the first three switches it off.

    ``requests``, ``execution_ms`` and ``concurrent`` within ``window_s`` are documented. Source: Service protection
    API limits. ``Assumed:`` the others:

    - ``by_passing_time``: the window moves with passing time though the clock is frozen (clients really wait)
    - ``request_ms``: execution time of a request, of each operation in a batch; None measures it
    - ``refused_count``: refused requests count too, so pushing on lengthens the waiting
    - ``concurrent_retry_after_s``: ``Retry-After`` when too many requests run at once
    - ``by_impersonated_user``: an impersonating request counts for the impersonated user (else for who signed in)
    """

    requests: int | None = 6000
    execution_ms: int | None = 1_200_000
    concurrent: int | None = 52
    window_s: int = 300
    by_passing_time: bool = False
    request_ms: int | None = None
    refused_count: bool = True
    concurrent_retry_after_s: int = 1
    by_impersonated_user: bool = False


UNLIMITED = ServiceLimits(None, None, None)


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """The open points of the protocol and of goal rollups.

    Situations to rehearse:

    - ``missing_privileges``: privileges the application user lacks (``prvWriteGoal``), compared without case
    - ``reads_secured``: secured columns show their values; False: they are null in every answer and query
    - ``application_user``: False makes every call fail because the client has no user in the organization
    - ``certificates``: PEM certificates a client assertion may be signed with
    - ``secret_expired``: the client secret has expired
    - ``managed_identity``: the machine has an identity, also as the user-assigned one with the client id
    - ``device_answers``: errors that polls of a device code get, in order, before the token
    - ``device_interval_s``: seconds to wait between polls
    - ``person``: Entra object id of the user who signs in with a device code; empty: the application user
    - ``token_lifetime_s``: seconds until a token expires; MSAL treats one with under 300 seconds left as expired
    - ``change_tracking``: tables whose tracking differs from the shipped schema, by logical name
    - ``limits``: the service protection limits, see :class:`ServiceLimits`
    - ``dop_hint``: what ``x-ms-dop-hint`` advises; empty: no such header
    - ``utilization_percent``: what ``x-ms-utilization-percent`` says; empty: no such header
    - ``doubled_request_ids``: two request ids with a comma between, of REQ_ID the same twice (seen on a real service)
    - ``bulk_messages``: tables whose CreateMultiple, UpdateMultiple and UpsertMultiple differ from it, likewise

    ``Assumed:`` all of the following:

    - ``tracking_status``: HTTP status when tracking is off or a delta token has expired
    - ``batch_limit``: most operations in one batch (documented; lower it to rehearse)
    - ``batch_bare_lf``: lines of a batch may end in LF alone
    - ``batch_transfer_encoding``: every operation of a batch needs ``Content-Transfer-Encoding: binary``
    - ``batch_content_id``: every operation of a change set needs a Content-ID
    - ``batch_after_failed_set``: with continue-on-error, what follows a failed change set is carried out
    - ``duplicate_key_status``: HTTP status of a write whose alternate key another row has
    - ``undefined_key_status``: HTTP status of an address by columns that are no alternate key
    - ``relative_references``: ``@odata.id`` of a ``$ref`` request may be relative without ``@odata.context``
    - ``upsert_key_in_body_fails``: UpsertMultiple refuses to make a row whose alternate key is in its columns too
    - ``max_page_size``: page size when none is asked for, and the cap on what may be asked
    - ``top_ignored_when_paging``: ``$top`` beside odata.maxpagesize is ignored (else it limits the pages' total)
    - ``delta_covers_from_first_page``: a delta token covers what changed after the first page was read
    - ``expire_change_tracking_days``: used when the organization row has no expirechangetrackingindays
    - ``native_rollup``: the native rollup of goals runs on its schedule; None: only if the clock is not frozen
    - ``job_delay_s``: seconds a system job waits at least, beyond the time it is asked for
    - ``jobs_start_by_real_time``: a bulk deletion whose start has come by real time does not wait for the clock
    - ``rounding``: how ``_base`` amounts, percentages and written money are rounded (a :mod:`decimal` constant)
    - ``guard_percentage``: whether ``percentage`` is among the columns that need isoverride
    - ``keep_percentage``: the platform recomputes ``percentage`` when actual or target is written
    - ``depth_of_root``: ``goal.depth`` of a root
    - ``rollup_time_zone``: zone in which goal days begin and end in the native rollup
    - ``closed_goals``: see :class:`ClosedGoals`
    - ``overridden_feed_parents``: an overridden goal's stored value is what its parent adds
    - ``empty_is_zero``: an active category without rows is 0 (else null)
    - ``asking_user``: see :class:`AskingUser`
    - ``hierarchy_model``: see :class:`HierarchyModel`
    - ``rollup_query_limit``: most records taken from a rollup query; None is no limit
    - ``user_time_zone``: zone of a user whose settings have no time zone code, or one that is not known
    - ``user_language``: language of a user whose settings name none; None leaves it unknown
    - ``fiscal_year_end_code``: ``organization.fiscalyeardisplaycode`` that names fiscal years by their last day
    - ``fetch_readings``: how FetchXML is read where documents leave it open: fields of
      :class:`~d365sync.core.fetchxml.context.Context` by name, where they differ from its defaults
    """

    missing_privileges: frozenset[str] = frozenset()
    application_user: bool = True
    reads_secured: bool = True
    certificates: tuple[bytes, ...] = ()
    secret_expired: bool = False
    managed_identity: bool = True
    device_answers: tuple[str, ...] = ("authorization_pending",)
    device_interval_s: int = 5
    person: str = ""
    token_lifetime_s: int = 3599
    change_tracking: Mapping[str, bool] = field(default_factory=dict)
    limits: ServiceLimits = ServiceLimits()
    dop_hint: str = "4"
    utilization_percent: str = ""
    doubled_request_ids: bool = False
    bulk_messages: Mapping[str, bool] = field(default_factory=dict)

    tracking_status: int = 400
    batch_limit: int = 1000
    batch_bare_lf: bool = False
    batch_transfer_encoding: bool = True
    batch_content_id: bool = True
    batch_after_failed_set: bool = True
    duplicate_key_status: int = 412
    undefined_key_status: int = 400
    relative_references: bool = False
    upsert_key_in_body_fails: bool = True
    max_page_size: int = 5000
    top_ignored_when_paging: bool = True
    delta_covers_from_first_page: bool = True
    expire_change_tracking_days: int = 7
    native_rollup: bool | None = None
    job_delay_s: int = 0
    jobs_start_by_real_time: bool = False
    rounding: str = ROUND_HALF_UP
    guard_percentage: bool = False
    keep_percentage: bool = True
    depth_of_root: int = 0
    rollup_time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    closed_goals: ClosedGoals = ClosedGoals.STORED
    overridden_feed_parents: bool = True
    empty_is_zero: bool = True
    asking_user: AskingUser = AskingUser.MANAGER
    hierarchy_model: HierarchyModel = HierarchyModel.MANAGER
    rollup_query_limit: int | None = None
    user_time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    user_language: int | None = None
    fiscal_year_end_code: int = 2
    fetch_readings: Mapping[str, Any] = field(default_factory=dict)
