"""Rows changed or read together: one batch, and for every row its own outcome.

An outcome is the row, or the error that a request of its own would have raised.

IO: HTTP, through the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from d365sync.core.schema import Table
from d365sync.core.values import Row, is_etag
from d365sync.dataverse.batch import Part, PartAnswer
from d365sync.dataverse.client import DataverseClient, name_lookups
from d365sync.dataverse.wire import RowReader, decode_object, encode_body, error_of, select_clause
from d365sync.errors import ProtocolError, RemoteError, RetryableError

Outcome: TypeAlias = Row | RemoteError
ACCEPT = {"Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class RowChange:
    """Columns to send to one row, if it still has the etag ``if_match``."""

    row_id: str
    body: Mapping[str, object]
    if_match: str


def change_rows(
    client: DataverseClient, table: Table, changes: Sequence[RowChange], columns: Iterable[str]
) -> tuple[Outcome, ...]:
    """Change rows in one batch, each only if it has its etag; return each as it is afterwards, or its error.

    A row's error with status None, or 5xx, means that its outcome is unknown.

    Raises:
        ValueError: a change without an etag; ``*`` is none: it would overwrite whatever is there.
        RemoteError, ProtocolError: the batch as a whole. The outcome of every row is then unknown if it is a
            ProtocolError, or a RetryableError other than 429.
    """
    if not all(is_etag(change.if_match) for change in changes):
        raise ValueError("a row is changed only if it has the etag it was read with")
    columns = tuple(columns)
    query = f"?$select={select_clause(table, columns)}"
    prefer = f"return=representation,{name_lookups()}"
    parts = [
        Part(
            "PATCH",
            f"{table.entity_set_name}({change.row_id}){query}",
            {**ACCEPT, "Prefer": prefer, "If-Match": change.if_match},
            encode_body(change.body),
        )
        for change in changes
    ]
    return _outcomes(client.batch(parts), parts, RowReader(table, columns))


def read_rows(client: DataverseClient, table: Table, ids: Sequence[str], columns: Iterable[str]) -> tuple[Outcome, ...]:
    """Read rows in one batch; return each, or its error (RejectedError with status 404: not there).

    Raises:
        RemoteError, ProtocolError: the batch as a whole.
    """
    columns = tuple(columns)
    query = f"?$select={select_clause(table, columns)}"
    headers = {**ACCEPT, "Prefer": name_lookups(), "If-None-Match": "null"}
    parts = [Part("GET", f"{table.entity_set_name}({row_id}){query}", headers) for row_id in ids]
    return _outcomes(client.batch(parts), parts, RowReader(table, columns))


def _outcomes(answers: Iterable[PartAnswer], parts: Iterable[Part], reader: RowReader) -> tuple[Outcome, ...]:
    return tuple(_outcome(answer, part, reader) for answer, part in zip(answers, parts, strict=True))


def _outcome(answer: PartAnswer, part: Part, reader: RowReader) -> Outcome:
    what = f"{part.method} {part.path.partition('?')[0]}"
    if answer.status >= 400:
        return error_of(answer.status, answer.headers, answer.body, what)
    try:
        return reader.read(decode_object(answer.body))
    except ProtocolError as error:
        return RetryableError(f"{what}: {error}")
