from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.box.scripted_gateway import history, question, resumed, said
from tinyfat.box.runtimes.gateway_history import ATTEMPTS_MAX, Reading, Seen, attempt_key, read_history

INTERRUPTED = {"runId": "t1", "state": "interrupted", "message": {"role": "user", "content": "hi"}}
QUEUED = {**INTERRUPTED, "state": "queued"}
TOOL_CALL = said("I will look.", "toolUse")


@pytest.mark.parametrize(
    ("rows", "seen", "attempts", "text"),
    [
        (history(), Seen.NOTHING, 0, ""),
        (history(question("other"), said("yes")), Seen.NOTHING, 0, ""),
        (history(question("t1"), said("yes")), Seen.ANSWERED, 1, "yes"),
        (history(question("t1"), TOOL_CALL, said("yes")), Seen.ANSWERED, 1, "yes"),
        (history(question("t1"), TOOL_CALL), Seen.ABANDONED, 1, ""),
        (history(question("t1"), said("boom", "error")), Seen.FAILED, 1, "boom"),
        (history(question("t1")), Seen.ABANDONED, 1, ""),
        (history(question("t1"), status="running", active=True), Seen.RUNNING, 1, ""),
        # Killed and started again: no run is active yet, the gateway has not come to this session.
        (history(question("t1"), status="running"), Seen.RUNNING, 1, ""),
        # An answer is final only once the run is over.
        (history(question("t1"), said("part"), status="running", active=True), Seen.RUNNING, 1, ""),
        (history(question("t1"), resumed(), said("yes")), Seen.ANSWERED, 1, "yes"),
        # A later mail of the same thread runs: this turn is over.
        (history(question("t1"), said("yes"), question("t2"), status="running"), Seen.ANSWERED, 1, "yes"),
        (history(question("t1"), question("t2"), said("to t2")), Seen.ABANDONED, 1, ""),
        (history(pending=[INTERRUPTED]), Seen.ABANDONED, 1, ""),
        (history(pending=[QUEUED]), Seen.RUNNING, 1, ""),
        (history(question("t1/2"), said("yes"), pending=[INTERRUPTED]), Seen.ANSWERED, 2, "yes"),
        (history(question("t1"), question("t1/2"), said("yes")), Seen.ANSWERED, 2, "yes"),
    ],
)
def test_what_a_history_says_of_a_turn(rows: dict[str, Any], seen: Seen, attempts: int, text: str) -> None:
    reading = read_history(rows, "t1")

    assert (reading.seen, reading.attempts, reading.text) == (seen, attempts, text)


def test_times_and_tokens_come_from_the_rows() -> None:
    reading = read_history(history(question("t1", at=1500), said("yes", at=4200)), "t1")

    assert (reading.received_at, reading.answered_at) == (1.5, 4.2)
    assert reading.usage == {"input": 10, "output": 3, "cacheRead": 0, "cacheWrite": 0, "total": 13}


def test_a_file_that_the_gateway_kept_is_named() -> None:
    kept = {"type": "attachment", "attachment": {"artifactId": "artifact_1", "label": "x.txt"}}
    row = {**said("here"), "content": [{"type": "text", "text": "here"}, kept]}

    assert read_history(history(question("t1"), row), "t1").artifacts == ("artifact_1",)


def test_an_attempt_has_a_key_of_its_own() -> None:
    keys = [attempt_key("t1", number) for number in range(ATTEMPTS_MAX)]

    assert keys[:2] == ["t1", "t1/2"]
    assert len(set(keys)) == ATTEMPTS_MAX


_KEYS = """
messages role content idempotencyKey __openclaw type text usage provenance kind pendingInputs items runId state
sessionInfo status timestamp attachment artifactId
"""
_keys = st.sampled_from(_KEYS.split())
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["user", "assistant", "t1:user"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=5),
    max_leaves=30,
)


@given(st.dictionaries(_keys, _json, max_size=6))
def test_no_history_breaks_the_reader(rows: dict[str, Any]) -> None:
    assert isinstance(read_history(rows, "t1"), Reading)
