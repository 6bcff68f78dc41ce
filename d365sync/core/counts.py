"""Counts in sentences for people: one record counts, two records count.

Pure.
"""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: ``1 record``, ``1,000 records``; ``plural`` where it is not the noun with an s."""
    return f"{count:,} {by_count(count, noun, plural or f'{noun}s')}"


def by_count(count: int, one: str, several: str) -> str:
    """Return the word that goes with a count: ``counts`` with one, ``count`` with none or several."""
    return one if count == 1 else several
