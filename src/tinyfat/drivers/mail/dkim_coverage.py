"""What a DKIM signature covers of the fields that we read: whether it can stand for a mail, and for whom.

A signature vouches for what its h= names, from the bottom of the header upwards (RFC 6376 5.4.2). A field beyond that
may be anyone's, and readers take the first (RFC 6376 8.15). So by DKIM alone a mail counts only where the signature
covers every one of the fields that decide what the turn says and where its answer goes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from tinyfat.domain.mail.headers import Headers, parse_parameters
from tinyfat.domain.mail.mailboxes import read_mailboxes
from tinyfat.domain.mail.mime import transfer_encoding

# A mail is tried for five days (RFC 5321 4.5.4.1), and may have waited with a forwarder before.
AGE_SECONDS_MAX = 7 * 86_400
AHEAD_SECONDS_MAX = 3_600  # a sender's clock that is fast

# What we read or obey. Not Cc: it is neither shown nor followed; it may name the agent, and then it must be signed.
# Not the marks of automatic mail either: a forged one only keeps a mail from being answered.
READ_FIELDS = ("from", "to", "subject", "date", "message-id", "in-reply-to", "references", "reply-to")
# Few sign these two (Gmail neither): unsigned they count only where the signed body itself shows them to be true.
SHAPE_FIELDS = ("content-type", "content-transfer-encoding")

_PLAIN_CHARSETS = ("", "utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252")
_SELF_EVIDENT_MULTIPARTS = ("multipart/alternative", "multipart/mixed", "multipart/related")
_BASE64_BODY = re.compile(rb"[A-Za-z0-9+/=\s]*")


@dataclass(frozen=True, slots=True)
class Coverage:
    refusal: str  # why the signature cannot stand for this mail; "" where it can
    recipients: tuple[str, ...] = ()  # the addresses its signed To and Cc name


def coverage(headers: Headers, body: bytes, tags: dict[bytes, bytes], now: float) -> Coverage:
    """`headers`: as we read them. `tags`: the signature's. `now`: Unix seconds."""
    signed = Counter(name.strip().lower().decode("ascii", "replace") for name in tags.get(b"h", b"").split(b":"))
    present = Counter(headers.names())
    for name in READ_FIELDS:
        if present[name] > signed[name]:
            return Coverage(f"{present[name]} {name.title()}, {signed[name] or 'none'} of them signed")
    loose = [name for name in SHAPE_FIELDS if present[name] > signed[name]]
    if any(present[name] > 1 for name in loose):
        return Coverage(f"{loose[0].title()} stands more often than it is signed")
    if loose and not _shape_is_evident(headers, body):
        return Coverage(f"{loose[0].title()} is not signed")
    if stale := _age_refusal(headers, signed, tags, now):
        return Coverage(stale)
    named = [name for name in ("to", "cc") if present[name] and present[name] <= signed[name]]
    boxes = [box for name in named for value in headers.all(name) for box in read_mailboxes(value).mailboxes]
    return Coverage("", tuple(dict.fromkeys(box.address for box in boxes if box.address)))


def _age_refusal(headers: Headers, signed: Counter[str], tags: dict[bytes, bytes], now: float) -> str:
    """t= and x= (RFC 6376 3.5); without t= the signed Date says when."""
    made = _seconds(tags.get(b"t")) if b"t" in tags else _date(headers) if signed["date"] else None
    if made is None:
        return "neither t= nor a signed Date says how old it is"
    if made > now + AHEAD_SECONDS_MAX:
        return "it is signed in the future"
    if now - made > AGE_SECONDS_MAX:
        return f"it was signed {(now - made) / 86_400:.0f} days ago"
    if b"x" in tags:
        expires = _seconds(tags.get(b"x"))
        if expires is None or expires < now:
            return "the signature has expired"
    return ""


def _seconds(value: bytes | None) -> float | None:
    text = (value or b"").strip()
    return float(text) if text.isdigit() and len(text) <= 12 else None


def _date(headers: Headers) -> float | None:
    try:
        return parsedate_to_datetime(headers.first("date")[:100]).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _shape_is_evident(headers: Headers, body: bytes) -> bool:
    """Can an unsigned Content-Type and transfer encoding have no other value than they have?

    A multipart whose boundary is the body's first line and its last: no other one would leave nothing outside. Plain
    text in a charset that keeps ASCII as it is, in base64 only where the body is nothing else.
    """
    media_type, parameters = parse_parameters(headers.first("content-type") or "text/plain")
    if media_type in _SELF_EVIDENT_MULTIPARTS:
        boundary = b"--" + parameters.get("boundary", "").encode("utf-8", "replace")
        content = body.strip()
        return (
            len(boundary) > 2 and content.split(b"\n", 1)[0].rstrip() == boundary and content.endswith(boundary + b"--")
        )
    if "boundary" in parameters:  # we would read it as a multipart
        return False
    if media_type != "text/plain" or parameters.get("charset", "").lower() not in _PLAIN_CHARSETS:
        return False
    encoding = transfer_encoding(headers)
    return encoding in ("", "quoted-printable") or (encoding == "base64" and bool(_BASE64_BODY.fullmatch(body)))
