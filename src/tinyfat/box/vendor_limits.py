"""A vendor's limit (429) as an answer's head tells it, and what the runtime is told of it. Pure.

A runtime that is to come again in an hour waits through its turn and says nothing, or takes its key out of use for all
conversations. So a pause that is longer than a runtime may usefully wait is kept from it, and told to the turn instead.
"""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

PAUSE_SECONDS_MAX = 20.0  # that a runtime is told to wait by itself
LIMIT_SECONDS_MAX = 31 * 24 * 3600.0
_STATUS = re.compile(rb"HTTP/1\.[01] 429[ \r]")
_PAUSE = re.compile(rb"(?mi)^(?:retry-after|retry-after-ms|x-should-retry):[^\n]*\n")


def told_to_runtime(head: bytes, now: float) -> tuple[bytes, float]:
    """The head as the runtime gets it, and how many seconds the limit lasts; 0.0 where it tells of no long one.

    `head` ends with its blank line. `now`: Unix seconds, for a date (RFC 9110 10.2.3)."""
    seconds = _pause(head, now) if _STATUS.match(head) else 0.0
    if seconds <= PAUSE_SECONDS_MAX:
        return head, 0.0
    kept = _PAUSE.sub(b"", head).removesuffix(b"\r\n")
    return kept + b"x-should-retry: false\r\n\r\n", min(seconds, LIMIT_SECONDS_MAX)


def _pause(head: bytes, now: float) -> float:
    said: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        said.setdefault(name.strip().lower(), value.strip())
    if milliseconds := _number(said.get("retry-after-ms", "")):
        return milliseconds / 1000
    after = said.get("retry-after", "")
    if seconds := _number(after):
        return seconds
    try:
        at = parsedate_to_datetime(after)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
