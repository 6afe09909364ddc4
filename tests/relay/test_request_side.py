"""What a client sends, before anything is asked of a vendor: read strictly, judged by lists, and never on the loop for
long."""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine_speed import patient
from tests.relay.relays import KEY, TestRelay, chat, relaying
from tinyfat.engine.workers import Workers
from tinyfat.relay import bodies
from tinyfat.relay.json_body import INLINE_BYTES_MAX, INLINE_EFFORT_MAX, RequestRefused, effort, read_object
from tinyfat.relay.reading import Reading
from tinyfat.relay.request import read_body, read_request
from tinyfat.relay.shapes.surfaces import SURFACES
from tinyfat.relay.vendors import Asked

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
HONEST: dict[str, dict[str, Any]] = {
    "chat": {"model": "main", "max_tokens": 9, "messages": [{"role": "user", "content": "model: say x"}]},
    "messages": {"model": "main", "max_tokens": 9, "messages": [{"role": "user", "content": "model: say x"}]},
    "responses": {"model": "main", "max_output_tokens": 9, "input": "model: say x"},
    "embeddings": {"model": "main", "input": "x"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=25,
)


@given(
    fields=st.dictionaries(st.text(max_size=6), JSON, max_size=6),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    listed=st.text(max_size=6),
)
@settings(max_examples=200)
def test_an_honest_body_is_read_as_json_reads_it(
    fields: dict[str, Any], ascii_only: bool, indent: int | None, listed: str
) -> None:
    try:
        raw = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return
    name = listed if listed in fields else next(iter(fields), "")
    body = read_object(raw, name)
    assert body.fields == json.loads(raw) == fields
    for field, (start, end) in body.spans.items():
        assert json.loads(raw[start:end]) == fields[field]
        assert raw[start : start + 1].strip() and raw[end - 1 : end].strip()
    if isinstance(fields.get(name), list):
        assert [json.loads(item) for item in body.items] == fields[name]


@given(raw=st.binary(max_size=60) | st.text('{}[]",:\\u0 \n1truefalsn\ufeff', max_size=60).map(str.encode))
@settings(max_examples=400)
def test_what_json_does_not_read_nobody_does(raw: bytes) -> None:
    try:
        fields = read_object(raw).fields
    except RequestRefused:
        return
    assert fields == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b'{"a":[{"b":{"c":1,"c":2}}]}', b'{"a":NaN}', b'{"a":[-Infinity]}',
        b'\xef\xbb\xbf{"a":1}', '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"), b'{"a":"\xff"}', b'{"a":1}x',
        b'{"a":1,}', b'{a:1}', b'{"a" 1}', b'{"a":1 "b":2}', b'{"a":[1,]}', b'{"a":[1}', b'{"a"', b'{"a":', b'{,}',
        b'[{"a":1}]', b"", b" ", b"7", b'{"a":' + b"[" * 100_000, b'{"a":' + b'{"a":' * 100_000,
        b'{"a":' + b"1" * 9_999 + b"}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", ["", "a"])
def test_what_readers_take_differently_is_refused(raw: bytes, listed: str) -> None:
    with pytest.raises(RequestRefused):
        read_object(raw, listed)


