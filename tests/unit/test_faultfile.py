"""What a faults file may say, and what is refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Request, Response

from d365sync.emulator.faultfile import KINDS, Fault, read_faults
from d365sync.emulator.faults import FaultyApp
from d365sync.emulator.spoiling import bomb
from d365sync.errors import UsageError

GOOD = {
    "status": "503",
    "body": '"<html>"',
    "content_type": '"text/html"',
    "headers": '{Date = ""}',
    "delay_s": "0.1",
    "cut_after_bytes": "10",
    "shorten_to_bytes": "10",
    "close": '"before"',
    "next_link": '"https://evil.example"',
    "delta_link": '"https://evil.example"',
    "replace": '[["a", "b"], ["c", "d"]]',
    "inflate_to_bytes": "1_000_000",
    "meanwhile": '"DELETE goals(x)"',
}


def written(folder: Path, text: str) -> tuple[Fault, ...]:
    path = folder / "faults.toml"
    path.write_text(text, encoding="utf-8")
    return read_faults(path)


def one(folder: Path, text: str) -> Fault:
    (fault,) = written(folder, f'[[fault]]\nmatch = "GET goals"\n{text}\n')
    return fault


def request(method: str, path: str, body: bytes = b"") -> Request:
    return Request(EnvironBuilder(method=method, path=path, data=body).get_environ())


@pytest.mark.parametrize("effect", KINDS)
def test_everything_that_may_happen_can_be_written(effect: str, tmp_path: Path) -> None:
    fault = one(tmp_path, f"{effect} = {GOOD.get(effect, 'true')}")
    assert getattr(fault, effect) != getattr(Fault("x"), effect)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "exactly one of"),
        ("status = 503\nclose = true", "exactly one of"),
        ("headers = {}\ndelay_s = 1", "exactly one of"),
        ('status = "503"', "status must be a whole number"),
        ("status = true", "status must be a whole number"),
        ("delay_s = -1", "must not be negative"),
        ("status = 503\nnth = [1, -2]", "nth must not be negative"),
        ("status = 503\nnth = [1, 2.5]", "nth must be a whole number"),
        ('close = "later"', 'close must be true, "before" or "after"'),
        ('replace = ["a"]', "replace must be"),
        ('replace = [["a", "b"], "c"]', "replace must be"),
        ("headers = {Date = 5}", "headers must be texts"),
        ("close = true\ncode = 'x'", "code stands beside status only"),
        ("close = true\nretry_after = 5", "retry_after stands beside status only"),
        ("close = true\njson = {}", "json stands beside meanwhile only"),
        ("status = 503\nwhen = 3", "unknown key when"),
        ("duplicate_page = 1", "duplicate_page must be true or false"),
    ],
)
def test_what_means_nothing_is_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fault 1") as caught:
        one(tmp_path, text)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["fault = 5", "[[other]]", "[fault]\nmatch = 'x'", "not toml", "seeds = 3"])
def test_what_is_no_list_of_faults_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        written(tmp_path, text)


@pytest.mark.parametrize(
    ("choice", "struck"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("nth = 2", [2]),
        ("nth = [1, 4]", [1, 4]),
        ("every = 3", [3, 6]),
        ("from = 5", [5, 6]),
        ("from = 4\nevery = 2", [4, 6]),
        ("chance = 0", []),
    ],
)
def test_which_of_the_requests_are_struck(choice: str, struck: list[int], tmp_path: Path) -> None:
    fault = one(tmp_path, f"status = 503\n{choice}")
    assert [count for count in range(1, 7) if fault.strikes(count)] == struck


def test_chance_is_drawn_by_the_seed_alone(tmp_path: Path) -> None:
    text = '[[fault]]\nmatch = "*"\nchance = 0.3\nstatus = 503\n' * 2
    drawn = [
        [[f.strikes(n) for n in range(300)] for f in written(tmp_path, f"seed = {seed}\n{text}")] for seed in "112"
    ]
    assert drawn[0] == drawn[1]
    first, second = drawn[0]
    assert first != second
    assert first != drawn[2][0]
    assert 60 < sum(first) < 120


def test_a_fault_may_ask_for_a_text_in_the_body() -> None:
    fault = Fault("POST $batch", holding="PATCH ")
    path = "/api/data/v9.2/$batch"
    assert fault.concerns(request("POST", path, b"--x\r\nPATCH goals(1)"))
    assert not fault.concerns(request("POST", path, b"--x\r\nGET goals(1)"))
    assert not fault.concerns(request("GET", path, b"PATCH "))


@pytest.mark.parametrize("size", [1 << 20, 5 << 20])
def test_a_bomb_is_gzip_like_any_other(size: int) -> None:
    packed = bomb(size)
    assert len(packed) < 8000
    assert gzip.decompress(packed) == b" " * size


def test_a_fault_strikes_when_it_changes_something(tmp_path: Path) -> None:
    faults = written(
        tmp_path,
        """
        [[fault]]
        match = "GET /page"
        nth = [1, 2]
        replace = ["old", "new"]

        [[fault]]
        match = "GET /page"
        nth = 3
        cut_after_bytes = 900

        [[fault]]
        match = "GET /page"
        from = 4
        status = 503

        [[fault]]
        match = "GET /nowhere"
        status = 503
        """,
    )
    bodies = iter([b"old", b"other", b"short"])
    faulty = FaultyApp(lambda environ, start: Response(next(bodies))(environ, start), faults)
    client = Client(faulty)
    assert faulty.struck == (0, 0, 0, 0)
    assert [client.get("/page").get_data() for _ in range(2)] == [b"new", b"other"]
    with pytest.raises(ConnectionResetError):
        client.get("/page").get_data()
    assert [client.get("/page").status_code for _ in range(2)] == [503, 503]
    assert faulty.struck == (1, 0, 2, 0)
