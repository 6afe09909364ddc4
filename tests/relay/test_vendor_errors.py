"""Whatever way a vendor says that it failed, its client hears neither whose account that is nor the key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.relay.relays import OWNER_KEY, VENDOR_KEY
from tests.relay.test_answers import JSON, SSE, answered_with, asked, head, said, sse
from tinyfat.relay.vendor_errors import told_event

ORGANIZATION = "org-PLANTED9f3c"
WORDS = f"Incorrect key {VENDOR_KEY} of organization {ORGANIZATION}; see the docs"
ERROR = {"message": WORDS, "type": "invalid_request_error", "owner": ORGANIZATION, "metadata": {"raw": WORDS}}
CHOICE = {"index": 0, "delta": {"content": ""}, "error": ERROR, "finish_reason": "error"}
DONE = b"[DONE]"


def typed(kind: str, body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"event: {kind}\ndata: ".encode() + data + b"\n\n"


def in_lines(body: Any) -> bytes:
    return b"".join(b"data: %s\n" % line.encode() for line in json.dumps(body, indent=1).split("\n")) + b"\n"


USAGE = {"prompt_tokens": 1, "completion_tokens": 1}
WITHIN = {
    "an error": sse({"error": ERROR}),
    "an error behind an id": b"id: 7\r\ndata: " + json.dumps({"error": ERROR}).encode() + b"\r\n\r\n",
    "in many lines": in_lines({"error": ERROR}),
    "an error in words": sse({"error": WORDS, "code": 401}),
    "Anthropic's": typed("error", {"type": "error", "error": ERROR}),
    "no JSON": typed("error", WORDS.encode()),
    "a line of JSON": typed("error", WORDS),
    "flat": typed("error", {"type": "error", "code": "x", "message": WORDS, "param": None}),
    "a response that failed": typed("response.failed", {"type": "response.failed", "response": {"error": ERROR}}),
    "in a choice": sse({"choices": [CHOICE]}),
    "in the second choice": sse({"choices": [said("x")["choices"][0], CHOICE]}),
    "with the usage": sse({"choices": [], "error": ERROR, "usage": USAGE}),
    "after the usage": sse({"choices": [], "usage": USAGE}, {"error": ERROR}),
}


@pytest.mark.parametrize("end", [b"", sse(DONE)], ids=["cut", "done"])
@pytest.mark.parametrize("within", WITHIN.values(), ids=WITHIN)
async def test_an_error_within_a_stream_names_no_account(within: bytes, end: bytes) -> None:
    async with answered_with(head(SSE), sse(said("hello")), within, end) as relay:
        status, answer = await asked(relay)
        assert status == 200 and sse(said("hello")) in answer
        assert VENDOR_KEY.encode() not in answer and ORGANIZATION.encode() not in answer
        assert b"see the docs" in answer and answer.endswith(end)
        await relay.ended()


@pytest.mark.parametrize(
    "pieces",
    [
        (head(SSE), sse({"error": ERROR})),
        (head(JSON), json.dumps({"error": ERROR}).encode()),
        (head(JSON), json.dumps({"choices": [CHOICE]}).encode()),
        (head(JSON, 400), json.dumps({"error": ERROR}).encode()),
        (head(JSON, 404), json.dumps({"detail": WORDS}).encode()),
        (head("text/plain", 400), WORDS.encode()),
        (head("text/html", 500), f"<b>{WORDS}</b>".encode()),
    ],
)
async def test_no_other_error_does(pieces: tuple[bytes, ...]) -> None:
    async with answered_with(*pieces) as relay:
        status, answer = await asked(relay)
        assert status >= 400 and VENDOR_KEY.encode() not in answer and ORGANIZATION.encode() not in answer


OWNERS = {"error": {"message": f"Refused: {OWNER_KEY}; see the docs"}}


@pytest.mark.parametrize(
    "pieces",
    [(head(SSE), sse(said("hello"), OWNERS)), (head(SSE), sse(OWNERS)), (head(JSON, 400), json.dumps(OWNERS).encode())],
    ids=["within a stream", "instead of one", "a status"],
)
async def test_nor_the_key_of_an_owner(pieces: tuple[bytes, ...]) -> None:
    async with answered_with(*pieces, byok="owners") as relay:
        _, answer = await asked(relay)
        assert b"Refused: ***; see the docs" in answer


@pytest.mark.parametrize(
    "event",
    [
        typed("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}, "request_id": 1}),
        b'data: {"error":{"message":"The server is busy","code":503,"param":null}}\r\n\r\n',
        typed("error", b"it broke"),
        sse({"error": "it broke"}),
    ],
)
def test_what_hides_nothing_passes_byte_for_byte(event: bytes) -> None:
    data = event.split(b"data: ")[1].strip()
    assert told_event(event, json.loads(data) if data.startswith(b"{") else {}, VENDOR_KEY) == event


def test_what_is_too_much_to_be_read_keeps_its_shape_and_loses_the_key() -> None:
    event = typed("response.failed", {"type": "response.failed", "more": [{}] * 9, "error": ERROR})
    told = told_event(event, {}, VENDOR_KEY)
    assert told == event.replace(VENDOR_KEY.encode(), b"***") != event


def test_the_text_of_the_model_is_not_touched() -> None:
    choice = {**CHOICE, "delta": {"content": f"your account {ORGANIZATION}"}}
    told = told_event(sse({"choices": [choice]}), {"choices": [choice]}, VENDOR_KEY)
    assert json.loads(told[6:])["choices"][0]["delta"] == choice["delta"] and VENDOR_KEY.encode() not in told
