"""A file of the fault list, served by the command, and what an administrator sees of it."""

from __future__ import annotations

from pathlib import Path

from tests.scenarios.conftest import initialise, served

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_damaged_values_are_named_by_sync(tmp_path: Path) -> None:
    faults = FIXTURES / "faults" / "26-poison-records.toml"
    with served(FIXTURES / "orgs" / "faults", "--page-size", "10", "--faults", str(faults)) as remote:
        admin = initialise(tmp_path / "admin", remote)
        done = admin.run("sync")
        assert done.code == 3
        assert "left out: opportunity.actualvalue: 'NaN' is not a money value (row 1af37286-" in done.out
        assert "'Ann' cannot be computed: 'actualvalue' of the record 1af37286-" in done.out
        again = admin.run("sync", "--full", "--json")
        assert (again.code, again.document["counts"]["damaged_values"]) == (3, 3)
        told = [reason for table in again.document["tables"] for reason in table["damaged"]]
        assert len(told) == 3
        assert any("half a pair" in reason for reason in told)
