"""Texts of query options cut at a separator, but not inside brackets or quotes.

Pure.
"""

from __future__ import annotations

from d365sync.emulator.refuse import bad_uri


def split_outside(text: str, separator: str) -> list[str]:
    """Return the parts of a text between separators, without blanks around them; empty parts are left out.

    Raises:
        Refusal: a bracket or a quote is not closed.
    """
    parts: list[str] = []
    depth, quoted, began = 0, False, 0
    for at, char in enumerate(text):
        if char == "'":
            quoted = not quoted
        elif not quoted:
            depth += (char == "(") - (char == ")")
            if depth < 0:
                break
            if char == separator and depth == 0:
                parts.append(text[began:at])
                began = at + 1
    if depth != 0 or quoted:
        raise bad_uri(f"Syntax error: a bracket or a quote is not closed in '{text[:200]}'.")
    parts.append(text[began:])
    return [part.strip() for part in parts if part.strip()]


def name_and_inside(text: str) -> tuple[str, str | None]:
    """Return what stands before a pair of brackets at the end of a text, and what stands in them; None without any."""
    name, mark, rest = text.partition("(")
    if not mark:
        return text.strip(), None
    if not rest.endswith(")"):
        raise bad_uri(f"Syntax error at '{text[:200]}'.")
    return name.strip(), rest[:-1]
