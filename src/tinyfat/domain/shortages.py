"""What a vendor has none of right now, and when it is asked for again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

PAUSE_SECONDS_FIRST = 60.0
PAUSE_SECONDS_MAX = 900.0
PROBE_SECONDS = 30.0  # within it whoever asks has an answer, or is dead


@dataclass(frozen=True, slots=True)
class Shortage:
    until: float  # Unix seconds; then one asks again
    pause: float
    probing: bool = False  # somebody asks: `until` is when the next may, had that one died


def probed(known: Shortage, now: float) -> Shortage:
    return Shortage(now + PROBE_SECONDS, known.pause, True)


def short_again(known: Shortage | None, now: float) -> Shortage:
    """Those who asked at the same time count as one."""
    if known is None:
        return Shortage(now + PAUSE_SECONDS_FIRST, PAUSE_SECONDS_FIRST)
    if not known.probing and known.until > now:
        return known
    pause = min(known.pause * 2, PAUSE_SECONDS_MAX)
    return Shortage(now + pause, pause)
