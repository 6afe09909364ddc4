"""Which conversation a mail belongs to, and how a reply says so (RFC 5322 3.6.4)."""

from __future__ import annotations

import re
from hashlib import sha256

from tinyfat.domain.mail.message import MISSING_ID_DOMAIN, Mail

REFERENCES_MAX = 200  # the thread's first id and its newest ones; a client needs no more to fold a thread
REFERENCES_CHARS_MAX = 16_000  # together; relays cut a header's tail, where the nearest ids are
_ID_LEFT = re.compile(r"[A-Za-z0-9-]{1,64}")


def reply_message_id(turn_id: str, domain: str) -> str:
    """The Message-ID of the reply to this turn: always the same, so that sending it twice is the same mail.

    A turn id that cannot stand in a Message-ID is replaced by its SHA-256.
    """
    left = turn_id if _ID_LEFT.fullmatch(turn_id) else sha256(turn_id.encode("utf-8", "replace")).hexdigest()
    return f"<turn.{left}@{domain}>"


def references_for_reply(mail: Mail) -> tuple[str, ...]:
    """The References of a reply to `mail`: the parent's own chain (or its In-Reply-To), then the parent's id.

    Over the bounds the first and the newest are kept. An id we made up for a mail that had none is left out:
    nobody else knows it.
    """
    chain = list(mail.references)
    if not chain and mail.in_reply_to:
        chain = [mail.in_reply_to]
    if not mail.message_id.endswith(f"@{MISSING_ID_DOMAIN}>"):
        chain = [one for one in chain if one != mail.message_id] + [mail.message_id]
    room, newest = REFERENCES_CHARS_MAX - sum(len(one) for one in chain[:1]), list[str]()
    for one in reversed(chain[1:]):
        room -= len(one) + 1
        if room < 0 or len(newest) == REFERENCES_MAX - 1:
            break
        newest.append(one)
    return (*chain[:1], *reversed(newest))


def in_reply_to_for_reply(mail: Mail) -> str:
    """The In-Reply-To of a reply to `mail`; "" where the mail came without an id of its own."""
    return "" if mail.message_id.endswith(f"@{MISSING_ID_DOMAIN}>") else mail.message_id


def thread_candidates(mail: Mail) -> tuple[str, ...]:
    """The ids that may name a known message of this conversation, best first: the parent, then its forebears."""
    ordered = [mail.in_reply_to, *reversed(mail.references)]
    return tuple(dict.fromkeys(one for one in ordered if one))


def session_key(thread_id: str) -> str:
    """One conversation is one session of the runtime."""
    return f"email:{thread_id}"
