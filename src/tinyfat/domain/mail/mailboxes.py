"""Address lists in header fields (RFC 5322 3.4), read in one pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyfat.domain.mail.addresses import plain_address
from tinyfat.domain.mail.headers import HEADER_VALUE_BYTES_MAX, display_text

MAILBOXES_MAX = 200  # of one field; nobody reads more
NAME_CHARS_MAX = 200
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r'[^"(<,;:>]+')
_LIKE_ADDRESS = re.compile(r"[^@]@[^@]*\.")
_COMMENT_EDGE = re.compile(r"\\.|[()]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mailbox:
    name: str  # for people: one line; "" where there is none
    address: str  # lower case; "" where what stood there is no usable address


@dataclass(frozen=True, slots=True)
class MailboxList:
    mailboxes: tuple[Mailbox, ...]
    doubtful: bool  # unbalanced, a group, or a name that shows another address: nobody's identity may rest on it


@dataclass(slots=True)
class _Entry:
    name: str = ""
    comment: str = ""
    angle: str | None = None
    broken: bool = False

    def is_word(self) -> bool:
        return bool(self.name.strip()) and self.angle is None and not self.broken and "@" not in self.name

    def empty(self) -> bool:
        return not self.name.strip() and self.angle is None and not self.broken


def read_mailboxes(value: str) -> MailboxList:
    """Read a From, To or Cc field's value (unfolded, RFC 2047 not yet undone: an encoded comma is no separator)."""
    text = value[:HEADER_VALUE_BYTES_MAX]
    entries: list[_Entry] = []
    entry, position, closed = _Entry(), 0, False
    group: list[str] = []  # a name and its colon
    while position < len(text) and len(entries) < MAILBOXES_MAX:
        character = text[position]
        if character in ",;":
            closed = closed or character == ";"
            entries.append(entry)
            entry = _Entry()
            position += 1
        elif character == ":":  # the end of a group's name
            group.append(f"{entry.name}:")
            closed = closed or entry.angle is not None or entry.broken  # that was an address, and no name
            entry = _Entry()
            position += 1
        else:
            position = _read_token(text, position, entry)
    entries.append(entry)
    named = [one for one in _joined(entries) if not one.empty()]
    if group and not closed and len(named) == 1 and named[0].angle is not None:
        # `Sales: Pat <pat@example.org>` is a name.
        named[0].name, group = f"{''.join(group)} {named[0].name.strip()}", []
    found = [_mailbox(one) for one in named]
    doubtful = bool(group) or len(value) > HEADER_VALUE_BYTES_MAX or any(doubt for _, doubt in found)
    return MailboxList(tuple(mailbox for mailbox, _ in found[:MAILBOXES_MAX]), doubtful)


def _joined(entries: list[_Entry]) -> list[_Entry]:
    """`Smith, Pat <pat@example.org>`: a name whose comma nobody quoted. Nothing before the comma is an address."""
    joined: list[_Entry] = []
    for entry in entries:
        named = entry.angle is not None and entry.name.strip() and "@" not in entry.name
        while named and joined and joined[-1].is_word():
            entry.name = f"{joined.pop().name.strip()}, {entry.name.strip()}"
        joined.append(entry)
    return joined


def _read_token(text: str, position: int, entry: _Entry) -> int:
    character = text[position]
    if character == '"':
        match = _QUOTED.match(text, position)
        if match is None:
            entry.broken = True
            entry.name += text[position + 1 :]
            return len(text)
        # Quotes are kept as they stand: they may belong to a local part.
        entry.name += match[0]
        return match.end()
    if character == "(":
        return _read_comment(text, position, entry)
    if character == "<":
        end = text.find(">", position)
        entry.broken = entry.broken or end < 0 or entry.angle is not None
        entry.angle = text[position + 1 : end if end >= 0 else len(text)]
        return end + 1 if end >= 0 else len(text)
    if character == ">":
        entry.broken = True
        return position + 1
    match = _PLAIN.match(text, position)
    assert match is not None  # every other character was handled above
    entry.broken = entry.broken or (entry.angle is not None and bool(match[0].strip()))
    entry.name += match[0]
    return match.end()


def _read_comment(text: str, position: int, entry: _Entry) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(edge[0], 0)
        if depth == 0:
            entry.comment = text[position + 1 : edge.start()]
            return edge.end()
    entry.broken = True
    return len(text)


def _mailbox(entry: _Entry) -> tuple[Mailbox, bool]:
    """The mailbox, and whether it is doubtful."""
    if entry.angle is None:
        address = _address(entry.name)
        return Mailbox(display_text(entry.comment, NAME_CHARS_MAX), address or ""), entry.broken or address is None
    address = _address(entry.angle)
    name = _display_name(entry.name) or display_text(entry.comment, NAME_CHARS_MAX)
    # `From: owner@good.example <thief@bad.example>`: unquoted, some readers take the first address for the sender. The
    # same address once more (`you@example.org via Forms <you@example.org>`) misleads nobody.
    words = _QUOTED.sub("", entry.name).split()
    other = any(_LIKE_ADDRESS.search(word) and plain_address(word.strip(",;:()[]'")) != address for word in words)
    return Mailbox(name, address or ""), entry.broken or address is None or other


def _address(text: str) -> str | None:
    """A domain may be written with its root's dot (RFC 1034 3.1); what is meant is the same."""
    return plain_address(text.strip().removesuffix("."))


def _display_name(text: str) -> str:
    unquoted = _QUOTED.sub(lambda match: re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL), text)
    return display_text(unquoted, NAME_CHARS_MAX)
