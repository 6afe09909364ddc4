"""Which of a mail's two versions says more: the plain text, or the HTML that people see."""

from __future__ import annotations

import re
from html import unescape

from tinyfat.domain.mail.charsets import is_blank

SHARE_MIN = 0.5  # of the HTML's words that a plain text has which is a version of it
WORDS_MAX = 20_000
NEW_WORDS_MIN = 4  # that only the HTML has, before it is worth looking at
LINKS_MAX = 20
LINK_CHARS_MAX = 500

_WORD = re.compile(r"[^\W_]+")
_ADDRESS = re.compile(r"(?:https?://|www\.|mailto:|cid:)[^\s<>\"')\]]+", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_LINK = re.compile(r"\[([^\[\]\n]{0,300})\]\((https?://[^\s()]{1,2000}|mailto:[^\s()]{1,300})\)")
_HREF = re.compile(r"""href\s*=\s*["']?\s*(https?://[^\s"'<>]+|mailto:[^\s"'<>]+)""", re.IGNORECASE)


def may_say_more(plain: str, html: str) -> bool:
    """A cheap look at the HTML's source: is it worth laying out?"""
    if is_blank(plain):
        return True
    known = _words(plain)
    words = _words(unescape(_TAG.sub(" ", html)))
    return _lacks(known, words) or any(not _has(plain, unescape(one)) for one in _HREF.findall(html)[: 5 * LINKS_MAX])


def better(plain: str, shown: str) -> str:
    """`shown`: the HTML as text. The plain text, with the links that only the HTML has; or the HTML, where the plain is
    blank or no version of it, as "Your program shows no HTML" is none."""
    if is_blank(plain):
        return shown
    if not is_blank(shown) and _lacks(_words(plain), _words(_LINK.sub(r"\1", shown))):
        return shown
    missing = [f"- {' '.join(text.split()) or address}: {address}" for text, address in _links(plain, shown)]
    if not missing:
        return plain
    return "\n".join([plain.rstrip("\n"), "", "[Links that only the HTML version has:]", *missing])


def _links(plain: str, shown: str) -> list[tuple[str, str]]:
    found = {address: text for text, address in _LINK.findall(shown) if not _has(plain, address)}
    return [(text, address[:LINK_CHARS_MAX]) for address, text in list(found.items())[:LINKS_MAX]]


def _has(plain: str, address: str) -> bool:
    bare = re.sub(r"^(?:mailto:|https?://)", "", address.strip(), flags=re.IGNORECASE).partition("?")[0].rstrip("/")
    return bare.lower() in plain.lower()


def _lacks(known: set[str], words: set[str]) -> bool:
    new = words - known
    return len(new) >= NEW_WORDS_MIN and len(new) > (1 - SHARE_MIN) * len(words)


def _words(text: str) -> set[str]:
    """Words without addresses; of scripts that put no blanks between words, single characters."""
    found: set[str] = set()
    for match in _WORD.finditer(_ADDRESS.sub(" ", text)):
        word = match[0].lower()
        found.update(word if ord(word[0]) >= 0x2E80 or "\u0e00" <= word[0] <= "\u0eff" else (word,))
        if len(found) >= WORDS_MAX:
            break
    return found
