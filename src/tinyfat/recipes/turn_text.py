"""A mail as the text of a turn: what the model reads."""

from __future__ import annotations

from collections.abc import Iterable

from tinyfat.domain.mail.charsets import clean_text, one_line
from tinyfat.domain.mail.mailboxes import Mailbox
from tinyfat.domain.mail.message import Mail

RECIPIENTS_SHOWN_MAX = 20
ATTACHMENTS_SHOWN_MAX = 50


def turn_text(mail: Mail, agent_address: str) -> str:
    """Header lines, an empty line, the whole body with its quotes. No value can add a line of its own."""
    lines = [
        f"From: {_person(mail.from_name, mail.from_address or '(unknown)')}",
        f"To: {_recipients(mail, agent_address)}",
        f"Subject: {one_line(mail.subject)}",
        f"Date: {one_line(mail.date)}",
    ]
    if mail.attachments:
        lines.append(f"Attachments: {_attachments(mail)}")
    return "\n".join(line.rstrip() for line in lines) + "\n\n" + clean_text(mail.text)


def size_words(count: int) -> str:
    """12_345 -> "12 kB"; decimal units, as mail programs show them."""
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1_000:.0f} kB" if count < 999_500 else f"{count / 1_000_000:.1f} MB"


def _person(name: str, address: str) -> str:
    # Angle brackets in a name could pass for an address.
    plain = one_line(name).translate({ord("<"): None, ord(">"): None}).strip()
    return f"{plain} <{one_line(address)}>" if plain else one_line(address)


def _recipients(mail: Mail, agent_address: str) -> str:
    people: Iterable[Mailbox] = mail.to or (Mailbox("", agent_address),)
    shown = [_person(one.name, one.address or "(unreadable)") for one in list(people)[:RECIPIENTS_SHOWN_MAX]]
    more = len(mail.to) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _attachments(mail: Mail) -> str:
    shown = [
        f"{one_line(one.filename)} ({one_line(one.media_type)}, {size_words(len(one.content))})"
        for one in mail.attachments[:ATTACHMENTS_SHOWN_MAX]
    ]
    more = len(mail.attachments) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
