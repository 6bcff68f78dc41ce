"""Sparing the garbage collector a heap full of goals.

IO: the interpreter's collector.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the cycle collector from running.

    A hundred thousand goals are millions of small values that refer to each other in one direction only: reference
    counts free them, and the collector would walk them all again and again while they are made.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
