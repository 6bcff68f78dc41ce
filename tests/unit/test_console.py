"""How wide a table may be: as wide as the terminal, and in a pipe as wide as it is."""

from __future__ import annotations

import sys
from decimal import Decimal

import pytest

from d365sync.cli.output import console, print_plan
from d365sync.core.goals.writes import ColumnChange, GoalWrite, WritePlan

TITLE = "Revenue, every region and every desk " * 10


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    change = ColumnChange("actualmoney", None, Decimal(1), "never rolled up")
    print_plan(WritePlan((GoalWrite("1", TITLE, "", (change,), {}),), (), 0), console(), title="Plan")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", ["", "0", "-1", "wide"])
@pytest.mark.parametrize("forced", [False, True])
def test_in_a_pipe_no_cell_is_cut_or_wrapped(
    columns: str, forced: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
    (line,) = [line for line in shown(capsys) if "Revenue" in line]
    assert TITLE.strip() in line
    assert "never rolled up" in line


def test_in_a_pipe_too_a_wish_for_columns_is_granted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = shown(capsys)
    assert max(map(len, lines)) <= 60
    assert "never rolled up" in "\n".join(lines)


def test_a_terminal_says_itself_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert console().width == 77