ONE_TOOL: dict[str, Any] = {"type": "function", "name": "f", "function": {"name": "f"}}
REFUSED: list[tuple[str, str, object]] = [
    *((name, field, value) for name, field in
      (("chat", "max_tokens"), ("chat", "max_completion_tokens"), ("chat", "n"), ("messages", "max_tokens"),
       ("responses", "max_output_tokens"))
      for value in ("100000", 1e5, 1.5, -1, 0, True, [5], {}, 10**11, "")),
    *(("messages", "thinking", {"type": "enabled", "budget_tokens": value}) for value in ("9", 1e3, -1, 10**11, True)),
    ("chat", "Max_Tokens", 5), ("chat", "MODEL", "other"), ("messages", "Model", "other"), ("chat", "ſtream", True),
    ("chat", "plugins", [{"id": "web"}]), ("chat", "models", ["a"]), ("chat", "search_parameters", {"mode": "on"}),
    ("chat", "provider", {"order": ["dear"]}), ("chat", "route", "fallback"), ("chat", "transforms", []),
    ("chat", "audio", {"voice": "x"}), ("chat", "web_search_options", {"x": 1}),
    ("chat", "modalities", ["text", "audio"]),
    ("chat", "store", True), ("responses", "store", True), ("chat", "store", "yes"),
    ("chat", "tools", [{"type": "web_search"}]), ("chat", "tools", [{"type": "mcp"}]), ("chat", "tools", ["x"]),
    ("chat", "tools", [{**ONE_TOOL, "Type": "web_search"}]), ("chat", "tools", {"type": "function"}),
    ("chat", "tools", [{"type": ["function"]}]), ("chat", "service_tier", "priority"), ("chat", "stream", "yes"),
    ("chat", "stream", 1), ("chat", "stream_options", []), ("chat", "stream_options", {"include_usage": 1}),
    ("chat", "stream_options", {"Include_Usage": True}), ("chat", "messages", {"role": "user"}),
    ("chat", "messages", ["x"]),
    ("chat", "messages", [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
    ("chat", "messages", [{"role": "user", "content": [{"type": "video_url"}]}]),
    ("chat", "messages", [{"role": "user", "content": [{"type": "text", "text": "x", "Type": "image_url"}]}]),
    ("chat", "messages", [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]),
    ("chat", "messages", [{"role": "assistant", "audio": {"id": "audio_1"}}]),
    ("messages", "tools", [{"type": "advisor_20260301"}]), ("messages", "tools", [{"type": "mcp_toolset"}]),
    ("messages", "tools", [{"type": "web_search_20250305"}]),
    ("messages", "tools", [{"type": "code_execution_20990101"}]),
    ("messages", "tools", [{"type": "custom", "name": "x", "allowed_callers": ["code_execution_20250825"]}]),
    ("messages", "context_management", {"edits": [{"type": "compact_20260112"}]}),
    ("messages", "context_management", {"compaction": {}}), ("messages", "compaction", {"type": "x"}),
    ("messages", "mcp_servers", [{}]), ("messages", "container", "c"), ("messages", "fallbacks", ["x"]),
    ("messages", "speed", "fast"), ("messages", "inference_geo", "us"), ("messages", "thread", "t"),
    ("messages", "system", [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}]),
    ("messages", "messages", [{"role": "user", "content": [{"type": "container_upload", "file_id": "file_1"}]}]),
    ("messages", "messages", [{"role": "user", "content": [{"type": "image", "source": {"type": "file",
    "file_id": "f"}}]}]),
    ("responses", "tools", [{"type": "shell", "environment": {"type": "container_auto"}}]),
    ("responses", "tools", [{"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}]),
    ("responses", "tools", [{"type": "code_interpreter"}]), ("responses", "tools", [{"type": "image_generation"}]),
    ("responses", "previous_response_id", "resp_1"), ("responses", "conversation", "conv_1"),
    ("responses", "prompt", {"id": "pmpt_1"}), ("responses", "background", True),
    ("responses", "context_management", [{}]),
    ("responses", "input", [{"type": "item_reference", "id": "x"}]), ("responses", "input", [{"id": "rs_1"}]),
    ("responses", "input", [{"type": "reasoning", "id": "rs_1", "summary": []}]),
    ("responses", "input", [{"type": "compaction", "encrypted_content": "x"}]),
    ("responses", "input", [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]),
    ("responses", "input", [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]),
    ("responses", "reasoning", {"mode": "pro"}), ("embeddings", "stream", True), ("embeddings", "x", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "value"), REFUSED)
def test_what_no_list_allows_is_refused_or_is_known_to_lie_at_the_vendor(name: str, field: str, value: object) -> None:
    raw = json.dumps({**HONEST[name], field: value}).encode()
    try:
        assert read_request(raw, SURFACES[name]).stored
    except RequestRefused as refused:
        assert str(refused)


async def test_what_no_list_allows_is_a_400_and_no_call(relay: TestRelay) -> None:
    for name, field, value in REFUSED:
        status, answer = await relay.post(SURFACES[name].path, {**HONEST[name], field: value})
        assert status == 400, (name, field, value, answer)
        error = json.loads(answer)["error"]
        assert error["type"] == "invalid_request_error" and error["message"]
    assert relay.standin.requests == [] and relay.ledger.calls == [] and not relay.ledger._holds


async def test_on_its_owners_own_key_an_agent_may_name_what_lies_there() -> None:
    """And the model's window is held for it."""
    async with relaying(byok="owners") as relay:
        status, answer = await relay.post(PATHS["responses"], {**HONEST["responses"], "previous_response_id": "resp_1"})
        assert status == 200, answer
        [written] = await relay.ended()
        assert written.reservation.amount >= 200_000 * written.price.input
        assert (await relay.post(PATHS["chat"], {**HONEST["chat"], "plugins": []}))[0] == 400


@pytest.mark.parametrize("name", HONEST)
async def test_a_bound_of_null_is_none_and_an_honest_request_passes(relay: TestRelay, name: str) -> None:
    body = {**HONEST[name], **({"n": None, "stream_options": None, "tools": None} if name == "chat" else {})}
    status, answer = await relay.post(SURFACES[name].path, body)
    assert status == 200, answer


ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"stream": True, "stream_options": {"include_usage": True}, "store": False, "reasoning_effort": "low",
              "thinking": {"type": "enabled"}, "tool_stream": True, "chat_template_kwargs": {"enable_thinking": True},
              "tools": [ONE_TOOL], "tool_choice": "auto", "parallel_tool_calls": True, "prompt_cache_key": "k",
              "prompt_cache_retention": "24h", "temperature": 0.1, "stop": ["x"], "seed": 1, "user": "u",
              "response_format": {"type": "json_object"}, "modalities": ["text"],
              "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [
                  {"type": "text", "text": "x"}, {"type": "image_url",
                  "image_url": {"url": "data:image/png;base64,AA"}}]},
                  {"role": "assistant", "content": None, "reasoning_content": "r", "annotations": [], "audio": None,
                   "refusal": None, "tool_calls": [{"id": "c", "type": "function",
                                                    "function": {"name": "f", "arguments": "{}"}}]},
                  {"role": "tool", "tool_call_id": "c", "content": "ok"}]}),
    ("messages", {"stream": True, "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
                  "thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"},
                  "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
                  "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"Type": {}, "type": {}}}},
                            {"type": "bash_20250124", "name": "bash"}],
                  "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [
                      {"type": "thinking", "thinking": "t", "signature": "s"},
                      {"type": "tool_use", "id": "c", "name": "f", "input": {"Source": 1}}]},
                      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "ok"},
                                                   {"type": "text", "text": "x"}]}]}),
    ("responses", {"stream": True, "store": False, "include": ["reasoning.encrypted_content"],
                   "reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"},
                   "tools": [{"type": "function", "name": "f"}, {"type": "shell", "environment": {"type": "local"}}],
                   "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                             {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e"},
                             {"type": "message", "id": "m", "role": "assistant", "status": "completed",
                              "content": [{"type": "output_text", "text": "y", "annotations": []}]},
                             {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}"},
                             {"type": "function_call_output", "call_id": "c", "output": "ok"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), ALLOWED)
