"""The text of a mail as a person would read it, from whatever parts it is made of."""

from __future__ import annotations

import re

from tinyfat.domain.mail.alternatives import better, may_say_more
from tinyfat.domain.mail.charsets import clean_text, decode, is_blank, known_charset
from tinyfat.domain.mail.html_text import HTML_CHARS_MAX, html_to_text
from tinyfat.domain.mail.mime import Part
from tinyfat.domain.mail.parts_as_meant import TEXT_TYPES, is_named

TEXT_BYTES_MAX = 200_000  # in UTF-8: what the model is shown
_PART_BYTES_MAX = 4 * TEXT_BYTES_MAX  # of one part, before its charset is undone: UTF-32 takes four for one

_HTML_START = re.compile(r"\s{0,100}(?:<!doctype html|<html)[\s>]", re.IGNORECASE)  # under text/plain, too
_COMMAND = re.compile(r"</?[A-Za-z][\w-]{0,60}>")
_PARAM = re.compile(r"<param>[^<]{0,1000}</param>", re.IGNORECASE)
_META_BYTES = 2_048  # of HTML, in which it declares its charset (HTML 4.2.5.4 asks for 1,024)

_META = re.compile(
    rb"""<meta[^>]{0,500}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w.:-]{1,40})|<\?xml[^>]{0,200}encoding=["']([\w.:-]{1,40})""",
    re.IGNORECASE,
)


def is_body(part: Part) -> bool:
    """Is this leaf meant to be read in place, rather than to be saved?"""
    return part.media_type in TEXT_TYPES and not is_named(part)


def text_of(root: Part) -> str:
    """All text meant to be read, in order, cut at TEXT_BYTES_MAX with a note that says so."""
    return _cut("\n\n".join(_pieces(root, [HTML_CHARS_MAX])))


def _pieces(part: Part, budget: list[int]) -> list[str]:
    """`budget`: how many characters of HTML may still be laid out, over all parts."""
    if not part.children:
        text = _leaf_text(part, budget).strip("\n") if is_body(part) else ""
        return [] if is_blank(text) else [text]
    if part.media_type == "multipart/alternative":
        return _best_alternative(part, budget)
    if part.media_type == "multipart/report":  # RFC 6522: the first part is for people, the others for machines
        return _pieces(part.children[0], budget)
    return [piece for child in part.children for piece in _pieces(child, budget)]


def _best_alternative(part: Part, budget: list[int]) -> list[str]:
    """Plain text where there is any (RFC 2046 5.1.4 puts it first), unless the HTML plainly says more.

    Of other types the richest that says something.
    """
    plain = [piece for child in part.children if child.media_type == "text/plain" for piece in _pieces(child, budget)]
    rich = [child for child in reversed(part.children) if child.media_type != "text/plain"]
    html, rich_one = next(((leaf, child) for child in rich for leaf in child.leaves() if _is_html(leaf)), (None, None))
    if plain and html is not None and rich_one is not None:
        text = "\n\n".join(plain)
        if not may_say_more(text, _decoded(html)[:HTML_CHARS_MAX]):
            return plain
        return [better(text, "\n\n".join(_pieces(rich_one, budget)))]
    if plain and not is_blank("".join(plain)):
        return plain
    for child in rich:
        if pieces := _pieces(child, budget):
            return pieces
    return plain


def _is_html(leaf: Part) -> bool:
    return leaf.media_type == "text/html" and is_body(leaf)


def _leaf_text(part: Part, budget: list[int]) -> str:
    text = _decoded(part)
    if part.media_type == "text/html" or _HTML_START.match(text):
        room, budget[0] = budget[0], max(0, budget[0] - len(text))
        shown = html_to_text(text[:room])
        return clean_text(shown if len(text) <= room else f"{shown}\n\n[More of this HTML is not shown.]")
    text = clean_text(text)
    if part.media_type == "text/enriched":
        return unenriched(text)
    if part.parameters.get("format", "").lower() == "flowed":
        return unflow(text, part.parameters.get("delsp", "").lower() == "yes")
    return text


def _decoded(part: Part) -> str:
    content, charset = part.content()[:_PART_BYTES_MAX], part.parameters.get("charset", "")
    if part.media_type == "text/html" and known_charset(charset) in (None, "ascii"):
        charset = _declared(content) or charset
    return decode(content, charset, guess=True)


def _declared(html: bytes) -> str:
    """The charset of `<meta>` or `<?xml?>`; one that the very declaration could not be read in is UTF-8."""
    match = _META.search(html[:_META_BYTES])
    name = (match[1] or match[2]).decode("ascii", "replace") if match else ""
    return "utf-8" if (known_charset(name) or "").startswith("utf_") else name


def unenriched(text: str) -> str:
    """text/enriched without its commands (RFC 1896): a lone line end is a blank, n of them are n - 1."""
    plain = _COMMAND.sub("", _PARAM.sub("", text.replace("<<", "\0"))).replace("\0", "<")
    return re.sub(r"\n+", lambda ends: "\n" * (len(ends[0]) - 1) or " ", plain)


def unflow(text: str, delete_space: bool = False) -> str:
    """format=flowed undone (RFC 3676 4): lines that end in a blank go on in the next one of the same quote depth."""
    paragraphs: list[tuple[int, list[str]]] = []
    open_depth = -1  # of the paragraph that goes on; -1: none does
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")  # space-stuffing
        flows = content.endswith(" ") and content != "-- "
        kept = content[:-1] if flows and delete_space else content
        if depth == open_depth and content != "-- ":
            paragraphs[-1][1].append(kept)
        else:
            paragraphs.append((depth, [kept]))
        open_depth = depth if flows else -1
    return "\n".join(">" * depth + (" " if depth else "") + "".join(pieces) for depth, pieces in paragraphs)


def _cut(text: str) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= TEXT_BYTES_MAX:
        return text
    shown = encoded[:TEXT_BYTES_MAX].decode("utf-8", "ignore")
    return f"{shown}\n\n[The text was cut here: it goes on for another {len(encoded) - TEXT_BYTES_MAX:,} bytes.]"
