"""What of a vendor's error the agent's client hears: what is wrong with its request, not whose account it is.

Vendors' errors name keys, organisations and projects, and echo what they were sent. Of the body the known fields alone
go on, in the shape of the surface, and their text without anything that identifies. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tinyfat.relay.shapes.surface import Surface, part

MESSAGE_CHARS_MAX = 1000
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,79}")
_HIDDEN = "***"
_IDENTIFYING = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Keys, ids of organisations, projects and accounts, by their prefixes: sk-, sk-ant-, fw_, org-, proj_.
        r"\b(?:sk|pk|rk|fw|fpk|gsk|xai|org|proj|acct|wrkspc)[-_][A-Za-z0-9*_-]{3,}",
        r"\b(?:key|organization|project|account|ws|team|user|usr|tenant)[-_](?=[A-Za-z_-]*[0-9*])[A-Za-z0-9*_-]{3,}",
        r"\bbearer\s+\S+",
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        r"\b[A-Za-z0-9_*-]{32,}",  # a secret of another kind
        r"[\w.+-]+@[\w-]+\.[\w.-]+",
        # "in organization Acme on tokens per min", "project 'x'", "(org: x)"
        r"(?<=\borganization )(?!on\b|has\b|is\b|does\b|must\b|for\b|s\b)['\"]?[\w.&-]+(?:\s+[A-Z][\w.&-]*)*['\"]?",
        r"(?<=\borganisation )(?!on\b|has\b|is\b|does\b|must\b|for\b|s\b)['\"]?[\w.&-]+(?:\s+[A-Z][\w.&-]*)*['\"]?",
        r"\b(?:org|organi[sz]ation|project|account|workspace|team|tenant)(?: id| name)?(?:\s*[:=]\s*|\s+(?=['\"`]))"
        r"(?:'[^']*'|\"[^\"]*\"|`[^`]*`|[^\s,;)]+)",
    )
]


def told_error(surface: Surface, status: int, body: bytes, key: str) -> bytes:
    """`key`: the call was made with; never told, whatever it looks like."""
    said = _said(body)
    message = scrubbed(said.get("message"), key) or f"The vendor answered {status} and no more."
    told: dict[str, Any] = json.loads(surface.error(status, message))
    for name in ("type", "code", "param"):
        word = said.get(name)
        if name in told["error"] and isinstance(word, str) and _WORD.fullmatch(word) and scrubbed(word, key) == word:
            told["error"][name] = word
    return json.dumps(told).encode()


def scrubbed(text: object, key: str = "") -> str:
    """Empty where it is no text."""
    if not isinstance(text, str):
        return ""
    text = text.replace(key, _HIDDEN) if key else text
    text = text[:MESSAGE_CHARS_MAX]
    for pattern in _IDENTIFYING:
        text = pattern.sub(_HIDDEN, text)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _said(body: bytes) -> dict[str, Any]:
    """{"error": {"message": ...}} as nearly all of them, {"error": "..."}, {"message": ...}, {"detail": ...}, text."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return {} if b"<" in body else {"message": body.decode(errors="replace")}
    error = whole if isinstance(whole, str) else part(whole, "error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {"message": error}
    message = part(whole, "message") or part(whole, "detail")
    return {"message": message} if isinstance(message, str) else {}
