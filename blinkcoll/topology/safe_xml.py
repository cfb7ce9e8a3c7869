"""XML for dumps from anywhere: expat with entities refused and size, depth and count bounded; every element knows its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from .source import Source

MOST_ELEMENTS = 200_000
MOST_DEPTH = 200


@dataclass
class Element:
    """One element: its tag, attributes, the line it starts on, its children and its text."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def get(self, name: str, default: str = "") -> str:
        """An attribute, or the default where it is absent."""
        return self.attributes.get(name, default)

    def all(self, tag: str) -> list[Element]:
        """The children of that tag."""
        return [child for child in self.children if child.tag == tag]

    def walk(self) -> Iterator[Element]:
        """This element and all below it, in document order."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack.extend(reversed(element.children))


class _RootClosed(Exception):
    """The root element is complete: what follows is no part of it."""


def parse_xml(source: Source) -> Element:
    """The root element; text around it (a shell's prompt, the fence of a code block) is skipped.

    Raises
    ------
    TopologyError
        Where there is no XML or it is malformed (with the line), declares an entity, nests deeper than 200 elements or
        has more than 200000 of them.
    """
    skipped, text = _from_first_element(source)
    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    stack: list[Element] = []
    roots: list[Element] = []
    count = 0

    def line() -> int:
        return skipped + parser.CurrentLineNumber

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MOST_ELEMENTS:
            raise source.error(f"has more than {MOST_ELEMENTS} XML elements, which no topology has", line())
        if len(stack) >= MOST_DEPTH:
            raise source.error(f"nests XML elements deeper than {MOST_DEPTH}", line())
        element = Element(tag, attributes, line())
        (stack[-1].children if stack else roots).append(element)
        stack.append(element)

    def end(_: str) -> None:
        stack.pop()
        if not stack:
            raise _RootClosed

    def data(text: str) -> None:
        if stack:
            stack[-1].text += text

    def refuse(*_: object) -> None:
        raise source.error("declares an XML entity, which no topology dump needs", line())

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except _RootClosed:
        return roots[0]
    except expat.ExpatError as error:
        raise source.error(f"not well-formed XML: {expat.ErrorString(error.code)}", skipped + error.lineno) from None
    raise source.error("has no XML element")


def _from_first_element(source: Source) -> tuple[int, str]:
    """The text from the first ``<`` that starts a line on, and how many lines come before it."""
    match = re.search(r"^[ \t]*(?=<[?!A-Za-z])", source.text, re.MULTILINE)
    if not match:
        raise source.error("has no XML element")
    return source.text.count("\n", 0, match.end()), source.text[match.end() :]
