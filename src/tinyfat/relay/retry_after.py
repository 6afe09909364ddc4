"""When a vendor wants to be asked again (RFC 9110, 10.2.3), and what of it is handed down.

A client waits for as long as it is told, with a person waiting behind it. So only what a turn can bear is handed down;
of a longer limit the client hears that it is one, and when it ends, and that to ask again at once changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

WAIT_SECONDS_MAX = 60.0  # that a client is asked to wait
LIMIT_SECONDS_MAX = 31 * 24 * 3600.0  # of a vendor's; what is more is a slip of its


def seconds_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """None where the vendor says nothing that can be read."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        given = headers.get(name, "").strip()
        try:
            seconds = float(given) * scale
        except ValueError:
            if name == "retry-after-ms" or not given:
                continue
            try:
                at = parsedate_to_datetime(given)
            except (ValueError, TypeError, OverflowError):
                continue
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
        if 0 <= seconds <= LIMIT_SECONDS_MAX:
            return seconds
    return None


def limit_words(seconds: float, now: datetime) -> str:
    ends = (now + timedelta(seconds=seconds)).astimezone(UTC)
    minutes = max(1, round(seconds / 60))
    wait = f"{minutes} minute{'s' if minutes > 1 else ''}" if minutes < 120 else f"{round(seconds / 3600)} hours"
    return f"The model's vendor has a limit that is reached. It ends in about {wait}, at {ends:%Y-%m-%d %H:%M} UTC."
