"""The text of a mail as a person would read it, from whatever parts it is made of."""

from __future__ import annotations

from tinyfat.domain.mail.charsets import clean_text, decode
from tinyfat.domain.mail.html_text import HTML_CHARS_MAX, html_to_text
from tinyfat.domain.mail.mime import Part

TEXT_BYTES_MAX = 200_000  # in UTF-8: what the model is shown
_PART_BYTES_MAX = 4 * TEXT_BYTES_MAX  # of one part, before its charset is undone: UTF-32 takes four for one

_BODY_TYPES = ("text/plain", "text/html", "text/enriched")


def is_body(part: Part) -> bool:
    """Is this leaf meant to be read in place, rather than to be saved?"""
    return part.media_type in _BODY_TYPES and not is_named(part)


def is_named(part: Part) -> bool:
    """It was attached, or has a file's name."""
    named = "filename" in part.disposition_parameters or "name" in part.parameters
    return part.disposition == "attachment" or named


def text_of(root: Part) -> str:
    """All text meant to be read, in order, cut at TEXT_BYTES_MAX with a note that says so."""
    return _cut("\n\n".join(_pieces(root, [HTML_CHARS_MAX])))


def _pieces(part: Part, budget: list[int]) -> list[str]:
    """`budget`: how many characters of HTML may still be laid out, over all parts."""
    if not part.children:
        text = _leaf_text(part, budget).strip("\n") if is_body(part) else ""
        return [text] if text.strip() else []
    if part.media_type == "multipart/alternative":
        return _best_alternative(part, budget)
    if part.media_type == "multipart/report":  # RFC 6522: the first part is for people, the others for machines
        return _pieces(part.children[0], budget)
    return [piece for child in part.children for piece in _pieces(child, budget)]


def _best_alternative(part: Part, budget: list[int]) -> list[str]:
    """Plain text where there is any (RFC 2046 5.1.4 puts it first), else the richest version that says something."""
    plain_first = [child for child in part.children if child.media_type == "text/plain"]
    others = [child for child in reversed(part.children) if child.media_type != "text/plain"]
    for child in plain_first + others:
        if pieces := _pieces(child, budget):
            return pieces
    return []


def _leaf_text(part: Part, budget: list[int]) -> str:
    text = decode(part.content()[:_PART_BYTES_MAX], part.parameters.get("charset", ""))
    if part.media_type == "text/html":
        room, budget[0] = budget[0], max(0, budget[0] - len(text))
        shown = html_to_text(text[:room])
        return clean_text(shown if len(text) <= room else f"{shown}\n\n[More of this HTML is not shown.]")
    text = clean_text(text)
    if part.parameters.get("format", "").lower() == "flowed":
        return unflow(text, part.parameters.get("delsp", "").lower() == "yes")
    return text


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
