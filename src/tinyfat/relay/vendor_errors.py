"""What of a vendor's error the agent's client hears: what is wrong with its request, not whose account it is.

Vendors' errors name keys, organisations and projects, and echo what they were sent. Of the body the known fields alone
go on, in the shape of the surface, and their text without anything that identifies. An error within a stream keeps its
vendor's shape, and loses the same. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyfat.relay.shapes.sse import data_of
from tinyfat.relay.shapes.surface import Surface, part

MESSAGE_CHARS_MAX = 1000
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,79}")
_HIDDEN = "***"
_TEXTS = ("message", "msg", "detail", "status_msg")
_OF_AN_ERROR = (*_TEXTS, "type", "code", "param", "status", "status_code")
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


def told_event(event: bytes, body: Mapping[str, Any], key: str) -> bytes:
    """Of an event of a stream that is an error: byte for byte where there is nothing in it to hide. `body`: its data;
    empty where that is no object, or too much to be read: then the key alone is looked for."""
    data = data_of(event)
    if body:
        told = _told_body(body, key)
        if told == body:
            return event
        said = json.dumps(told)
    elif data.startswith(b"{"):
        return event.replace(key.encode(), _HIDDEN.encode()) if key else event
    else:
        text = data.decode(errors="replace")
        said = scrubbed(text, key)
        if said == text:
            return event
    beside = [line for line in re.split(rb"\r\n|\n|\r", event) if line and not line.startswith(b"data:")]
    return b"\n".join([*beside, b"data: " + said.encode(), b"", b""])


def _told_body(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The error stands at the top, in `error`, in a response that failed, in a choice, or in MiniMax's `base_resp`."""
    told = dict(body)
    for name in _TEXTS:
        if isinstance(body.get(name), str):
            told[name] = scrubbed(body[name], key)
    for name in ("error", "base_resp"):
        if name in body:
            told[name] = _told_part(body[name], key)
    for name in ("response", "choices"):
        inner = body.get(name)
        if isinstance(inner, Mapping):
            told[name] = _told_body(inner, key)
        elif isinstance(inner, list):
            told[name] = [_told_body(one, key) if isinstance(one, Mapping) and "error" in one else one for one in inner]
    return told


def _told_part(error: object, key: str) -> object:
    if isinstance(error, str):
        return scrubbed(error, key)
    if not isinstance(error, Mapping):
        return error if error is None or isinstance(error, bool | int | float) else None
    known = {name: error[name] for name in _OF_AN_ERROR if name in error}
    return {name: _told_part(value, key) for name, value in known.items() if not isinstance(value, Mapping)}


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
