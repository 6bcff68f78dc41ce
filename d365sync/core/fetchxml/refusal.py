"""How the language refuses: one way to name the element at fault.

Pure.
"""

from __future__ import annotations

from typing import Protocol

from d365sync.core.fetchxml.ast import Condition
from d365sync.errors import FetchXmlError

_SNIPPET = 200
_MESSAGE = 600


class Located(Protocol):
    """An element of the tree that knows where it stood."""

    @property
    def path(self) -> str:
        """The element's path in its document, empty if the tree was not parsed."""


def refusal(message: str, node: Located, *, code: str = "") -> FetchXmlError:
    """Build the error for an element; ``code`` is the platform's error code where there is one."""
    return FetchXmlError(shorten(message, _MESSAGE), path=node.path, snippet=snippet_of(node), code=code)


def snippet_of(node: Located) -> str:
    """Return the element's start as text, for messages; empty where it would say no more than the path."""
    if not isinstance(node, Condition):
        return ""
    text = f'<condition attribute="{node.attribute}" operator="{node.operator}"'
    if node.entityname is not None:
        text += f' entityname="{node.entityname}"'
    return shorten(text + "…>")


def shorten(text: str, most: int = _SNIPPET) -> str:
    """Cut a text to a length that fits a message: names in documents may be as long as the document."""
    return text if len(text) <= most else text[: most - 1] + "…"