def test_what_runtimes_and_the_official_clients_send_is_read(name: str, more: dict[str, Any]) -> None:
    raw = json.dumps({**HONEST[name], **more}).encode()
    request = read_request(raw, SURFACES[name])
    assert request.model == "main" and not request.stored and request.raw == raw
    assert pickle.loads(pickle.dumps(read_body(name, raw))) == read_body(name, raw)


@pytest.mark.parametrize("twice", ["messages", "tools", "mcp_servers", "prediction", "stream_options"])
async def test_given_twice_is_refused(relay: TestRelay, twice: str) -> None:
    raw = json.dumps(HONEST["chat"])[:-1] + f', "{twice}": [], "{twice}": []}}'
    status, answer = await relay.post(PATHS["chat"], raw.encode())
    assert status == 400 and b"twice" in answer
    inside = b'{"model":"main","max_tokens":9,"messages":[],"tools":[{"type":"function","type":"mcp"}]}'
    assert (await relay.post(PATHS["chat"], inside))[0] == 400


async def test_several_lines_of_a_header_all_count(relay: TestRelay) -> None:
    lines = "anthropic-beta: interleaved-thinking-2025-05-14\r\nAnthropic-Beta: pdfs-2024-09-25, effort-2025-11-24\r\n"
    assert (await raw_post(relay, PATHS["messages"], HONEST["messages"], lines))[0] == 200
    passed = relay.standin.headers[-1]["anthropic-beta"].replace(" ", "").split(",")
    assert passed == ["interleaved-thinking-2025-05-14", "pdfs-2024-09-25", "effort-2025-11-24"]
    for beta in ("fast-mode-2026-02-01", "files-api-2025-04-14", "code-execution-2025-05-22", "brand-new-2027-01-01"):
        lines = f"anthropic-beta: pdfs-2024-09-25\r\nanthropic-beta: {beta}\r\n"
        status, answer = await raw_post(relay, PATHS["messages"], HONEST["messages"], lines)
        assert status == 400 and beta.encode() in answer
    assert (await raw_post(relay, PATHS["chat"], HONEST["chat"], "openai-beta: realtime=v1\r\n"))[0] == 400
    twice = "anthropic-version: 2023-06-01\r\nanthropic-version: 2020-01-01\r\n"
    assert (await raw_post(relay, PATHS["messages"], HONEST["messages"], twice))[0] == 400


