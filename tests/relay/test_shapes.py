"""The shapes alone: what they make of bytes, wherever the network cut them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.relays import target
from tinyfat.domain.usage import Usage
from tinyfat.drivers.inference.vendors import VENDORS
from tinyfat.ports.inference import Target
from tinyfat.relay.json_body import RequestRefused
from tinyfat.relay.request import bound, read_request, upstream_body
from tinyfat.relay.shapes import sse
from tinyfat.relay.shapes.chat import Chat
from tinyfat.relay.shapes.embeddings import Embeddings
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.shapes.surface import Bound, Surface
from tinyfat.relay.shapes.surfaces import SURFACES
from tinyfat.standins import model_anthropic, model_openai, model_responses
from tinyfat.standins.model_answer import Say

TARGET = replace(target("http://127.0.0.1:9/v1"), model="claude-sonnet-4-5")  # 5,000 tokens an image
TEXT = 'täglich \r\n\n data: [DONE] "usage": {1} \u2028 und weiter'
SAY = Say(TEXT)
TOKENS = (31, 17)
STREAMS: list[tuple[Surface, bytes]] = [
    (Chat(), "".join(model_openai.events(SAY, "m", TOKENS)).encode()),
    (Messages(), "".join(model_anthropic.events(SAY, "m", TOKENS)).encode()),
    (Responses(), "".join(model_responses.events(SAY, "m", TOKENS)).encode()),
]
NAMES = [surface.name for surface, _ in STREAMS]


def held(surface: Surface, fields: dict[str, Any], size: int, at: Target) -> Bound:
    """What is held for these fields, were the request so many bytes long."""
    request = read_request(json.dumps({"model": "main", **fields}).encode(), surface)
    return bound(replace(request, weight=replace(request.weight, size=size)), at)


def cut_at(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def through(surface: Surface, pieces: Sequence[bytes], strip: bool = False) -> tuple[bytes, bytes, Any]:
    """(what left at once, what waited for the settlement, the reader)."""
    reader = surface.stream(strip)
    at_once = b"".join(reader.feed(piece) for piece in pieces)
    return at_once, reader.end(), reader


@pytest.mark.parametrize(("surface", "stream"), STREAMS, ids=NAMES)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@given(places=st.lists(st.integers(0, 10_000), max_size=60))
@settings(max_examples=60)
def test_wherever_it_is_cut_a_stream_passes_byte_for_byte_and_is_counted(
    surface: Surface, stream: bytes, newline: bytes, places: list[int]
) -> None:
    wire = stream.replace(b"\n", newline)
    at_once, waited, reader = through(surface, cut_at(wire, places))
    assert at_once + waited == wire
    assert reader.finished
    assert reader.usage == Usage(*TOKENS)
    assert waited
    assert sse.split(waited)[0] == sse.split(wire)[-1]  # all but the last event left at once


@given(places=st.lists(st.integers(0, 10_000), max_size=60))
@settings(max_examples=60)
def test_the_usage_nobody_asked_for_is_taken_out_and_nothing_else(places: list[int]) -> None:
    _, wire = STREAMS[0]
    at_once, waited, reader = through(Chat(), cut_at(wire, places), strip=True)
    without = "".join(model_openai.events(SAY, "m", None)).encode()
    assert at_once + waited == without
    assert reader.usage == Usage(*TOKENS)


@pytest.mark.parametrize(("surface", "stream"), STREAMS, ids=NAMES)
@given(end=st.integers(0, 10_000))
@settings(max_examples=60)
def test_a_stream_cut_anywhere_counts_what_came(surface: Surface, stream: bytes, end: int) -> None:
    part = stream[: end % len(stream)]
    at_once, waited, reader = through(surface, [part])
    assert at_once + waited == part
    assert not reader.finished or part.rstrip().endswith((b"[DONE]", b"}"))
    assert reader.text_bytes <= len(TEXT.encode())
    assert through(surface, [stream])[2].text_bytes == len(TEXT.encode())


@pytest.mark.parametrize("surface", [surface for surface, _ in STREAMS], ids=NAMES)
@given(pieces=st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([
    b"data: [DONE]\n\n", b'data: {"usage": {}}\n\n', b'data: {"type":"message_stop"}', b"\r\n\r\n", b"\n\n", b"\r\r",
    b'data: {"usage": {"prompt_tokens": -1, "completion_tokens": 1e400}, "choices": 7}\n\n',
    b'data: {"type": "message_delta", "usage": [[[]]], "delta": 7}\n\n', b'data: {"type":"response.completed"}\n\n',
    b'data: {"type":"message_start","message":{"usage":{"input_tokens":true,"output_tokens":"x"}}}\n\n',
])), max_size=30))  # fmt: skip
@settings(max_examples=150)
def test_whatever_a_vendor_sends_it_goes_through(surface: Surface, pieces: list[bytes]) -> None:
    at_once, waited, reader = through(surface, pieces)
    assert at_once + waited == b"".join(pieces)
    assert reader.text_bytes >= 0
    assert reader.usage is None or (reader.usage.input > 0 and reader.usage.output >= 0)


def test_an_event_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 100)
    reader = Chat().stream(strip_usage=True)
    assert b"".join(reader.feed(b"x" * 60) for _ in range(4)) + reader.end() == b"x" * 240
    assert reader.text_bytes > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)
SAID = st.lists(st.fixed_dictionaries({"role": st.text(max_size=5), "content": st.text(max_size=9)}), max_size=3)
FIELDS = st.fixed_dictionaries({}, optional={
    "messages": SAID, "n": st.integers(1, 9), "max_tokens": st.integers(1, 99), "metadata": JSON, "stop": JSON,
    "stream_options": st.none() | st.just({}) | st.just({"include_usage": False}), "user": st.text(max_size=9),
    "logit_bias": st.just([{"model": "inner", "stream": True}]),
})  # fmt: skip


@given(fields=FIELDS, place=st.integers(0, 6), ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
@settings(max_examples=300)
def test_only_the_models_name_changes(fields: dict[str, Any], place: int, ascii_only: bool, indent: int | None) -> None:
    items = [(name, value) for name, value in fields.items() if name not in ("model", "stream")]
    items.insert(place, ("model", "main"))
    raw = json.dumps(dict(items), ensure_ascii=ascii_only, indent=indent).encode(errors="surrogatepass")
    request = read_request(raw, Chat())
    changed = upstream_body(request, "vendor/öther", ask_usage=False)
    assert json.loads(changed) == {**dict(items), "model": "vendor/öther"}
    start, end = request.spans["model"]
    assert changed == raw[:start] + b'"vendor/\\u00f6ther"' + raw[end:]


@given(fields=FIELDS)
@settings(max_examples=150)
def test_usage_is_asked_for_beside_whatever_else_is(fields: dict[str, Any]) -> None:
    body = {**fields, "model": "main", "stream": True}
    changed = json.loads(upstream_body(read_request(json.dumps(body).encode(), Chat()), "m", ask_usage=True))
    wanted = {**(body.get("stream_options") or {}), "include_usage": True}
    assert changed == {**body, "model": "m", "stream_options": wanted}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"7", b"{", b"\xff", b'{"model": 7}', b'{"model": ""}', b'{"stream": true}',
        b'{"model":"a","model":"b"}', b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":"m","max_tokens":1,"max_tokens":9}',
        b'{"model":"m","max_tokens":9,"max_t\\u006fkens":1}', b'{"model":"m","stream":"yes"}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_judged(raw: bytes) -> None:
    for surface in SURFACES.values():
        with pytest.raises(RequestRefused):
            read_request(raw, surface)


@given(raw=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for surface in SURFACES.values():
        with contextlib.suppress(RequestRefused):
            read_request(raw, surface)


@pytest.mark.parametrize("surface", [Chat(), Responses(), Messages(), Embeddings()], ids=lambda surface: surface.name)
@given(fields=st.dictionaries(st.sampled_from(
    ["messages", "input", "tools", "n", "max_tokens", "max_output_tokens", "max_completion_tokens", "stream_options",
     "thinking", "store", "prompt", "context_management", "reasoning", "system"]), JSON, max_size=8))  # fmt: skip
@settings(max_examples=150)
def test_hostile_requests_and_answers_are_bounded(surface: Surface, fields: dict[str, Any]) -> None:
    with contextlib.suppress(RequestRefused):
        found = held(surface, fields, 100, TARGET)
        assert found.input >= 100
        assert found.output >= 0
    assert surface.text_bytes(fields) >= 0
    usage = surface.usage(fields)
    assert usage is None or (usage.input > 0 and usage.cached + usage.cache_written <= usage.input)


LINK = "https://example.org/a.png"


@pytest.mark.parametrize(
    ("surface", "request_fields", "wanted"),
    [
        (Chat(), {"max_tokens": 9}, Bound(500, 9)),
        (Chat(), {"max_tokens": 9, "max_completion_tokens": 40}, Bound(500, 40)),
        (Chat(), {"max_tokens": 9, "n": 3}, Bound(500, 27)),
        (Chat(), {}, Bound(500, TARGET.output_max)),
        (Chat(), {"max_tokens": 9, "messages": [{"content": [{"type": "image_url", "image_url": {"url": LINK}}]}]},
         Bound(TARGET.window, 9)),
        (Chat(), {"max_tokens": 9, "messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
         Bound(5500, 9)),
        (Chat(), {"max_tokens": 9, "messages": [{"content": [{"type": "image_url", "image_url": {
            "url": "data:image/png;base64," + "A" * 78}}]}]}, Bound(5400, 9)),
        (Chat(), {"max_tokens": 9, "messages": [{"content": [{"type": "image_url", "image_url": {
            "url": "data:application/pdf;base64,AAAA"}}]}]}, Bound(TARGET.window, 9)),
        (Chat(), {"max_tokens": 9, "messages": [{"content": [{"type": "image_url", "image_url": "data:x"}] * 2}] * 9},
         Bound(500 + 18 * 5000, 9)),
        (Chat(), {"max_tokens": 9, "messages": [{"content": [{"type": "file", "file": {"file_data": "JVBERi0="}}]}]},
         Bound(TARGET.window, 9)),
        (Chat(), {"max_tokens": 9, "n": 2, "prediction": {"type": "content", "content": "x"}}, Bound(500, 1018)),
        (Messages(), {"max_tokens": 9, "tools": [{"name": "read"}, {"type": "custom", "name": "x"}]}, Bound(1500, 9)),
        (Messages(), {"max_tokens": 9, "tools": [{"type": "bash_20250124", "name": "bash"}]}, Bound(3500, 9)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "tool_result", "content": [
            {"type": "image", "source": {"type": "base64", "data": "x"}}]}]}]}, Bound(5499, 9)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "document", "source": {
            "type": "base64", "media_type": "application/pdf"}}]}]}, Bound(TARGET.window, 9)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "document", "source": {
            "type": "text", "data": "x"}}]}]}, Bound(500, 9)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "document", "source": {
            "type": "content", "content": [{"type": "image", "source": {"type": "base64"}}]}}]}]}, Bound(5500, 9)),
        (Responses(), {"max_output_tokens": 9, "input": [{"type": "function_call_output", "output": [
            {"type": "input_image", "image_url": LINK}]}]}, Bound(TARGET.window, 9)),
        (Responses(), {"max_output_tokens": 9, "input": [{"type": "function_call_output", "output": [
            {"type": "input_image", "image_url": "data:x"}]}]}, Bound(5500, 9)),
        (Responses(), {"max_output_tokens": 9, "input": [{"role": "user", "content": [
            {"type": "input_file", "file_data": "JVBERi0="}]}]}, Bound(TARGET.window, 9)),
        (Messages(), {"max_tokens": 9}, Bound(500, 9)),
        (Messages(), {"max_tokens": 9, "cache_control": {"type": "ephemeral", "ttl": "5m"}}, Bound(500, 9)),
        (Messages(), {"max_tokens": 9, "cache_control": {"type": "ephemeral", "ttl": "1h"}}, Bound(500, 9, hour=True)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "text", "text": "x", "cache_control": {
            "ttl": "1h"}}]}]}, Bound(500, 9, hour=True)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "document", "source": {"type": "url"}}]}]},
         Bound(TARGET.window, 9)),
        (Messages(), {"max_tokens": 9, "messages": [{"content": [{"type": "tool_result", "content": [
            {"type": "image", "source": {"type": "url"}}]}]}]}, Bound(TARGET.window, 9)),
        (Responses(), {"max_output_tokens": 9}, Bound(500, 9)),
        (Responses(), {"max_output_tokens": 9, "previous_response_id": "r"}, Bound(TARGET.window, 9)),
        (Responses(), {"max_output_tokens": 9, "input": [{"type": "item_reference", "id": "x"}]},
         Bound(TARGET.window, 9)),
        (Responses(), {"max_output_tokens": 9, "input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": LINK}]}]}, Bound(TARGET.window, 9)),
        (Embeddings(), {"input": "x"}, Bound(500, 0)),
    ],
)  # fmt: skip
def test_what_a_request_may_cost(surface: Surface, request_fields: dict[str, Any], wanted: Bound) -> None:
    assert held(surface, request_fields, 500, TARGET) == wanted


IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:x"}}


def tiles(base: int, tile: int) -> int:
    """OpenAI, "Images and vision": the largest image is scaled into 2048 x 768 pixels, eight tiles of 512 x 512."""
    return base + 8 * tile


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-4o-mini-2024-07-18", tiles(2_833, 5_667)),
        ("ft:gpt-4o-mini-2024-07-18:us::x", tiles(2_833, 5_667)),
        ("gpt-4o", tiles(85, 170)),
        ("gpt-4.1-2025-04-14", tiles(85, 170)),
        ("gpt-5", tiles(70, 140)),
        ("o1-pro", tiles(75, 150)),
        ("gpt-4.1-nano", 1_536 * 2.46),
        ("gpt-5-mini", 1_536 * 1.62),
        ("openai/gpt-5-nano", 1_536 * 2.46),
        ("gpt-5.4-mini", 1_536 * 1.62),
        ("o4-mini", 1_536 * 1.72),
        ("gpt-5.4", 10_000 * 1.2),
        ("gpt-5.5-2026-04-24", 10_000 * 1.2),
        ("gpt-5.6-luna", 30_000 * 2.46),
        ("gpt-6", 30_000 * 2.46),
        ("gpt-5.10", 30_000 * 2.46),
        ("claude-opus-4-7", 4_784),
        ("anthropic/claude-sonnet-4.5", 4_784),
        ("qwen2.5-vl-72b-instruct", 16_384),
        ("somebody-elses", 30_000 * 2.46),
    ],
)
def test_of_no_model_an_image_costs_more_than_is_held(model: str, most: float) -> None:
    of_model = replace(TARGET, model=model, input_max=1_000_000)
    found = [held(Chat(), {"messages": [{"content": [IMAGE] * n}]}, 500, of_model).input for n in (0, 1, 3)]
    assert found[0] == 500
    assert found[1] >= 500 + most
    assert found[2] - found[0] == 3 * (found[1] - found[0])


def test_what_is_held_for_an_image_is_no_more_than_known_models_can_cost() -> None:
    """The models of agents of ours, and those that owners' keys are usually for."""
    usual = {vendor.model: vendor for vendor in VENDORS if vendor.model}
    request = {"messages": [{"content": [IMAGE]}]}
    found = {model: held(Chat(), request, 500, replace(TARGET, model=model)).input for model in usual}
    assert set(found) == {"accounts/fireworks/models/minimax-m2p1", "claude-sonnet-4-5", "gpt-5-mini"}
    assert max(found.values()) <= 5_500
    assert found["accounts/fireworks/models/minimax-m2p1"] == 500


