"""Table definitions as they are read: any part of them may be damaged, and is then refused as any other answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from d365sync.core.schema import ColumnType, DateBehavior
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.metadata import read_labels, read_table
from d365sync.errors import ProtocolError
from tests.scripted import answer, transport

DEAL = {
    "LogicalName": "deal",
    "EntitySetName": "deals",
    "PrimaryIdAttribute": "dealid",
    "PrimaryNameAttribute": "name",
    "ChangeTrackingEnabled": True,
    "IsOptimisticConcurrencyEnabled": True,
    "ObjectTypeCode": 10001,
    "ManyToOneRelationships": [
        {"ReferencedEntity": "deal", "ReferencingAttribute": "parentid", "IsHierarchical": True}
    ],
}
COLUMNS = [
    {"LogicalName": "dealid", "AttributeType": "Uniqueidentifier", "IsPrimaryId": True},
    {"LogicalName": "closedon", "AttributeType": "DateTime"},
    {"LogicalName": "amount", "AttributeType": "Money"},
    {"LogicalName": "parentid", "AttributeType": "Lookup"},
    {"LogicalName": "state", "AttributeType": "Picklist"},
    {
        "LogicalName": "tags",
        "AttributeType": "Virtual",
        "AttributeTypeName": {"Value": "MultiSelectPicklistType"},
    },
]
OPTION = {"Value": 1, "Label": {"UserLocalizedLabel": {"Label": "Won"}}}
ANSWERS: dict[str, Any] = {
    "deal": DEAL,
    "Attributes": {"value": COLUMNS},
    "DateTimeAttributeMetadata": {"value": [{"LogicalName": "closedon", "DateTimeBehavior": {"Value": "DateOnly"}}]},
    "DecimalAttributeMetadata": {"value": []},
    "MoneyAttributeMetadata": {"value": [{"LogicalName": "amount", "Precision": 4, "IsBaseCurrency": False}]},
    "LookupAttributeMetadata": {"value": [{"LogicalName": "parentid", "Targets": ["deal"]}]},
    "PicklistAttributeMetadata": {"value": [{"LogicalName": "state", "OptionSet": {"Options": [OPTION]}}]},
}
JUNK: tuple[Any, ...] = (7, "x", True, None, [], [7], {}, {"x": 7})


class Definitions:
    """Answers every read of definitions by itself: batches are refused."""

    def __init__(self) -> None:
        self.answers = ANSWERS
        self.batches: list[int] = []
        self.client = DataverseClient(transport(self._reply)[0])

    def _reply(self, request: requests.PreparedRequest) -> requests.Response:
        path = str(request.path_url).partition("?")[0]
        if path.endswith("$batch"):
            self.batches.append(bytes(request.body or b"").count(b"GET "))
            return answer(400, b"{}")
        last = path.rpartition("/")[2].rpartition(".")[2]
        name = "deal" if last.startswith("EntityDefinitions") else last
        return answer(body=json.dumps(self.answers[name]).encode())


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where every value of a document stands."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in inner:
        yield from places(value, (*path, name))


def test_a_definition_is_read_from_its_parts() -> None:
    served = Definitions()
    table = read_table(served.client, "deal")
    assert table is not None
    assert (table.hierarchy_parent, table.object_type_code, len(table.columns)) == ("parentid", 10001, 6)
    assert table.column("closedon").date_behavior is DateBehavior.DATE_ONLY
    assert (table.column("amount").precision, table.column("parentid").targets) == (4, ("deal",))
    assert read_labels(served.client, [(table, [ColumnType.PICKLIST])])[0].column("state").labels == ((1, "Won"),)


def test_the_labels_of_many_tables_are_asked_for_together() -> None:
    served = Definitions()
    table = read_table(served.client, "deal")
    assert table is not None
    served.batches.clear()
    found = read_labels(served.client, [(table, [ColumnType.PICKLIST]), (table, [ColumnType.PICKLIST])])
    assert (served.batches, {one.column("state").labels for one in found}) == ([2], {((1, "Won"),)})


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_no_definition_is_refused_and_never_crashes(name: str) -> None:
    served = Definitions()
    table = read_table(served.client, "deal")
    assert table is not None
    for path in places(ANSWERS[name]):
        for junk in JUNK:
            served.answers = copy.deepcopy(ANSWERS)
            place: Any = served.answers
            for step in (name, *path)[:-1]:
                place = place[step]
            place[(name, *path)[-1]] = junk
            try:
                found = read_table(served.client, "deal")
                read_labels(served.client, [(table, [ColumnType.PICKLIST])])
            except ProtocolError:
                continue
            for column in found.columns.values() if found else ():
                assert column.precision is None or type(column.precision) is int
                assert all(isinstance(one, str) for one in column.targets)
