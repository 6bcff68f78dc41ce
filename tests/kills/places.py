"""Where a line keeps its databases: files copied for each world, or PostgreSQL databases made from a template."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from sqlalchemy import create_engine, text


class Place(Protocol):
    """A mirror and a journal."""

    def storage(self, folder: Path) -> dict[str, object]:
        """Return the ``[storage]`` section of a line whose folder this is."""
        ...

    def copied(self, origin: Path, copy: Path) -> Iterator[None]:
        """Have, while the block lasts, a copy of what the line of ``origin`` keeps for the line of ``copy``."""
        ...


class Files:
    """SQLite, beside the configuration."""

    def storage(self, _folder: Path) -> dict[str, object]:
        """Return the default."""
        return {}

    @contextmanager
    def copied(self, origin: Path, copy: Path) -> Iterator[None]:
        """Copy the files."""
        for file in origin.glob("*.db*"):
            shutil.copy(file, copy)
        yield


@dataclass(frozen=True, slots=True)
class Server:
    """PostgreSQL at an address whose user may make databases."""

    url: str

    def storage(self, folder: Path) -> dict[str, object]:
        """Return two databases named after the folder, which are made if they are not there."""
        return {"mirror": self._url(self._name(folder, "mirror")), "journal": self._url(self._name(folder, "journal"))}

    def prepare(self, folder: Path) -> None:
        """Make empty databases."""
        self._run(*(f'CREATE DATABASE "{self._name(folder, one)}"' for one in ("mirror", "journal")))

    @contextmanager
    def copied(self, origin: Path, copy: Path) -> Iterator[None]:
        """Make the databases from those of ``origin``, and drop them at the end."""
        names = [(self._name(copy, one), self._name(origin, one)) for one in ("mirror", "journal")]
        self._run(*(f'CREATE DATABASE "{new}" TEMPLATE "{old}"' for new, old in names))
        try:
            yield
        finally:
            self._run(*(f'DROP DATABASE "{new}" WITH (FORCE)' for new, _ in names))

    def _name(self, folder: Path, kind: str) -> str:
        mark = folder / "database"
        if not mark.exists():
            mark.write_text(uuid4().hex)
        return f"kills_{kind}_{mark.read_text()}"

    def _url(self, name: str) -> str:
        head, _, tail = self.url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}" + (f"?{tail}" if tail else "")

    def _run(self, *statements: str) -> None:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()
