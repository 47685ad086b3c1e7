"""A page taken apart by Python's own parser, for tests of what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Element:
    """A tag as written, and the text directly in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Markup(HTMLParser):
    """Every element of a page in order, and its whole text."""

    elements: list[Element] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: Element | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self._open = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(self._open)

    def handle_endtag(self, tag: str) -> None:
        """What follows is not in it."""
        self._open = None

    def handle_data(self, data: str) -> None:
        """Keep it, with the tag that has just begun."""
        if self._open is not None:
            self._open.text += data
        if self._open is None or self._open.tag not in ("script", "style"):
            self.words.append(data)

    @classmethod
    def of(cls, page: str) -> Markup:
        """A page taken apart."""
        found = cls()
        found.feed(page)
        found.close()
        return found

    def all(self, tag: str) -> list[Element]:
        """The elements of a kind."""
        return [element for element in self.elements if element.tag == tag]

    @property
    def text(self) -> str:
        """All words, spaces evened out."""
        return " ".join("".join(self.words).split())
