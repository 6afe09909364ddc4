"""Why a runtime's model failed, from the words the runtime has for it: one of the named failures. Pure.

The words are the vendors' own or OpenClaw 2026.9.6's (src/agents: classify, assistant-request-failure-copy) and pi's;
they are read here and go no further than the turn's detail, which is the operator's.
"""

from __future__ import annotations

import re

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure

READ_CHARS_MAX = 4000
WAIT_SECONDS_MAX = 31 * 24 * 3600.0  # a limit that ends later than that is no moment a person waits for

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CONTEXT = re.compile(
    r"context.?(?:overflow|length|window).{0,60}(?:exceed|too|large|long|limit|small|—|:)|context_length_exceeded"
    r"|maximum context|prompt.{0,30}too (?:large|long)|(?:input|message|request|conversation).{0,40}too (?:large|long)"
    r"|exceeds?.{0,40}(?:context|token limit|maximum.{0,20}tokens)|too many tokens|request_too_large|context overflow"
    r"|auto-?compaction (?:could not|failed)|input token count.{0,30}exceed",
    re.IGNORECASE | re.DOTALL,
)
# Bedrock: "ThrottlingException: Too many tokens, please wait before trying again" is no long conversation.
_THROTTLED = re.compile(r"throttl|too many tokens per |wait before trying again", re.IGNORECASE)
_LIMIT_STATUS = re.compile(r"\b429\b|too many requests|rate.?limit|\btokens? per (?:minute|day)", re.IGNORECASE)
_REFUSED = re.compile(
    r"\b40[123]\b|billing|insufficient.{0,20}(?:balance|quota|credit|funds)|out of credits|credit balance"
    r"|(?:invalid|incorrect|unknown|revoked|missing).{0,20}(?:api.?key|credential|token)|unauthori[sz]ed"
    r"|authentication|permission|forbidden|payment required|vendor refused the call",
    re.IGNORECASE | re.DOTALL,
)
_LIMIT = re.compile(r"limit that is reached|quota|usage.?limit|resource.?exhausted|throttl", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"\b5\d\d\b|overload|no vendor of this model|unavailable|timed?.?out|econn|enotfound|socket|connection|network"
    r"|fetch failed|terminated|broke off|internal server error|bad gateway",
    re.IGNORECASE,
)
_WAIT = re.compile(
    r"(?:ready in|retry.{0,3}after|try again in|retry in|resets? in|ends in|wait)\W{0,6}(?:about )?~?"
    r"(\d+(?:\.\d+)?)\s*(?:(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?=\b|\d)|\b)"
    r"(?:(\d+(?:\.\d+)?)(m|s))?(?:(\d+(?:\.\d+)?)s)?",  # "1h2m3.5s", as Go writes it
    re.IGNORECASE,
)


def failure_of(words: str, now: float) -> Failure:
    """`now`: Unix seconds, for a limit that says how long it lasts."""
    text = words[:READ_CHARS_MAX]
    if _CONTEXT.search(text) and not _THROTTLED.search(text):
        return Failure(FailureId.CONTEXT_FULL)
    if _LIMIT_STATUS.search(text) or _THROTTLED.search(text):
        return limit(_wait(text), now)
    if _REFUSED.search(text):
        return Failure(FailureId.VENDOR_REFUSED)
    if _LIMIT.search(text):
        return limit(_wait(text), now)
    return Failure(FailureId.MODEL_UNREACHABLE if _UNREACHABLE.search(text) else FailureId.MODEL_FAILED)


def limit(seconds: float | None, now: float) -> Failure:
    """The vendor's limit, which ends in so many seconds; None: it does not say when."""
    if seconds is None or not 0 < seconds <= WAIT_SECONDS_MAX:
        return Failure(FailureId.VENDOR_LIMIT)
    return Failure(FailureId.VENDOR_LIMIT, {"until": round(now + seconds)})


def _wait(text: str) -> float | None:
    match = _WAIT.search(text)
    if match is None:
        return None
    unit = (match[2] or "s").lower()
    seconds = float(match[1]) * _UNITS["ms" if unit.startswith(("ms", "milli")) else unit[0]]
    if match[3]:
        seconds += float(match[3]) * _UNITS[match[4].lower()]
    return seconds + float(match[5] or 0)
