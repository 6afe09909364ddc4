"""HTML to text for a model to read, bounded against HTML that was made to hurt."""

# mypy: disable-error-code="import-untyped, misc"
from __future__ import annotations

import re
from html import unescape
from typing import Any

from inscriptis.css_profiles import STRICT_CSS_PROFILE
from inscriptis.html_engine import Inscriptis
from inscriptis.html_properties import Display
from inscriptis.model import canvas
from inscriptis.model.canvas.prefix import Prefix
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_element import HtmlElement
from inscriptis.model.tag import CustomHtmlTagHandlerMapping
from lxml.etree import LxmlError
from lxml.html import HTMLParser, document_fromstring

from tinyfat.domain.mail.charsets import is_blank
from tinyfat.domain.mail.html_hidden import drop_hidden, images_elsewhere

HTML_CHARS_MAX = 300_000  # what is laid out; more than is shown
_TAG = re.compile(r"<[^<>]*>")

# Tables in mail are mostly layout, and padding a cell to its column's width multiplies what one wide cell costs: each
# row is a line, its cells stand between bars.
_CELL_END = "\x01"
_CSS = STRICT_CSS_PROFILE | {
    "table": HtmlElement(display=Display.block),
    "tr": HtmlElement(display=Display.block),
    "td": HtmlElement(suffix=_CELL_END),
    "th": HtmlElement(suffix=_CELL_END),
    # Not indented: a thousand lists, one in the other, would put a thousand blanks before each of their lines.
    "ul": HtmlElement(display=Display.block),
    "ol": HtmlElement(display=Display.block),
}
_NO_TABLES: Any = CustomHtmlTagHandlerMapping(
    start_tag_mapping=dict.fromkeys(("table", "tr", "td", "th")),
    end_tag_mapping=dict.fromkeys(("table", "td", "th")),
)


class _Prefix(Prefix):
    """inscriptis looks through the bullets of all open elements for each line; where none is left that costs a list in
    another, a thousand deep, a thousand times as much. Nothing is looked for where nothing is."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        super().__init__()
        self.left = 0  # bullets that no line has had yet

    def register_prefix(self, padding_inline: int, bullet: str) -> None:
        self.left += bool(bullet)
        super().register_prefix(padding_inline, bullet)

    def remove_last_prefix(self) -> None:
        self.left -= bool(self.bullets and self.bullets[-1])
        super().remove_last_prefix()

    def pop_next_bullet(self) -> str:
        if not self.left:
            return ""
        self.left -= 1
        return str(super().pop_next_bullet())


canvas.Prefix = _Prefix


def html_to_text(html: str) -> str:
    """The visible text. What inscriptis cannot lay out loses its tags and keeps its words."""
    bounded = html[:HTML_CHARS_MAX].replace("\x00", "").replace(_CELL_END, "")
    if not bounded.strip():
        return ""
    try:
        # The charset declared inside is about bytes that are characters by now: the parser is told what it gets.
        # huge_tree: without it everything below the 256th level would be silently lost.
        parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
        tree = document_fromstring(bounded.encode("utf-8", "replace"), parser=parser)
        drop_hidden(tree, bounded)
        text = str(Inscriptis(tree, _config()).get_text())
        if is_blank(text):
            text = "\n".join(images_elsewhere(tree))
    except (LxmlError, ValueError, TypeError, AssertionError, RecursionError, LookupError, AttributeError):
        return re.sub(r"[ \t]+", " ", unescape(_TAG.sub(" ", bounded)))
    return "\n".join(_row(line) if _CELL_END in line else line for line in text.split("\n"))


def _row(line: str) -> str:
    return " | ".join(cell for part in line.split(_CELL_END) if (cell := part.strip()))


def _config() -> Any:
    config = ParserConfig(css=_CSS, display_links=True, custom_html_tag_handler_mapping=_NO_TABLES)
    # No styles: widths and margins would let a few bytes ask for megabytes of blanks. What hides is done with already.
    config.attribute_handler.attribute_mapping = {}
    return config
