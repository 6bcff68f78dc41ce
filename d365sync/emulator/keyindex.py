"""Row ids by the values of an alternate key's columns, kept while rows come, change and go.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from d365sync.core.values import Row, Value

Values = tuple[Value, ...]


def folded(row: Row, columns: Sequence[str]) -> Values | None:
    """Return a row's values of the columns as they are compared, text without case; None when one is empty."""
    values = [row.get(name) for name in columns]
    if None in values:
        return None
    return tuple(value.casefold() if isinstance(value, str) else value for value in values)


class KeyIndex:
    """The rows of one table by some of its columns; rows in which one of them is empty are not in it."""

    def __init__(self, columns: Sequence[str], rows: Mapping[str, Row]) -> None:
        self._columns = tuple(columns)
        self._ids: dict[Values, str] = {}
        for row_id, row in rows.items():
            self.move(row_id, None, row)

    def move(self, row_id: str, old: Row | None, new: Row | None) -> None:
        """Follow a row that was made, changed or removed."""
        before = None if old is None else folded(old, self._columns)
        after = None if new is None else folded(new, self._columns)
        if before is not None and before != after and self._ids.get(before) == row_id:
            del self._ids[before]
        if after is not None:
            self._ids[after] = row_id

    def find(self, row: Row) -> str | None:
        """Return the id of the row that has the same values, None when none has."""
        values = folded(row, self._columns)
        return None if values is None else self._ids.get(values)
