"""Turns untrusted XML text into a small tree of elements, in bounded time and memory.

Rollup queries are written by people outside this program. Document types and entities are refused outright
(Assumed: the platform accepts none either), and depth and counts are checked while the document streams in, so a bomb
is refused before it is built.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from d365sync.core.fetchxml.refusal import shorten
from d365sync.errors import FetchXmlError

_NAME = 40
MALFORMED = "0x80040303"
"""Source: Web service error codes, InvalidXml family."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a document may be.

    ``conditions`` counts conditions and links together. Source: error codes 0x8004430C (500 conditions and
    links) and 0x8004430D (15 links). Assumed: the other three, which only guard memory.
    """

    characters: int = 2_000_000
    depth: int = 64
    elements: int = 20_000
    conditions: int = 500
    links: int = 15


DEFAULT_LIMITS = Limits()


@dataclass(slots=True)
class Element:
    """One element; ``text`` is its character data up to the first child."""

    tag: str
    attributes: Mapping[str, str]
    path: str
    children: list[Element] = field(default_factory=list)
    text: str = ""

    @property
    def snippet(self) -> str:
        """The element's start tag, shortened, for messages."""
        shown = islice(self.attributes.items(), 20)
        return shorten("<" + " ".join([self.tag, *(f'{k}="{shorten(v)}"' for k, v in shown)]) + ">")

    def refuse(self, message: str, code: str = "") -> FetchXmlError:
        """Build the error that names this element."""
        return FetchXmlError(shorten(message), path=self.path, snippet=self.snippet, code=code)


class _Builder:
    """Receives parse events; keeps the open elements on a list, so depth costs no recursion."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: list[Element] = []
        self._seen: list[Counter[str]] = []
        self._text: list[str] = []
        self._elements = 0
        self._counted: Counter[str] = Counter()
        self.root: Element | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, self._path_of(tag))
        self._count(element)
        self._flush()
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        self._seen.append(Counter())

    def end(self, _tag: str) -> None:
        self._flush()
        self._open.pop()
        self._seen.pop()

    def data(self, text: str) -> None:
        self._text.append(text)

    def close(self) -> Element | None:
        return self.root

    def _flush(self) -> None:
        """Give the open element its text, which arrives in pieces."""
        text = "".join(self._text)
        self._text.clear()
        if not text:
            return
        element = self._open[-1]
        if element.children and text.strip():
            raise element.refuse("text is not allowed here")
        if not element.children:
            element.text += text

    def _path_of(self, tag: str) -> str:
        name = shorten(tag, _NAME)
        if not self._open:
            return f"/{name}"
        self._seen[-1][tag] += 1
        index = "" if tag == "entity" else f"[{self._seen[-1][tag]}]"
        return f"{self._open[-1].path}/{name}{index}"

    def _count(self, element: Element) -> None:
        self._elements += 1
        self._counted[element.tag] += 1
        links = self._counted["link-entity"]
        if len(self._open) >= self._limits.depth:
            raise element.refuse(f"elements are nested deeper than {self._limits.depth}")
        if self._elements > self._limits.elements:
            raise element.refuse(f"there are more than {self._limits.elements} elements")
        if links > self._limits.links:
            raise element.refuse(f"there are more than {self._limits.links} link-entity elements", "0x8004430D")
        if links + self._counted["condition"] > self._limits.conditions:
            raise element.refuse(
                f"there are more than {self._limits.conditions} conditions and link-entity elements", "0x8004430C"
            )


def read_xml(text: str, limits: Limits) -> Element:
    """Read a document into elements.

    Raises:
        FetchXmlError: the text is not well-formed XML, declares a document type or entities, or is larger
            than ``limits`` allow.
    """
    if len(text) > limits.characters:
        raise FetchXmlError(
            f"the query has {len(text)} characters, more than {limits.characters}", path="/", snippet=shorten(text)
        )
    builder = _Builder(limits)
    parser = DefusedXMLParser(target=builder, forbid_dtd=True)
    try:
        parser.feed(text)
        parser.close()
    except DefusedXmlException as error:
        raise _malformed("a document type or an entity is not allowed", text) from error
    except (ParseError, UnicodeError) as error:
        raise _malformed(f"the query is not well-formed XML: {error}", text) from error
    if builder.root is None:
        raise _malformed("the query is empty", text)
    return builder.root


def _malformed(message: str, text: str) -> FetchXmlError:
    return FetchXmlError(message, path="/", snippet=shorten(text), code=MALFORMED)
