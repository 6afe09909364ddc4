"""What is charged after any ending is never less than what the vendor can bill: real relay, a vendor of raw bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.relays import KEY, NO_CAPS, PRICE, TestRelay, chat, listening, relaying, target
from tests.running import until
from tinyfat.domain.usage import Caps, cost
from tinyfat.relay.shapes.chat import Chat
from tinyfat.relay.shapes.embeddings import Embeddings
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.vendors import Waits

SSE, JSON = "text/event-stream", "application/json"
XAI = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 4010,
       "completion_tokens_details": {"reasoning_tokens": 3000}}  # fmt: skip
Speak = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def sse(*events: Any) -> bytes:
    return b"".join(b"data: %s\n\n" % (e if isinstance(e, bytes) else json.dumps(e).encode()) for e in events)


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


def head(kind: str | None, status: int = 200) -> bytes:
    typed = f"content-type: {kind}\r\n" if kind else ""
    return f"HTTP/1.1 {status} X\r\n{typed}connection: close\r\n\r\n".encode()


@asynccontextmanager
async def vendor(speak: Speak) -> AsyncIterator[tuple[str, list[bytes]]]:
    """(its base URL, the bodies it was sent)."""
    bodies: list[bytes] = []
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            serving.add(task)
        try:
            top = await reader.readuntil(b"\r\n\r\n")
            [length] = [line for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            bodies.append(await reader.readexactly(int(length.split(b":")[1])))
            await speak(bodies[-1], writer)
            await writer.drain()
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = listening()
    async with await asyncio.start_server(serve, sock=listener):
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", bodies
        finally:  # one that says nothing for ever would be found pending by the next test
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


@asynccontextmanager
async def answered_with(*pieces: bytes, waits: Waits | None = None, byok: str = "") -> AsyncIterator[TestRelay]:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)

    async with (
        vendor(speak) as (url, _),
        relaying({"v": [target(url)]}, waits=waits, byok=byok, owners_url=url) as relay,
    ):
        yield relay


async def asked(relay: TestRelay, stream: bool = True, **more: Any) -> tuple[int, bytes]:
    return await relay.post("/v1/chat/completions", chat("x", stream=stream, **more) | {"model": "v"})


@pytest.mark.parametrize("kind", [SSE, "text/plain", None, "Text/Event-Stream; charset=UTF-8", JSON])
async def test_what_was_asked_for_as_a_stream_is_one_whatever_it_is_called(kind: str | None) -> None:
    wire = sse(said("hi"), {"choices": [], "usage": XAI}, b"[DONE]")
    async with answered_with(head(kind), wire) as relay:
        _, answer = await asked(relay)
        [written] = await relay.ended()
        assert b"hi" in answer and b"[DONE]" in answer
        assert (written.settlement.usage.input, written.settlement.usage.output) == (1000, 3010)
        assert not written.settlement.usage.estimated and written.cost == 1000 * 300 + 3010 * 1200


@pytest.mark.parametrize("kind", [SSE, JSON, None])
async def test_a_whole_answer_where_a_stream_was_asked_is_counted(kind: str | None) -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "hi"}}], "usage": XAI}
    async with answered_with(head(kind), json.dumps(whole).encode()) as relay:
        _, answer = await asked(relay)
        assert json.loads(answer) == whole
        assert (await relay.ended())[0].settlement.usage.output == 3010


@pytest.mark.parametrize(
    "events",
    [
        [{"choices": [{"delta": {}, "finish_reason": "stop", "usage": XAI}]}, b"[DONE]"],  # Moonshot
        [{"choices": [], "x_groq": {"usage": XAI}}, b"[DONE]"],
        [b"[DONE]", {"choices": [], "usage": XAI}],
        [{"choices": [], "usage": None}, {"choices": [], "usage": XAI}, b"[DONE]"],
        [{"choices": [], "usage": XAI}, {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}],
    ],
)
async def test_the_usage_is_found_wherever_it_stands(events: list[Any]) -> None:
    async with answered_with(head(SSE), sse(said("hi"), *events)) as relay:
        await asked(relay)
        assert (await relay.ended())[0].settlement.usage.output == 3010


async def test_a_count_of_nothing_beside_text_is_an_estimate() -> None:
    first = said("", usage={"prompt_tokens": 50, "completion_tokens": 0})
    async with answered_with(head(SSE), sse(first, *[said("x" * 400)] * 100, b"[DONE]")) as relay:
        await asked(relay, max_tokens=30_000)
        usage = (await relay.ended())[0].settlement.usage
        assert usage.estimated and usage.input == 50 and usage.output == 30_000  # of 40,000 bytes what it was allowed


@pytest.mark.parametrize("stream", [True, False])
async def test_who_refuses_stream_options_is_asked_without_and_remembered(stream: bool) -> None:
    async def speak(body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"stream_options" in body:
            writer.write(head(JSON, 422) + b'{"detail":"stream_options: extra fields not permitted"}')
        else:
            writer.write(head(SSE) + sse(said("hi there"), b"[DONE]"))

    async with vendor(speak) as (url, bodies), relaying({"v": [target(url)]}) as relay:
        for number in range(2):
            more = {"stream_options": {"include_usage": True}} if stream and number else {}
            status, answer = await asked(relay, **more)
            assert status == 200 and b"hi there" in answer
        assert [b"stream_options" in body for body in bodies] == [True, False, False]
        for written in await relay.ended(2):
            assert written.settlement.usage.estimated and written.settlement.usage.output == 8


INSIDE: list[tuple[bool, bytes]] = [
    (True, head(SSE) + sse({"error": {"message": "overloaded", "code": 503}})),
    (True, head(SSE) + sse({"choices": [{"delta": {"role": "assistant"}}]}, {"error": {"message": "overloaded"}})),
    (True, head(SSE) + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'),
    (True, head(JSON) + b'{"error":{"message":"overloaded"}}'),
    (False, head(JSON) + b'{"error":{"message":"overloaded","type":"server_error"}}'),
    (False, head(JSON) + b'{"object":"error","message":"overloaded","code":500}'),
    (False, head(JSON) + b'{"base_resp":{"status_code":1004},"choices":null}'),
    (False, head("text/html") + b"<html>busy</html>"),
]


@pytest.mark.parametrize(("stream", "wire"), INSIDE)
async def test_an_error_inside_a_200_is_a_failure(stream: bool, wire: bytes) -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(wire)

    async with vendor(speak) as (url, _), relaying({"v": [target(url)]}) as relay:
        status, answer = await asked(relay, stream)
        assert status >= 400 and json.loads(answer)["error"]["message"]
        assert relay.ledger.calls == [] and (await relay.ledger.spend("ada")).reserved == 0
    async with vendor(speak) as (url, _), relaying() as relay:
        both = [target(url, "first"), target(relay.standin.url, "second")]
        async with relaying({"v": both}) as other:
            status, answer = await asked(other, stream)
            assert status == 200
            assert [written.vendor for written in await other.ended()] == ["second"]


async def test_an_error_after_text_is_a_cut_that_is_paid() -> None:
    async with answered_with(head(SSE), sse(said("eight by"), {"error": {"message": "overloaded"}})) as relay:
        _, answer = await asked(relay)
        [written] = await relay.ended()
        assert b"overloaded" in answer and written.settlement.outcome == "cut"
        assert written.settlement.usage.estimated and written.settlement.usage.output >= 8


@pytest.mark.parametrize("usage_comes", [True, False])
@pytest.mark.parametrize("events", [0, 1, 3])
async def test_to_hang_up_before_the_usage_saves_nothing(events: int, usage_comes: bool) -> None:
    gone = asyncio.Event()
    full = {"prompt_tokens": 20, "completion_tokens": 30_020,
            "completion_tokens_details": {"reasoning_tokens": 30_000}}  # fmt: skip

    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head(SSE) + sse(*[said("dense")] * events) if events else b"")
        await gone.wait()
        if usage_comes:
            writer.write((b"" if events else head(SSE)) + sse({"choices": [], "usage": full}, b"[DONE]"))
        else:
            await asyncio.Event().wait()

    waits = Waits(drain_silence=5.0 if usage_comes else 0.2)
    async with vendor(speak) as (url, bodies), relaying({"v": [target(url)]}, waits=waits) as relay:
        wire = json.dumps(chat("x", stream=True) | {"model": "v"}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        top = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(wire)}\r\n\r\n"
        )
        writer.write(top.encode() + wire)
        await until(_true(lambda: bool(bodies)), 10, "the vendor is asked")
        if events:
            await reader.readuntil(b"dense")
        writer.close()
        await until(_true(lambda: relay.server._calls._answering._drains._under_way != set()), 10, "it is drained")
        gone.set()
        [written] = await relay.ended()
        usage = written.settlement.usage
        assert written.settlement.outcome == "vanished"
        assert (usage.output, usage.estimated) == ((30_020, False) if usage_comes else (32_000, True))
        assert written.cost <= written.reservation.amount


def _true(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return look()

    return condition


async def test_a_vendor_that_was_silent_to_the_end_may_have_worked() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    waits = Waits(first_byte_streamed=0.2)
    async with vendor(speak) as (url, _), relaying({"v": [target(url)]}, waits=waits) as relay:
        status, _ = await asked(relay)
        [written] = await relay.ended()
        assert status == 502 and written.settlement.usage.estimated and written.settlement.usage.output == 32_000


async def test_what_a_silent_vendor_may_bill_is_spent_before_the_next_is_asked() -> None:
    """Where a cap then leaves nothing for the next, it is not asked."""
    amount = await _silent_and_then(NO_CAPS, asks_the_next=True)
    just_enough = replace(NO_CAPS, month=2 * amount)
    assert await _silent_and_then(just_enough, asks_the_next=True) == amount
    assert await _silent_and_then(replace(NO_CAPS, month=amount), asks_the_next=False) == amount


async def _silent_and_then(caps: Caps, asks_the_next: bool) -> int:
    """What the first of two vendors, which says nothing, was charged for."""
    over = asyncio.Event()

    async def says_nothing(_: bytes, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async def answers(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.writelines([head(SSE), sse(said("zebra"), {"choices": [], "usage": XAI}, b"[DONE]")])

    async with (
        vendor(says_nothing) as (url, _),
        vendor(answers) as (next_url, bodies),
        relaying({"v": [target(url), target(next_url)]}, caps=caps, waits=Waits(first_byte_streamed=0.2)) as relay,
    ):
        _, answer = await asked(relay)
        silent, *then = await relay.ended(1 + asks_the_next)
        over.set()
        assert (b"zebra" in answer, len(bodies), len(then)) == ((True, 1, 1) if asks_the_next else (False, 0, 0))
        assert silent.settlement.outcome == "silent" and silent.settlement.usage.estimated
        assert all(one.reservation.call_id != silent.reservation.call_id for one in then)
        assert silent.cost == silent.reservation.amount
        return silent.cost


@pytest.mark.parametrize("given", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT", "59", "nonsense"])
async def test_a_long_limit_of_the_vendors_is_told_and_not_waited_for(given: str) -> None:
    limit = head(JSON, 429).replace(b"connection:", f"retry-after: {given}\r\nconnection:".encode())
    async with answered_with(limit, b'{"error":{"message":"slow down"}}') as relay, relay.openai() as client:
        import openai

        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="v", messages=[{"role": "user", "content": "x"}])
        got = caught.value.response
        if given == "3600":
            assert b"ends in about 60 minutes, at 20" in got.content
            assert (got.headers["retry-after"], got.headers["x-should-retry"]) == ("60", "false")
        else:
            assert b"slow down" in got.content


COUNTS = st.one_of(st.integers(0, 5000), st.integers(0, 5000).map(str), st.integers(0, 5000).map(float), st.none(),
                   st.sampled_from([-1, True, "x", 10**30, float("nan"), [], {}]))  # fmt: skip
INNER = ("cached_tokens", "reasoning_tokens", "audio_tokens", "text_tokens", "rejected_prediction_tokens")
PLAIN = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "cached_tokens",
         "cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_tokens", "cost")  # fmt: skip
OF = ("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details")
DETAILS = st.fixed_dictionaries({}, optional=dict.fromkeys(INNER, COUNTS))
USAGES = st.fixed_dictionaries({}, optional={**dict.fromkeys(PLAIN, COUNTS), **dict.fromkeys(OF, DETAILS)})


def readable(value: object) -> int:
    if isinstance(value, str):
        return int(value) if value.isdigit() else 0
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 10**9
    return int(value) if sound else 0  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("surface", [Chat(), Responses(), Messages(), Embeddings()], ids=lambda surface: surface.name)
@given(usage=USAGES)
@settings(max_examples=200)
def test_no_reading_of_a_usage_is_dearer_than_what_is_counted(surface: Any, usage: dict[str, Any]) -> None:
    counted = surface.usage({"usage": usage})
    if counted is None:
        return
    assert counted.cached + counted.cache_written <= counted.input and counted.reasoning <= counted.output
    most = max(readable(usage.get(name)) for name in ("prompt_tokens", "input_tokens"))
    assert counted.input >= most
    assert counted.input + counted.output >= readable(usage.get("total_tokens"))
    if surface.name != "embeddings":
        made = [readable(usage.get(name)) for name in ("completion_tokens", "output_tokens", "reasoning_tokens")]
        inner = [readable((usage.get(name) or {}).get("reasoning_tokens")) for name in
                 ("completion_tokens_details", "output_tokens_details")]  # fmt: skip
        assert counted.output >= max(made + inner)
    assert cost(counted, PRICE.base) > 0
