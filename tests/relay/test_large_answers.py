"""An answer of many MB holds nobody up, and is charged by what it says all the same: the loop is never busy with it for
longer than with anything else (tests/test_heartbeat.py)."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine_speed import patient, slowness
from tests.relay.relays import KEY, listening, relaying, target
from tests.relay.test_shapes import NAMES, STREAMS, TOKENS, cut_at, through
from tests.test_heartbeat import BEAT_SECONDS, BEAT_SECONDS_MAX, MB, Heart
from tinyfat.domain.usage import Usage
from tinyfat.relay.shapes import long_event, sse, unread
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.shapes.unread import usages_in

SECONDS_MAX = 60.0
USAGE = {"prompt_tokens": 700, "completion_tokens": 30, "total_tokens": 730}
TOLD = json.dumps(USAGE).encode()
RESPONSE = json.dumps({"input_tokens": 700, "output_tokens": 30}).encode()
OBJECTS = b'{"a":{}},' * (12 * MB // 9) + b"{}"
CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"


def embeddings(size: int) -> bytes:
    one = b'{"embedding":[' + b"0.0123," * 1535 + b"0.5]},"
    return b'{"object":"list","data":[' + one * (size // len(one)) + b'{}],"usage":' + TOLD + b"}"


def chat(within: bytes) -> bytes:
    return b'{"choices":[{"message":{"content":"hi"}}],"more":[' + within + b'],"usage":' + TOLD + b"}"


def response(kind: bytes, usage: bytes) -> bytes:
    body = b'{"tools":[' + OBJECTS + b'],"usage":' + usage + b"}"
    return b'event: response.%s\ndata: {"type":"response.%s","response":%s}\n\n' % (kind, kind, body)


ANSWERS = {  # path, streamed, body
    "embeddings": lambda: (EMBEDDINGS, False, embeddings(30 * MB)),
    "small objects": lambda: (CHAT, False, chat(OBJECTS)),
    "one text": lambda: (CHAT, False, chat(b'"' + b"x" * (30 * MB) + b'"')),
    "a text of quotes": lambda: (CHAT, False, chat(b'"' + b'\\"usage' * (30 * MB // 8) + b'"')),
    "no JSON": lambda: (CHAT, False, chat(OBJECTS) + b"}"),
    "a stream that repeats the request": lambda: (
        RESPONSES, True, response(b"created", b"null") + response(b"completed", RESPONSE),
    ),
    "one event": lambda: (
        CHAT, True, b"data: " + chat(OBJECTS).replace(b'"message"', b'"delta"') + b"\n\ndata: [DONE]\n\n",
    ),
}  # fmt: skip


@contextmanager
def vendor(body: bytes, streamed: bool) -> Iterator[str]:
    """In a thread: to send it is not the relay's work."""
    listener = listening()
    kind = "text/event-stream" if streamed else "application/json"

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            while not peer.recv(65536).endswith(b"}"):
                pass
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
            peer.sendall(head.encode())
            for start in range(0, len(body), MB):
                peer.sendall(body[start : start + MB])
            peer.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    thread.join(patient(SECONDS_MAX))


def heard(port: int, path: str, body: dict[str, Any]) -> int:
    """In a thread: how many bytes came."""
    sent = json.dumps(body).encode()
    lines = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nConnection: close\r\nContent-Length: {len(sent)}"
    size = 0
    with socket.create_connection(("127.0.0.1", port), timeout=patient(SECONDS_MAX)) as peer:
        peer.sendall(lines.encode() + b"\r\n\r\n" + sent)
        while piece := peer.recv(1 << 20):
            size += len(piece)
    return size


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_large_answer_holds_nobody_up_and_is_charged_by_what_it_says(name: str) -> None:
    path, streamed, body = ANSWERS[name]()
    asked = {"model": "v", "stream": streamed, "messages": [{"role": "user", "content": "x" * 2_000}]}
    if path != CHAT:
        asked = {"model": "v", "input": "x" * 2_000} | ({"stream": True} if streamed else {})
    with vendor(body, streamed) as url:
        async with relaying({"v": [target(url)]}) as relay:
            heart = Heart()
            beating = asyncio.create_task(heart.beat())
            await asyncio.sleep(4 * BEAT_SECONDS)
            heart.latest = 0.0
            size = await asyncio.to_thread(heard, relay.port, path, asked)
            latest = heart.latest
            beating.cancel()
            [written] = await relay.ended()
    assert size >= len(body)
    assert latest <= BEAT_SECONDS_MAX * slowness()
    usage = written.settlement.usage
    assert (usage.input, usage.output) == ((730, 0) if path == EMBEDDINGS else (700, 30))


def test_a_usage_is_found_where_it_stands_and_not_in_a_text() -> None:
    told = b'{"usage":{"prompt_tokens":7,"details":{"a":[1]}},"x":"'
    within = json.dumps('{"usage":{"prompt_tokens":9}}').encode()
    for data in (told + b"broken off", told + within[1:-1] + b'"', b"x" * 99 + told):
        assert usages_in(data) == [{"prompt_tokens": 7, "details": {"a": [1]}}]
    assert usages_in(b'{"usage":{"prompt_tokens":7') == usages_in(b'"usage":' + b"[" * 9_000) == []
    assert usages_in(b'"usage":{"a":' * 9_000) == []


def test_no_more_is_looked_through_than_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "LOOKED_BYTES_MAX", 100)
    told = b'"usage":{"prompt_tokens":7}'
    assert usages_in(told + b"x" * 999) == usages_in(b"x" * 999 + told) == [{"prompt_tokens": 7}]
    assert usages_in(b"x" * 999 + told + b"x" * 999) == []


@pytest.mark.parametrize(("surface", "stream"), STREAMS, ids=NAMES)
@given(
    places=st.lists(st.integers(0, 10_000), max_size=40),
    most=st.integers(len(b"data: [DONE]"), 300),  # the last event itself is never too long
    kept=st.integers(200, 300),  # nor is what counts the tokens, which has 180 bytes in the longest of these streams
)
@settings(max_examples=60)
def test_events_too_long_to_be_kept_pass_byte_for_byte_and_are_counted(
    surface: Surface, stream: bytes, places: list[int], most: int, kept: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "EVENT_BYTES_MAX", most)
        patch.setattr(long_event, "OBJECT_BYTES_MAX", kept)
        at_once, waited, reader = through(surface, cut_at(stream, places))
    assert at_once + waited == stream
    assert reader.finished and waited and not sse.split(waited)[1:]
    assert max(count.output or 0 for count in reader.counts) == TOKENS[1]
    assert max(count.input or 0 for count in reader.counts) == TOKENS[0]


def test_the_last_event_waits_for_the_ledger_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its end: without that, no client takes it for an event."""
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1_000)
    monkeypatch.setattr(long_event, "OBJECT_BYTES_MAX", 500)
    wire = response(b"created", b"null")[:3_000] + b"\n\n" + response(b"completed", RESPONSE)
    at_once, waited, reader = through(Responses(), [wire[:4_000], wire[4_000:]])
    assert at_once + waited == wire and waited.endswith(b"\n\n") and waited.count(b"\n\n") == 1
    assert reader.usage == Usage(700, 30)