def test_where_images_are_dearer_than_their_place_in_the_window_it_is_no_bound() -> None:
    """gpt-4o-mini's take 85 + 170 a tile of 128,000 and are billed as 33 1/3 times as many."""
    mini = replace(TARGET, model="gpt-4o-mini", input_max=128_000)
    fitting = 128_000 // tiles(85, 170)
    by_value = held(Chat(), {"messages": [{"content": [IMAGE] * fitting}]}, 500, mini)
    assert by_value.input >= fitting * tiles(2_833, 5_667) > mini.window
    named = [{"type": "image_url", "image_url": {"url": LINK}}]
    assert held(Chat(), {"messages": [{"content": named}]}, 500, mini).input >= fitting * tiles(2_833, 5_667)
    assert held(Chat(), {}, 10**9, mini).input == mini.window
    assert held(Chat(), {"messages": [{"content": [IMAGE] * 9_999}]}, 500, TARGET).input == TARGET.window


def test_what_vendors_report() -> None:
    chat = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 5}}  # fmt: skip
    responses = {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 60},
                 "output_tokens_details": {"reasoning_tokens": 5}}  # fmt: skip
    messages = {"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 30}  # fmt: skip
    assert Chat().usage({"usage": chat}) == Usage(100, 20, 60, 0, 5)
    assert Responses().usage({"usage": responses}) == Usage(100, 20, 60, 0, 5)
    assert Messages().usage({"usage": messages}) == Usage(100, 20, 60, 30, 0)
    hour = messages | {"cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}}
    assert Messages().usage({"usage": hour}) == Usage(100, 20, 60, 30, 0, cache_written_1h=20)
    assert Embeddings().usage({"usage": {"prompt_tokens": 7}}) == Usage(7, 0)


def test_a_streams_last_count_does_not_forget_what_the_first_one_said() -> None:
    begun = {"input_tokens": 10, "output_tokens": 1, "cache_creation_input_tokens": 30,
             "cache_creation": {"ephemeral_1h_input_tokens": 20}}  # fmt: skip
    reader = Messages().stream(strip_usage=False)
    for event in (
        {"type": "message_start", "message": {"usage": begun}},
        {"type": "message_delta", "usage": {"output_tokens": 5, "input_tokens": 10, "cache_read_input_tokens": None}},
    ):
        reader.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    assert reader.usage == Usage(40, 5, cache_written=30, cache_written_1h=20)


def test_a_message_that_is_cut_keeps_the_input_the_vendor_counted() -> None:
    _, wire = STREAMS[1]
    reader = Messages().stream(strip_usage=False)
    reader.feed(wire[: wire.index(b"event: content_block_delta")])
    assert reader.usage is None
    assert reader.input_counted is not None
    assert reader.input_counted.input == TOKENS[0]


def test_however_deep_it_lies_an_image_is_counted() -> None:
    piece: dict[str, Any] = {"type": "image", "source": {"type": "base64", "data": "x"}}
    for _ in range(150):
        piece = {"type": "document", "source": {"type": "content", "content": [piece]}}
        piece = {"type": "tool_result", "content": [piece]}
    request = {"model": "m", "max_tokens": 9, "messages": [{"content": [piece]}]}
    assert held(Messages(), request, 500, TARGET) == Bound(5499, 9)  # less the letter that it is written in