async def raw_post(
    relay: TestRelay, path: str, body: object, lines: str = "", key: str = KEY, version: str = "1.1"
) -> tuple[int, bytes]:
    """(its status, all the rest)."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n{lines}\r\n".encode() + data)
    async with asyncio.timeout(patient(20)):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize("name", PATHS)
async def test_packed_bodies_are_unpacked_or_refused_in_the_surfaces_own_words(relay: TestRelay, name: str) -> None:
    data = json.dumps(HONEST[name]).encode()
    deflated = zlib.compressobj(wbits=-15)
    raw_deflate = deflated.compress(data) + deflated.flush()
    for coding, packed in (
        ("gzip", gzip.compress(data)), ("x-gzip", gzip.compress(data)), ("GZIP", gzip.compress(data)),
        ("deflate", zlib.compress(data)), ("deflate", raw_deflate), ("identity", data), ("", data),
    ):  # fmt: skip
        assert (await raw_post(relay, PATHS[name], packed, f"Content-Encoding: {coding}\r\n"))[0] == 200, coding
    for coding in ("zstd", "br", "compress", "gzip, gzip", "gzip, br"):
        status, answer = await raw_post(relay, PATHS[name], data, f"Content-Encoding: {coding}\r\n")
        head, _, said = answer.partition(b"\r\n\r\n")
        assert status == 415 and head.startswith(b"HTTP/1.1 ") and b"accept-encoding: gzip" in head.lower()
        assert json.loads(said)["error"]["type"] == "invalid_request_error"
    for broken in (b"", data, gzip.compress(data)[:-4], gzip.compress(data) + b"x", gzip.compress(data) * 2):
        status, answer = await raw_post(relay, PATHS[name], broken, "Content-Encoding: gzip\r\n")
        assert status == 400 and b"invalid_request_error" in answer


async def test_a_bomb_is_not_unpacked(relay: TestRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "UNPACKED_BYTES_FREE", 10_000)
    bomb = gzip.compress(b" " * 5_000_000)
    status, answer = await raw_post(relay, PATHS["chat"], bomb, "Content-Encoding: gzip\r\n")
    assert status == 413 and b"unpacked" in answer
    assert relay.server._bodies._size == 0 and relay.server._bodies._of_key == {}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", PATHS)
async def test_another_encoding_is_a_400_after_the_key(relay: TestRelay, name: str, encoding: str) -> None:
    raw = json.dumps(HONEST[name]).encode(encoding)
    status, answer = await relay.post(PATHS[name], raw)
    assert status == 400 and json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert (await relay.post(PATHS[name], raw, {"authorization": "Bearer nobody"}))[0] == 401


async def test_a_client_that_asks_first_is_answered_when_key_and_size_are_judged(relay: TestRelay) -> None:
    body = json.dumps(HONEST["chat"]).encode()
    for key, length, expected, wanted in (
        (KEY, len(body), "100-continue", b"HTTP/1.1 100 Continue"),
        ("nobody", len(body), "100-continue", b"HTTP/1.1 401 "),
        (KEY, bodies.BODY_BYTES_MAX + 1, "100-continue", b"HTTP/1.1 413 "),
        (KEY, len(body), "a-cake", b"HTTP/1.1 417 "),
    ):  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        head = f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nExpect: {expected}\r\n"
        writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
        async with asyncio.timeout(patient(10)):
            line = await reader.readline()
            assert line.startswith(wanted), line
            if b" 100 " in line:
                assert await reader.readline() == b"\r\n"
                writer.write(body)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_what_is_no_http_is_answered_in_json(relay: TestRelay) -> None:
    for garbage in (b"GET\r\n\r\n", b"POST /v1/messages HTTP/1.1\r\nno colon\r\n\r\n", b"\x16\x03\x01 tls\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(garbage)
        async with asyncio.timeout(patient(10)):
            answer = await reader.read()
        assert answer == b"" or json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        writer.close()


async def test_one_keys_bodies_are_bounded_and_the_places_come_back(
    relay: TestRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODIES_BYTES_PER_KEY_MAX", 1_000)
    status, answer = await relay.post(PATHS["chat"], chat("x" * 1_000))
    assert status == 503 and b"Too much" in answer
    monkeypatch.setattr(bodies, "BODIES_BYTES_PER_KEY_MAX", 100_000)
    for _ in range(3):
        assert (await relay.post(PATHS["chat"], chat("model: say x" + " " * 40_000)))[0] == 200
    assert relay.server._bodies._size == 0 and relay.server._bodies._of_key == {}


def nasty(size: int) -> dict[str, bytes]:
    """Bodies of so many bytes, each the most work of its kind."""
    head = b'{"model":"main","stream_options":{},"messages":['
    kinds = {
        "objects": b'{"a":1}', "short": b'{"role":"user","content":"a"}', "lists": b"[]", "empty": b"{}",
        "numbers": b"1",
        "parts": b'{"content":[{},{},{},{}]}', "images": b'{"content":[{"type":"image_url","image_url":"data:"}]}',
        "names": b'{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1}',
    }  # fmt: skip
    made = {kind: head + b",".join([piece] * (size // (len(piece) + 1))) + b"]}" for kind, piece in kinds.items()}
    text = b'{"model":"main","messages":[{"role":"user","content":"%s"}]}'
    for kind, piece in {
        "escapes": b"\\n",
        "unicode": b"\\u00e9",
        "quoted": b'\\"a\\":{[',
        "accents": "ü".encode(),
    }.items():
        made[kind] = text % (piece * (size // len(piece)))
    made["deep"] = b'{"model":"main","messages":' + b"[" * size
    made["metadata"] = b'{"model":"main","metadata":{' + b",".join(b'"%d":1' % n for n in range(size // 10)) + b"}}"
    return made


@pytest.mark.parametrize("kind", nasty(100))
def test_what_is_read_on_the_loop_is_little_work(kind: str) -> None:
    """Not by the clock: the work grows with `effort`, whatever the bytes,
    and the loop does no more than its bound of it.
    The largest of each kind that is read here is a small part of what another process would be given."""
    size = 64
    while size < 2_000_000 and effort(nasty(size)[kind]) <= INLINE_EFFORT_MAX:
        size *= 2
    raw = nasty(size // 2)[kind]
    assert effort(raw) <= INLINE_EFFORT_MAX
    objects = raw.count(b"{")
    assert objects <= 2_500 and raw.count(b",") <= 34_000 and len(raw) <= 5_000_000


class _Counted(Workers):
    jobs = 0

    async def run(self, *given: Any, **named: Any) -> Any:
        self.jobs += 1
        return await super().run(*given, **named)


async def test_nothing_that_is_sent_holds_the_loop(relay: TestRelay) -> None:
    """By none, by another's key, by its own: the loop goes on, and nothing is a failure of ours."""
    workers = _Counted()
    relay.server._calls._readers._readers = workers
    asked: list[asyncio.Task[tuple[int, bytes]]] = []
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    beating = asyncio.create_task(beat())
    try:
        await relay.post(PATHS["chat"], chat("model: say x"))
        for raw in nasty(400_000).values():
            for key in ("nobody", KEY):
                before = beats
                asked.append(asyncio.create_task(raw_post(relay, PATHS["chat"], raw, key=key)))
                status, answer = await asked[-1]
                assert status == (401 if key == "nobody" else status) and status < 500, answer[:300]
                assert beats - before > 10  # it waited for nobody
        assert workers.jobs >= 5
    finally:
        beating.cancel()
        await workers.close()


