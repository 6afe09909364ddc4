"""Answers as no vendor documents them, each after one that was seen: what the client hears, what is charged."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.relay.relays import PRICE, target
from tests.relay.wire import HANG, HANG_UP, LAST_CHUNK, Step, Wait, WireRelay, answer_head, chunk, in_no_time, sse
from tinyfat.domain.usage import cost
from tinyfat.ports.usage import Settlement
from tinyfat.relay.vendors import WORKED_SECONDS

SSE, JSON = "text/event-stream", "application/json"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
DONE = b"data: [DONE]\n\n"
ASKED = {"model": "main", "max_tokens": 400, "messages": [{"role": "user", "content": "x" * 900}]}
QUIET_SECONDS_MAX = 9_000.0  # of the clock that these tests turn by themselves
Heard = tuple[int, bytes, list[Settlement], int]


def said(text: str, **more: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more})


FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def whole(body: object, status: int = 200, kind: str = JSON) -> list[Step]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [answer_head(kind, status), chunk(raw), LAST_CHUNK]


def stream(*events: bytes, kind: str = SSE) -> list[Step]:
    return [answer_head(kind), *map(chunk, events), LAST_CHUNK]


GOOD = whole({"choices": [{"message": {"content": "fine"}}], "usage": USAGE})
GOOD_STREAM = stream(said("fine"), FINISH, sse({"choices": [], "usage": USAGE}), DONE)


def heard(
    *scripts: list[Step], streamed: bool = True, path: str = CHAT, gone_after: float | None = None, vendors: int = 1,
    **more: Any,
) -> Heard:  # fmt: skip
    """(status, all that came, what was settled, how often a vendor was asked)."""

    async def main() -> Heard:
        targets = [replace(target(f"http://vendor{number}/v1"), vendor=f"v{number}") for number in range(vendors)]
        relay = WireRelay(scripts, targets)
        client = relay.ask(path, json.dumps({**ASKED, "stream": streamed, **more}).encode())
        if gone_after is None:
            await client.ended()
        else:
            await asyncio.sleep(gone_after)
            client.hang_up()
        async with asyncio.timeout(QUIET_SECONDS_MAX):
            while relay.ledger._holds or relay.calls._answering._ending:
                await asyncio.sleep(10)
        assert all(number == 1 for number in relay.ledger.ends.values())
        settled = [written.settlement for written in relay.ledger.calls]
        return client.status, client.came, settled, len(relay.vendor.calls)

    return in_no_time(main())


NOTHING_IN: dict[str, tuple[bool, list[Step]]] = {
    "null": (False, whole(b"null")),
    "an empty object": (False, whole({})),
    "a list": (False, whole([])),
    "a word": (False, whole(b"upstream connect error", kind="text/plain")),
    "a redirect": (False, whole({"location": "elsewhere"}, 302)),
    "no choices": (False, whole({"choices": [], "usage": None})),
    "MiniMax's status": (False, whole({"base_resp": {"status_code": 1008, "status_msg": "no money"}, "choices": []})),
    "an error in the choice": (False, whole({"choices": [{"message": {"content": ""}, "finish_reason": "error",
                                                         "error": {"code": 502, "message": "busy"}}]})),
    "errors": (False, whole({"errors": [{"message": "no"}]})),
    "a stream of [DONE] alone": (True, stream(DONE)),
    "comments alone": (True, stream(b": keep-alive\n\n", b": keep-alive\n\n")),
    "a role alone": (True, stream(sse({"choices": [{"delta": {"role": "assistant"}}]}), DONE)),
    "MiniMax's status, streamed": (True, stream(sse({"base_resp": {"status_code": 1002, "status_msg": "slow"}}))),
    "an error in the streamed choice": (True, stream(sse({"choices": [{"index": 0, "delta": {"content": ""},
                                        "finish_reason": "error", "error": {"code": 429, "message": "busy"}}]}), DONE)),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING_IN)
def test_a_200_that_holds_nothing_is_a_failure_and_the_next_vendor_is_asked(name: str) -> None:
    streamed, script = NOTHING_IN[name]
    status, came, settled, _ = heard(script, streamed=streamed)
    assert status >= 400 and b'"error"' in came and settled == []
    status, came, settled, asked = heard(script, GOOD_STREAM if streamed else GOOD, streamed=streamed, vendors=2)
    assert status == 200 and b"fine" in came and asked == 2
    assert [(one.vendor, one.usage.output) for one in settled] == [("v1", 20)]


def test_what_a_failure_inside_a_200_says_is_passed_on() -> None:
    for name, words in (("MiniMax's status", b"no money"), ("an error in the choice", b"busy")):
        _, came, _, _ = heard(NOTHING_IN[name][1], streamed=False)
        assert words in came


@pytest.mark.parametrize("status", [408, 502, 504, 520, 524])
@pytest.mark.parametrize("after", [WORKED_SECONDS - 1, WORKED_SECONDS + 1])
def test_a_gateway_that_heard_nothing_for_long_may_hide_a_vendor_that_worked(status: int, after: float) -> None:
    script: list[Step] = [Wait(after), *whole(b"<html>", status, "text/html")]
    answered, _, settled, _ = heard(script)
    assert answered >= 400
    assert [(one.usage.estimated, one.usage.output) for one in settled] == ([(True, 400)] if after > 10 else [])


@pytest.mark.parametrize("status", [400, 415, 422, 500, 501])
@pytest.mark.parametrize("inside", [False, True])
def test_whoever_names_stream_options_in_its_refusal_is_asked_without(status: int, inside: bool) -> None:
    words = {"error": {"message": "got an unexpected keyword argument 'stream_options'", "code": status}}
    refusal = stream(sse(words)) if inside else whole(words, status)
    answered, came, settled, asked = heard(refusal, stream(said("fine"), FINISH, DONE))
    assert answered == 200 and b"fine" in came and asked == 2
    assert [(one.usage.estimated, one.usage.output) for one in settled] == [(True, 4)]


def test_a_vendor_that_repeats_the_request_in_its_errors_does_not_refuse_stream_options() -> None:
    """It is asked once more in vain, and for its usage the next time."""
    refusal = whole({"detail": "too long", "input": {"stream_options": {"include_usage": True}}}, 422)

    async def main() -> list[bool]:
        relay = WireRelay([refusal, refusal, GOOD_STREAM], [target("http://vendor/v1")])
        for _ in range(2):
            await relay.ask(CHAT, json.dumps({**ASKED, "stream": True}).encode()).ended()
        return [b"stream_options" in call.body for call in relay.vendor.calls]

    assert in_no_time(main()) == [True, False, True]


USAGES: dict[str, tuple[dict[str, Any], int]] = {  # by the vendor's own words; nano-dollars
    "the total alone shows what was thought": ({"prompt_tokens": 50, "completion_tokens": 2, "total_tokens": 352},
                                               50 * 300 + 302 * 1200),
    "half inside": ({"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 100,
                     "completion_tokens_details": {"reasoning_tokens": 20}}, 50 * 300 + 50 * 1200),
    "the cache beside, and a total": ({"inputTokens": 50, "outputTokens": 9, "cacheReadInputTokens": 40,
                                       "totalTokens": 99}, 50 * 300 + 40 * 30 + 9 * 1200),
    "the cache inside, and a total": ({"prompt_tokens": 50, "completion_tokens": 9, "cache_read_input_tokens": 40,
                                       "total_tokens": 59}, 10 * 300 + 40 * 30 + 9 * 1200),
    "two words for the cache": ({"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59,
                                 "prompt_tokens_details": {"cached_tokens": 40}, "prompt_cache_hit_tokens": 10},
                                40 * 300 + 10 * 30 + 9 * 1200),
    "more cached than taken": ({"prompt_tokens": 50, "completion_tokens": 9,
                                "prompt_tokens_details": {"cached_tokens": 60}}, 50 * 300 + 60 * 30 + 9 * 1200),
    "ticks": ({**USAGE, "cost_in_usd_ticks": 10**8}, 10**7),
    "a bill in a text": ({**USAGE, "cost": "0.01"}, 10**7),
    "a bill that is not believed": ({**USAGE, "cost": 10**9}, 50 * 300 + 20 * 1200),
    "a bill that is none": ({**USAGE, "cost": float("nan")}, 50 * 300 + 20 * 1200),
    "searches": ({**USAGE, "server_tool_use": {"web_search_requests": 2}}, 50 * 300 + 20 * 1200 + 2 * 50_000_000),
    "writing for an hour": ({"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91,
                             "prompt_tokens_details": {"cache_write_tokens": 80}}, 10 * 300 + 80 * 375 + 1200),
    "by models": ({"a": {"input_tokens": 50, "output_tokens": 20}, "b": {"input_tokens": 1, "output_tokens": 1}},
                  50 * 300 + 20 * 1200),
}  # fmt: skip


@pytest.mark.parametrize("name", USAGES)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_usage_is_charged_by_what_it_says_to_the_nano_dollar(name: str, streamed: bool) -> None:
    """No less; and no more than a token of output more, where money is written down as tokens."""
    usage, bill = USAGES[name]
    body = whole({"choices": [{"message": {"content": "hi"}}], "usage": usage})
    script = stream(said("hi"), FINISH, sse({"choices": [], "usage": usage}), DONE) if streamed else body
    _, _, [settled], _ = heard(script, streamed=streamed)
    assert bill <= cost(settled.usage, PRICE.base) < bill + PRICE.base.output


STREAMS: dict[str, tuple[list[bytes], int]] = {  # and tokens of output
    "steps of one": ([said("a", usage={"prompt_tokens": 50, "completion_tokens": 1})] * 6 + [FINISH, DONE], 6),
    "sums that pause": ([said("a", usage={"prompt_tokens": 50, "completion_tokens": number // 2 + 1})
                         for number in range(6)] + [FINISH, DONE], 3),
    "the same twice at the end": ([said("hello"), FINISH, *[sse({"choices": [], "usage": USAGE})] * 2, DONE], 20),
    "two choices, each its own": ([sse({"choices": [{"index": n, "delta": {"content": "a"}, "usage": USAGE}
                                                    for n in range(2)]}), FINISH, DONE], 40),
    "a list": ([said("hello"), FINISH, sse({"choices": [], "usage": [USAGE, USAGE]}), DONE], 40),
    "in the delta": ([said("a"), sse({"choices": [{"delta": {"usage": USAGE}, "finish_reason": "stop"}]}), DONE], 20),
    "behind a byte mark, over two lines": (
        [b"\xef\xbb\xbf" + said("a"), FINISH, b'data: {"choices":[],\ndata: "usage":%s}\n\n' %
         json.dumps(USAGE).encode(), DONE], 20),
    "no UTF-8 beside it": ([said("a"), FINISH, b'data: {"choices":[],"x":"\xff","usage":%s}\n\n' %
                            json.dumps(USAGE).encode(), DONE], 20),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_usage_in_a_stream_is_added_up_as_it_was_meant(name: str) -> None:
    events, made = STREAMS[name]
    _, came, [settled], _ = heard(stream(*events))
    assert settled.usage.output == made and b"[DONE]" in came


@pytest.mark.parametrize("then", [HANG, HANG_UP])
def test_a_vendor_that_stays_on_the_line_after_its_last_word_keeps_nobody_waiting(then: str) -> None:
    events = [said("fine"), FINISH, sse({"choices": [], "usage": USAGE}), DONE]
    script: list[Step] = [answer_head(SSE), *map(chunk, events), then]

    async def main() -> float:
        relay = WireRelay([script], [target("http://vendor/v1")])
        loop = asyncio.get_running_loop()
        began = loop.time()
        _, came = await relay.ask(CHAT, json.dumps({**ASKED, "stream": True}).encode()).ended()
        assert b"data: [DONE]\n\n" in came and came.endswith(b"\r\n0\r\n\r\n")
        assert [one.settlement.outcome for one in relay.ledger.calls] == ["ok"]
        return loop.time() - began

    assert in_no_time(main()) < 10


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (CHAT, sse({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 1}})),
        (CHAT, sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 50, "completion_tokens": 1}})),
        (MESSAGES, sse({"type": "message_delta", "delta": {}, "usage": {"input_tokens": 50, "output_tokens": 1}})),
    ],
)  # fmt: skip
def test_to_hang_up_at_the_first_of_several_usages_saves_nothing(path: str, event: bytes) -> None:
    """Of two choices the first may have ended; a vendor may count at first what it has taken."""
    last = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 333}})
    if path == CHAT:
        last = sse({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 333}}) + DONE
    script: list[Step] = [answer_head(SSE), chunk(event), Wait(3), chunk(last), LAST_CHUNK]
    _, _, [settled], _ = heard(script, path=path, gone_after=1.5)
    assert (settled.outcome, settled.usage.output) == ("vanished", 333)


def test_json_that_breaks_off_where_the_answer_ends_was_made_to_its_end() -> None:
    """An HTTP/1.0 proxy says no length: it looks whole."""
    _, _, [settled], _ = heard(whole(b'{"choices":[{"message":{"content":"I th'), streamed=False)
    assert settled.usage.estimated and settled.usage.output == 400
