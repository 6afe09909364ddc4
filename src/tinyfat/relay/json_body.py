"""A JSON object read strictly, in C where there is much of it. Pure.

What one reader takes for another thing than the next is refused, wherever it stands: a name given twice in one object
(RFC 8259, 4: "the behavior of software that receives such an object is unpredictable"), NaN and Infinity, another
encoding than UTF-8 (8.1), a byte order mark.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

NAME_CHARS_SHOWN = 40
EFFORT_PER_OBJECT, EFFORT_PER_MEMBER, ESCAPES_PER_EFFORT, BYTES_PER_EFFORT = 80, 6, 5, 25
INLINE_BYTES_MAX = 2 * 1024 * 1024  # of more, already to count how much work they are takes long
INLINE_EFFORT_MAX = 200_000  # `effort`: 10 ms on the slowest of two cores that others use, too


class RequestRefused(ValueError):
    """The body cannot be used; the text is for the client."""


@dataclass(frozen=True, slots=True)
class Body:
    fields: dict[str, Any]
    spans: dict[str, tuple[int, int]]  # where each field's value is, in bytes
    items: list[bytes]  # the elements of the list asked for, as they were written


def effort(raw: bytes) -> int:
    """How much work it is to read, at most, whatever the bytes say: about as many tenths of a microsecond. It is
    counted at a few gigabytes a second."""
    members = raw.count(b",") + raw.count(b"[")
    escapes = raw.count(b"\\")
    braces = raw.count(b"{")
    written = escapes // ESCAPES_PER_EFFORT + len(raw) // BYTES_PER_EFFORT
    return braces * EFFORT_PER_OBJECT + members * EFFORT_PER_MEMBER + written


def light(raw: bytes) -> bool:
    """May it be read on the loop?"""
    return len(raw) <= INLINE_BYTES_MAX and effort(raw) <= INLINE_EFFORT_MAX


def read_object(raw: bytes, listed: str = "") -> Body:
    """`listed`: of this field's list each element's own bytes are told, too. Raises RequestRefused."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise RequestRefused("the body is not JSON in UTF-8") from None
    try:
        return _Walk(text).object(listed)
    except (ValueError, RecursionError, StopIteration) as error:
        if isinstance(error, RequestRefused):
            raise
        raise RequestRefused("the body is not JSON, or nests too deep") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise RequestRefused(f"{twice[:NAME_CHARS_SHOWN]!r} is given twice in one object")
    return made


def _no_number(word: str) -> Any:
    raise RequestRefused(f"{word} is not a number of JSON")


_SCAN = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_number).scan_once  # type: ignore[attr-defined]
_PLAIN_NAME = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_SPACE = json.decoder.WHITESPACE  # type: ignore[attr-defined]


class _Walk:
    """Over the first level, for the places of its values; what is in them is read in C."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._ascii = text.isascii()
        self._told, self._told_bytes = 0, 0  # a place, in characters and in bytes: places are asked for in their order

    def object(self, listed: str) -> Body:
        pairs: list[tuple[str, Any]] = []
        spans: dict[str, tuple[int, int]] = {}
        items: list[bytes] = []
        self._expect("{", "the body must be a JSON object")
        more = not self._took("}")
        while more:
            name = self._name()
            start = self._place()
            value = self._list(items) if name == listed and self._next() == "[" else self._value()
            pairs.append((name, value))
            spans[name] = (start, self._place())
            more = self._more("}")
        if self._next():
            raise RequestRefused("something stands behind the body's JSON object")
        return Body(_members(pairs), spans, items)

    def _name(self) -> str:
        """Up to its value. Of most nothing is to be unescaped: one look finds where they end."""
        if plain := _PLAIN_NAME.match(self._text, self._at):
            self._at = plain.end()
            return plain[1]
        if self._next() != '"':
            raise RequestRefused("the body is not JSON")
        name: str
        name, self._at = _SCAN(self._text, self._at)
        self._expect(":", "the body is not JSON")
        self._next()
        return name

    def _list(self, items: list[bytes]) -> list[Any]:
        values: list[Any] = []
        self._at += 1
        more = not self._took("]")
        while more:
            self._next()
            start = self._at
            value, end = _SCAN(self._text, start)
            values.append(value)
            items.append(self._text[start:end].encode())
            self._at = end + 1
            if self._text[end : end + 1] != ",":  # as it mostly is
                self._at = end
                more = self._more("]")
        return values

    def _value(self) -> Any:
        value, self._at = _SCAN(self._text, self._at)
        return value

    def _next(self) -> str:
        """The next character that is no white space, not taken; empty at the end."""
        here = self._text[self._at : self._at + 1]
        if here > " ":  # no white space is
            return here
        self._at = _SPACE.match(self._text, self._at).end()
        return self._text[self._at : self._at + 1]

    def _took(self, mark: str) -> bool:
        found = self._next() == mark
        self._at += found
        return found

    def _expect(self, mark: str, words: str) -> None:
        if not self._took(mark):
            raise RequestRefused(words)

    def _more(self, end: str) -> bool:
        here = self._next()
        if here == ",":  # as it mostly is
            self._at += 1
            return True
        if here == end:
            self._at += 1
            return False
        raise RequestRefused("the body is not JSON")

    def _place(self) -> int:
        """Where we are, in bytes."""
        if self._ascii:
            return self._at
        self._told_bytes += len(self._text[self._told : self._at].encode())
        self._told = self._at
        return self._told_bytes
