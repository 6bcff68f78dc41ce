"""The steps of a cycle, as whoever watches it from outside sees them: begun, ended, in each other.

Nothing is watched unless something was set to watch; then each step costs one call.

IO: whatever watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

Note: TypeAlias = Callable[[str, str | int | bool], None]
"""Adds a fact to a step."""
Watch: TypeAlias = Callable[[str], AbstractContextManager[Note]]
"""Watches a step by its name, from its begin to its end, however it ends."""


def _nothing(_key: str, _value: str | int | bool) -> None:
    """Note nothing."""


def _unwatched(_name: str) -> AbstractContextManager[Note]:
    return nullcontext(_nothing)


_watch: Watch = _unwatched


def step(name: str) -> AbstractContextManager[Note]:
    """Mark a step; what it yields notes facts about it."""
    return _watch(name)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Have the steps of this process watched meanwhile."""
    global _watch
    before, _watch = _watch, watch
    try:
        yield
    finally:
        _watch = before