async def test_what_is_large_is_read_elsewhere_whatever_it_says() -> None:
    """To count what a body holds takes a while, too."""
    workers = _Counted()
    try:
        raw = b'{"model":"main","input":"' + b"x" * INLINE_BYTES_MAX + b'"}'
        assert effort(raw) <= INLINE_EFFORT_MAX
        request = await Reading(workers).read(SURFACES["embeddings"], Asked(b"k", raw, {}, "", ""))
        assert (request.model, request.raw, workers.jobs) == ("main", raw, 1)
    finally:
        await workers.close()


@pytest.mark.parametrize("pause", [0, 1000])
async def test_a_body_in_chunks_of_a_byte_arrives_whole_and_others_have_their_turn(pause: int) -> None:
    """Also where the next call follows in the same packet."""
    body = json.dumps(HONEST["chat"] | {"user": "x" * 20_000}).encode()
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % KEY.encode()
    call = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked
    last = head + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    async with relaying() as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        raw = call + call + last
        writer.write(raw[: len(raw) - pause])
        if pause:
            await writer.drain()
            writer.write(raw[len(raw) - pause :])
        answers = await reader.read()
        writer.close()
    assert answers.count(b"HTTP/1.1 200") == 2 and answers.count(b"HTTP/1.1 400") == 1
