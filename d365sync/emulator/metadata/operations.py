"""How the functions and actions that are answered look from outside, for ``$metadata``.

Which there are is said where they are answered; an operation without a signature here has no ``$metadata``. Source:
Web API function and action references; Use Web API functions; Use Web API actions; for CreateEntities the requests of
the official Python client. ``Assumed:``

- rows of tables that are not here (``opportunityclose``, ``activityparty``) are of the type of every row
- what CreateEntities takes is an open type, and it answers nothing

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from d365sync.emulator.actions import ACTIONS, BOUND_ACTIONS
from d365sync.emulator.bulk import BULK
from d365sync.emulator.functions import BOUND_FUNCTIONS, FUNCTIONS

ROW = "mscrm.crmbaseentity"
_CLOSING = {"OpportunityClose": ROW, "Status": "Edm.Int32"}
_MEMBERS = {"Members": "Collection(mscrm.systemuser)"}
_ROWS = {"Targets": f"Collection({ROW})"}


@dataclass(frozen=True, slots=True)
class Signature:
    """The types of parameters and of the answer's properties, by name; no properties: the answer is empty."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; ``parameter`` is the name and type of what it is bound to, None when it is not."""

    kind: str
    name: str
    signature: Signature
    parameter: tuple[str, str] | None = None


SIGNATURES: Mapping[str, Signature] = {
    "WhoAmI": Signature({}, {"BusinessUnitId": "Edm.Guid", "UserId": "Edm.Guid", "OrganizationId": "Edm.Guid"}),
    "RetrieveVersion": Signature({}, {"Version": "Edm.String"}),
    "RetrieveCurrentOrganization": Signature(
        {"AccessType": "mscrm.EndpointAccessType"}, {"Detail": "mscrm.OrganizationDetail"}
    ),
    "RetrieveTotalRecordCount": Signature(
        {"EntityNames": "Collection(Edm.String)"}, {"EntityRecordCountCollection": "mscrm.EntityRecordCountCollection"}
    ),
    "RetrieveUserPrivileges": Signature({}, {"RolePrivileges": "Collection(mscrm.RolePrivilege)"}),
    "WinOpportunity": Signature(_CLOSING),
    "LoseOpportunity": Signature(_CLOSING),
    "BulkDelete": Signature(
        {
            "QuerySet": "Collection(mscrm.QueryExpression)",
            "JobName": "Edm.String",
            "SendEmailNotification": "Edm.Boolean",
            "ToRecipients": f"Collection({ROW})",
            "CCRecipients": f"Collection({ROW})",
            "RecurrencePattern": "Edm.String",
            "StartDateTime": "Edm.DateTimeOffset",
            "SourceImportId": "Edm.Guid",
            "RunNow": "Edm.Boolean",
        },
        {"JobId": "Edm.Guid"},
        optional=("SourceImportId", "RunNow"),
    ),
    "CreateEntities": Signature({"Entities": "Collection(mscrm.ComplexEntityMetadata)"}),
    "Recalculate": Signature(),
    "AddMembersTeam": Signature(_MEMBERS),
    "RemoveMembersTeam": Signature(_MEMBERS),
    "CreateMultiple": Signature(_ROWS, {"Ids": "Collection(Edm.Guid)"}),
    "UpdateMultiple": Signature(_ROWS),
    "UpsertMultiple": Signature(_ROWS),
}
COMPLEX: Mapping[str, Mapping[str, str]] = {
    "ComplexEntityMetadata": {},
    "EndpointCollection": {
        "Count": "Edm.Int32",
        "IsReadOnly": "Edm.Boolean",
        "Keys": "Collection(mscrm.EndpointType)",
        "Values": "Collection(Edm.String)",
    },
    "EntityRecordCountCollection": {
        "Count": "Edm.Int32",
        "IsReadOnly": "Edm.Boolean",
        "Keys": "Collection(Edm.String)",
        "Values": "Collection(Edm.Int64)",
    },
    "OrganizationDetail": {
        "OrganizationId": "Edm.Guid",
        "FriendlyName": "Edm.String",
        "OrganizationVersion": "Edm.String",
        "UrlName": "Edm.String",
        "UniqueName": "Edm.String",
        "Endpoints": "mscrm.EndpointCollection",
        "State": "mscrm.OrganizationState",
    },
    "QueryExpression": {},
    "RolePrivilege": {"Depth": "mscrm.PrivilegeDepth", "PrivilegeName": "Edm.String"},
}
"""Types of parameters and answers, with the properties that are answered; those without any are open."""
ENUMS: Mapping[str, tuple[str, ...]] = {
    "EndpointAccessType": ("Default", "Internet", "Intranet"),
    "EndpointType": ("OrganizationService", "OrganizationDataService", "WebApplication"),
    "OrganizationState": ("Enabled", "Disabled"),
    "PrivilegeDepth": ("Basic", "Local", "Deep", "Global"),
}
"""Their values count from 0."""


def served_operations(tables: Iterable[str]) -> list[Operation]:
    """Return every operation that is answered, unbound ones first; ``tables`` are those there are."""
    known = set(tables)
    bound = [("Function", *one) for one in BOUND_FUNCTIONS] + [("Action", *one) for one in BOUND_ACTIONS]
    return [
        *(Operation("Function", name, SIGNATURES[name]) for name in FUNCTIONS),
        *(Operation("Action", name, SIGNATURES[name]) for name in ACTIONS),
        *(
            Operation(kind, name, SIGNATURES[name], ("entity", f"mscrm.{table}"))
            for kind, table, name in bound
            if table in known
        ),
        *(Operation("Action", name, SIGNATURES[name], ("entityset", f"Collection({ROW})")) for name in BULK),
    ]
