"""A vendor's limit that lasts: kept from the runtime, told to the turn."""

from __future__ import annotations

import pytest

from tinyfat.box.runtimes.model_failure import failure_of
from tinyfat.box.vendor_limits import LIMIT_SECONDS_MAX, told_to_runtime
from tinyfat.domain.failure_kinds import FailureId

NOW = 1_796_095_800.0  # 1 December 2026, 03:30 UTC


def head(*fields: str, status: str = "429 Too Many Requests") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "content-type: application/json", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        (["retry-after: 3600"], 3600.0),
        (["Retry-After: 21"], 21.0),
        (["retry-after-ms: 90000", "retry-after: 5"], 90.0),
        (["retry-after: Tue, 01 Dec 2026 04:30:00 GMT"], 3600.0),
        (["retry-after: 1e12"], LIMIT_SECONDS_MAX),
        (["RETRY-AFTER: 3600", "x-should-retry: true"], 3600.0),
    ],
)
def test_a_long_pause_is_kept_from_the_runtime(fields: list[str], seconds: float) -> None:
    told, lasts = told_to_runtime(head(*fields), NOW)
    assert lasts == seconds
    assert told == head("x-should-retry: false")


@pytest.mark.parametrize(
    "raw",
    [
        head("retry-after: 20"), head(), head("retry-after: soon"), head("retry-after: -5"), head("retry-after: nan"),
        head("retry-after: inf"), head("retry-after: Tue, 01 Dec 2026 03:00:00 GMT"),
        head("retry-after: 3600", status="200 OK"), head("retry-after: 3600", status="503 Busy"),
        b"429 retry-after: 3600\r\n\r\n", b"\xff\xfe\r\n\r\n",
    ],
)  # fmt: skip
def test_anything_else_passes_as_it_is(raw: bytes) -> None:
    assert told_to_runtime(raw, NOW) == (raw, 0.0)


# What OpenClaw 2026.9.6, pi and vendors say, and what it is.
WORDS = {
    "⚠️ Rate-limited — ready in ~60 min. Please try again shortly.": (FailureId.VENDOR_LIMIT, NOW + 3600),
    "⚠️ Rate-limited — ready in ~45s. Please wait a moment.": (FailureId.VENDOR_LIMIT, NOW + 45),
    "⚠️ API rate limit reached. Please try again later.": (FailureId.VENDOR_LIMIT, None),
    "429 Too Many Requests: retry after 3600 seconds": (FailureId.VENDOR_LIMIT, NOW + 3600),
    "The model provider returned HTTP 429 before replying. This can mean an account balance/billing issue.":
        (FailureId.VENDOR_LIMIT, None),
    "Please try again in 2h": (FailureId.MODEL_FAILED, None),
    "You exceeded your current quota. Please try again in 2h": (FailureId.VENDOR_LIMIT, NOW + 7200),
    "⚠️ API provider returned a billing error — check your account for subscription or usage limits, then try again.":
        (FailureId.VENDOR_REFUSED, None),
    "401 Incorrect API key provided": (FailureId.VENDOR_REFUSED, None),
    "The vendor refused the call, which is for the operator to mend.": (FailureId.VENDOR_REFUSED, None),
    "⚠️ Context overflow — this conversation is too large for the model. Use /new to start a fresh session.":
        (FailureId.CONTEXT_FULL, None),
    "Context overflow: prompt too large for the model (precheck).": (FailureId.CONTEXT_FULL, None),
    "⚠️ Auto-compaction could not recover this turn.": (FailureId.CONTEXT_FULL, None),
    "400 This model's maximum context length is 128000 tokens. However, you requested 140000.":
        (FailureId.CONTEXT_FULL, None),
    "400 prompt is too long: 212000 tokens > 200000 maximum": (FailureId.CONTEXT_FULL, None),
    "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000": (FailureId.CONTEXT_FULL, None),
    "The input token count (1200000) exceeds the maximum number of tokens allowed": (FailureId.CONTEXT_FULL, None),
    "No vendor of this model answered; try again in a moment.": (FailureId.MODEL_UNREACHABLE, None),
    "529 overloaded_error": (FailureId.MODEL_UNREACHABLE, None),
    "The AI service is temporarily overloaded. Please try again in a moment.": (FailureId.MODEL_UNREACHABLE, None),
    "fetch failed: ECONNREFUSED": (FailureId.MODEL_UNREACHABLE, None),
    "the model refused this turn, as the mail asked for (echo: fail)": (FailureId.MODEL_FAILED, None),
    "": (FailureId.MODEL_FAILED, None),
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
def test_why_a_model_failed_is_told_apart(words: str) -> None:
    failure = failure_of(words, NOW)
    failure_id, until = WORDS[words]
    assert failure.id is failure_id and failure.fields.get("until") == until
