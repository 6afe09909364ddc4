"""Message-IDs: opaque names, taken as they stand wherever they can be sent again."""

from __future__ import annotations

import re
from hashlib import sha256

from tinyfat.domain.mail.headers import decode_words

MESSAGE_ID_CHARS_MAX = 512  # it has to fit on one line of a reply (RFC 5322 2.1.1), with its header's name
IDS_MAX = 1_000
MISSING_ID_DOMAIN = "missing.invalid"  # RFC 2606: nobody's

_IN_ANGLES = re.compile(r"<([^<>]*)>")
_SENDABLE = re.compile(r"[!-;=?-~]+")  # printable ASCII but for the angle brackets
_BARE = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")


def message_ids(value: str) -> list[str]:
    """Every usable id of a Message-ID, In-Reply-To or References value, each once, in angle brackets, in order.

    No grammar is asked for (`<[a@b]>` is an id); blanks inside the brackets are a folding that went wrong. One lone
    `a@b` without brackets is an id too. Some programs put a long id into encoded words, which RFC 2047 5 forbids.
    """
    value = decode_words(value) if "=?" in value else value
    found: dict[str, None] = {}
    for match in _IN_ANGLES.finditer(value):
        inner = re.sub(r"\s+", "", match[1])
        if len(inner) <= MESSAGE_ID_CHARS_MAX and _SENDABLE.fullmatch(inner):
            found[f"<{inner}>"] = None
        if len(found) == IDS_MAX:
            break
    bare = value.strip()
    if not found and len(bare) <= MESSAGE_ID_CHARS_MAX and _BARE.fullmatch(bare):
        return [f"<{bare}>"]
    return list(found)


def derived_message_id(from_value: str, date: str, subject: str, body: bytes) -> str:
    """An id for a mail that has none: the same for the same mail, by whichever way it comes again."""
    digest = sha256()
    for text in (from_value, date, subject):
        digest.update(text.strip().encode("utf-8", "replace") + b"\0")
    digest.update(body.replace(b"\r\n", b"\n").strip())
    return f"<{digest.hexdigest()}@{MISSING_ID_DOMAIN}>"
