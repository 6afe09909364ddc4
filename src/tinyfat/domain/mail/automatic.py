"""Is this mail a machine's? Then it is never answered (RFC 3834 2, and what mail systems do in practice)."""

from __future__ import annotations

import re

from tinyfat.domain.mail.headers import Headers, parse_parameters

LOOP_HEADER = "X-TinyFat-Loop"
RECEIVED_MAX = 25  # RFC 5321 6.3 asks for at least 100 in a relay; an answer is due long before

# threads.reply_message_id. Relays take marks off that they do not know, but seldom the Message-ID.
_AGENTS_MESSAGE_ID = re.compile(r"\s*<turn\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}@")

_ROLE = re.compile(
    r"mailer-daemon|postmaster|bounces?|majordomo|listserv|owner-.+|.+-(?:owner|request|bounces?)|bounces?[-._].+"
)
_NO_REPLY = re.compile(r"(?:no|donot|dont)reply.*")
_PRECEDENCE = ("bulk", "junk", "list", "auto_reply")
_SUPPRESSED = ("all", "oof", "autoreply")  # MS-OXCMAIL 2.2.3.2.14; DR, RN and NRN are about receipts alone
_RESPONDERS = ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply", "x-mail-autoreply")


def automatic_reason(headers: Headers, from_address: str) -> str:
    """Why it counts as automatic, for a person to read; "" where it does not. The null return path is the caller's."""
    auto_submitted = _first_word(headers.first("auto-submitted"))
    if auto_submitted not in ("", "no"):
        return f"Auto-Submitted: {auto_submitted}"
    names = list(headers.names())
    if LOOP_HEADER.lower() in names:
        return f"{LOOP_HEADER}: it is a TinyFat agent's own"
    if _AGENTS_MESSAGE_ID.match(headers.first("message-id")):
        return "a TinyFat agent's own, by its Message-ID"
    if parse_parameters(headers.first("content-type"))[0] == "multipart/report":
        return "a report (multipart/report)"
    precedence = _first_word(headers.first("precedence"))
    if precedence in _PRECEDENCE:
        return f"Precedence: {precedence}"
    if listed := next((name for name in names if name.startswith("list-")), ""):
        return f"a mailing list ({listed.title()})"
    if suppressed := _suppressed(headers):
        return f"X-Auto-Response-Suppress: {suppressed}"
    responders = [name for name in names if name in _RESPONDERS and _first_word(headers.first(name)) != "no"]
    if responders:
        return f"an automatic responder ({responders[0]})"
    if _is_role(from_address):
        return f"a role's address ({from_address})"
    hops = sum(1 for name in names if name == "received")
    return f"{hops} Received headers: it is going in circles" if hops > RECEIVED_MAX else ""


def _is_role(address: str) -> bool:
    local = address.rpartition("@")[0].partition("+")[0]
    return bool(_ROLE.fullmatch(local) or _NO_REPLY.fullmatch(re.sub(r"[-_.]", "", local)))


def _first_word(value: str) -> str:
    """RFC 3834 5.1: the keyword before parameters and comments."""
    words = re.split(r"[;\s(]", value.strip().lower(), maxsplit=1)
    return words[0][:40]


def _suppressed(headers: Headers) -> str:
    for value in headers.all("x-auto-response-suppress"):
        for word in value.lower().split(",")[:20]:
            if word.strip() in _SUPPRESSED:
                return word.strip()
    return ""
