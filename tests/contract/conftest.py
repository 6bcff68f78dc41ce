"""The Dataverses the contract suite asks, one after the other, and rows of our own in them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.contract.remotes import NAME, Remote, in_process, missing, over_a_socket, verified


def _when_named() -> AbstractContextManager[Remote]:
    absent = missing()
    if absent:
        pytest.skip(absent)
    return verified()


@pytest.fixture(
    scope="module",
    params=[in_process, over_a_socket, pytest.param(_when_named, marks=pytest.mark.verified)],
    ids=["in-process", "socket", "real"],
)
def remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    opened: Callable[[], AbstractContextManager[Remote]] = request.param
    with opened() as found:
        yield found


@pytest.fixture
def account(remote: Remote) -> Iterator[str]:
    """An account of our own, removed afterwards; its address."""
    remote.need_sandbox()
    address = f"accounts({uuid.uuid4()})"
    made = remote.call("PATCH", address, json={"name": NAME, "revenue": 0.1}, headers={"If-None-Match": "*"})
    assert made.status_code == 204, made.text
    yield address
    remote.call("DELETE", address)


@pytest.fixture
def goal(remote: Remote) -> Iterator[str]:
    """A goal of our own for a month long past, removed afterwards; its address."""
    remote.need_sandbox()
    address = f"goals({uuid.uuid4()})"
    made = remote.call("PATCH", address, json=remote.new_goal(), headers={"If-None-Match": "*"})
    assert made.status_code == 204, made.text
    yield address
    remote.call("DELETE", address)
