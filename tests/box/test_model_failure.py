"""What a vendor's words are read as, beyond those that the runtimes' own tests show."""

from __future__ import annotations

import pytest

from tinyfat.box.runtimes.model_failure import failure_of
from tinyfat.domain.failure_kinds import FailureId


@pytest.mark.parametrize(
    ("words", "kind", "until"),
    [
        ("ThrottlingException: Too many tokens, please wait before trying again.", FailureId.VENDOR_LIMIT, None),
        ("Too many tokens per day", FailureId.VENDOR_LIMIT, None),
        ("Too many tokens: the conversation has 210000", FailureId.CONTEXT_FULL, None),
        ("429 Rate limit reached. Please try again in 1m12.5s.", FailureId.VENDOR_LIMIT, 72),
        ("429 try again in 2h3m4s", FailureId.VENDOR_LIMIT, 7384),
        ("Rate limit: retry in 36.3s", FailureId.VENDOR_LIMIT, 36),
        ("429 wait 500ms", FailureId.VENDOR_LIMIT, 0),
        ("429 try again in 100x", FailureId.VENDOR_LIMIT, None),
        ("The model's vendor has a limit that is reached. It ends in about 60 minutes, at 2026-12-01 05:50 UTC.",
         FailureId.VENDOR_LIMIT, 3600),
        ("Error 524: a timeout occurred", FailureId.MODEL_UNREACHABLE, None),
    ],
)  # fmt: skip
def test_a_vendors_words_are_the_failure_that_they_mean(words: str, kind: FailureId, until: int | None) -> None:
    failure = failure_of(words, 0)
    assert failure.id is kind and failure.fields.get("until") == until
