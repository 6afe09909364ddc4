"""An agent's Markdown as HTML for a mail: no raw HTML, no scripts, nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

MARKDOWN_CHARS_MAX = 60_000  # longer text is shown as it is: some Markdown takes more time than it is worth
_SAFE_LINK = re.compile(r"(?:https?://|mailto:|tel:)[^\x00-\x20]", re.IGNORECASE)


def reply_html(markdown: str, attribution: str, quoted: Sequence[str]) -> str:
    """A whole HTML document, newlines as \\n."""
    quote = "<br>\n".join(escape(line) for line in quoted)
    quotation = f'<p>{escape(attribution)}</p>\n<blockquote type="cite">{quote}</blockquote>\n' if attribution else ""
    return (
        '<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n'
        f"{markdown_html(markdown)}{quotation}</body></html>\n"
    )


def markdown_html(markdown: str) -> str:
    if len(markdown) > MARKDOWN_CHARS_MAX:
        return f'<div style="white-space: pre-wrap">{escape(markdown)}</div>\n'
    return str(_RENDERER.render(markdown))


def _is_safe_link(url: str) -> bool:
    """Absolute, to the web, to mail or to a telephone: a relative link leads nowhere in a mail."""
    return bool(_SAFE_LINK.match(url))


def _image_as_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """An image would be fetched when the mail is opened, and tell its server so."""
    token = tokens[index]
    source = str(token.attrGet("src") or "")
    return f'<a href="{escape(source)}">{escape(token.content or source)}</a>'


def _renderer() -> MarkdownIt:
    renderer = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    validate: Any = _is_safe_link
    renderer.validateLink = validate  # type: ignore[method-assign]
    renderer.add_render_rule("image", _image_as_link)
    return renderer


_RENDERER = _renderer()
