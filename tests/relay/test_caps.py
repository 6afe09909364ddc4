"""How near to a cap an agent comes: what is held is near the truth, never below it; the last answers are shorter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.relays import KEY, NO_CAPS, TestRelay, chat, listening, relaying, target
from tinyfat.domain.prices import PriceList
from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, Price
from tinyfat.ports.inference import Api
from tinyfat.relay.known_inputs import KnownInputs
from tinyfat.relay.request import MARKS_MAX, bound, read_request, upstream_body
from tinyfat.relay.shapes.surfaces import SURFACES
from tinyfat.relay.vendors import Asked

SONNET = PriceList(Price(3000, 15000, 300, 3750, "test"))
ASKED = Asked(b"key", b"", {}, "", "")
TARGET = target("http://127.0.0.1:9/v1")


class Vendor:
    """It counts a token for every four bytes of the body, and answers with as many tokens as it is told, or may."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.counts = 0
        self.says = 100
        self.caches = False  # what was sent before is read at a tenth
        self.taken = 0

    async def chat(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = json.loads(raw)
        self.bodies.append(body)
        made = min(self.says, body.get("max_tokens", 10**6))
        if request.path.endswith("/messages"):
            said: dict[str, Any] = {"content": [{"type": "text", "text": "ok"}], "type": "message", "role": "assistant",
                                    "usage": {"input_tokens": len(raw) // 4, "output_tokens": made}}  # fmt: skip
        else:
            cached, self.taken = (self.taken if self.caches else 0), len(raw) // 4
            usage = {"prompt_tokens": self.taken, "completion_tokens": made, "total_tokens": self.taken + made,
                     "prompt_tokens_details": {"cached_tokens": cached}}  # fmt: skip
            said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}}], "usage": usage}
        return web.json_response(said)

    async def count(self, request: web.Request) -> web.Response:
        self.counts += 1
        raw = await request.read()
        assert not {"max_tokens", "stream"} & json.loads(raw).keys()
        return web.json_response({"input_tokens": len(raw) // 4})


@asynccontextmanager
async def capped(dollars: float, prices: PriceList = SONNET) -> AsyncIterator[tuple[TestRelay, Vendor]]:
    vendor = Vendor()
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", vendor.chat)
    app.router.add_post("/v1/messages", vendor.chat)
    app.router.add_post("/v1/messages/count_tokens", vendor.count)
    listener = listening()
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    at = replace(target(url, "near", "claude-sonnet-4-5", Api.ANTHROPIC), prices=prices)
    caps = replace(NO_CAPS, turn=int(dollars * NANODOLLARS_PER_DOLLAR))
    try:
        async with relaying({"near": [at]}, caps=caps) as relay:
            yield relay, vendor
    finally:
        await runner.cleanup()


async def ask(relay: TestRelay, path: str, body: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    import aiohttp

    headers = {"authorization": f"Bearer {KEY}", "x-tinyfat-turn": "t"}
    url = relay.url + path
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        return dict(answer.headers), await answer.read()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize(("context", "max_tokens"), [(190_000, 8_000), (250_000, 32_000), (40_000, 8_000)])
async def test_a_cap_of_a_dollar_lets_about_a_dollar_be_spent(path: str, context: int, max_tokens: int) -> None:
    """The default cap of an answer, at Sonnet's prices: refused at $0.32, or at once, when a token was a byte."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "a word " * (context // 7)}]
    async with capped(1.0) as (relay, vendor):
        vendor.says = 500
        for _ in range(120):
            body = {"model": "near", "max_tokens": max_tokens, "messages": messages}
            headers, _ = await ask(relay, path, body)
            if "x-tinyfat-refused" in headers:
                break
            messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "what comes next? " * 10}]
        spend = await relay.ledger.spend("ada")
        share = spend.spent / NANODOLLARS_PER_DOLLAR
        assert headers["x-tinyfat-refused"] == "turn-money"
        assert 0.80 <= share <= 1.0, f"{share} after {spend.calls} calls"
        for written in relay.ledger.calls:
            assert written.cost <= written.reservation.amount  # what was held was never below the truth


@pytest.mark.parametrize("context", [40_000, 190_000])
async def test_with_a_cache_only_the_call_that_could_pass_the_cap_without_it_is_refused(context: int) -> None:
    """Nobody knows before whether the vendor's cache has the conversation still."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "a word " * (context // 7)}]
    async with capped(1.0) as (relay, vendor):
        vendor.says, vendor.caches = 200, True
        for _ in range(1_000):
            body = {"model": "near", "max_tokens": 8_000, "messages": messages}
            headers, _ = await ask(relay, "/v1/chat/completions", body)
            if "x-tinyfat-refused" in headers:
                break
            messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "what comes next? " * 40}]
        assert headers["x-tinyfat-refused"] == "turn-money"
        left = NANODOLLARS_PER_DOLLAR - (await relay.ledger.spend("ada")).spent
        without_cache = len(json.dumps(body)) // 4 * SONNET.base.input + 1024 * SONNET.base.output
        assert 0 <= left <= without_cache + NANODOLLARS_PER_DOLLAR // 100
        assert all(written.cost <= written.reservation.amount for written in relay.ledger.calls)


async def test_near_a_cap_the_answer_is_shorter_and_it_is_said() -> None:
    async with capped(0.10) as (relay, vendor):
        vendor.says = 100_000
        body = {"model": "near", "max_tokens": 32_000, "messages": [{"role": "user", "content": "x"}]}
        headers, _ = await ask(relay, "/v1/chat/completions", body)
        lowered = int(headers["x-tinyfat-max-tokens-lowered"])
        assert 1024 <= lowered < 32_000
        assert vendor.bodies == [{**body, "model": "claude-sonnet-4-5", "max_tokens": lowered}]
        spend = await relay.ledger.spend("ada")
        assert 0.09 < spend.spent / NANODOLLARS_PER_DOLLAR <= 0.10
        headers, _ = await ask(relay, "/v1/chat/completions", body)
        assert headers["x-tinyfat-refused"] == "turn-money"  # less than is of use is left
        assert len(vendor.bodies) == 1


async def test_an_answer_shorter_than_what_is_of_use_is_not_asked_for_unless_that_was_wished() -> None:
    async with capped(0.01) as (relay, vendor):  # 666 tokens
        body = {"model": "near", "max_tokens": 1024, "messages": [{"role": "user", "content": "x"}]}
        headers, _ = await ask(relay, "/v1/chat/completions", body)
        assert "x-tinyfat-refused" in headers
        headers, _ = await ask(relay, "/v1/chat/completions", body | {"max_tokens": 500})
        assert "x-tinyfat-refused" not in headers and "x-tinyfat-max-tokens-lowered" not in headers
        assert vendor.bodies[0]["max_tokens"] == 500


async def test_a_target_that_the_hold_does_not_cover_is_not_asked() -> None:
    """The second of an alias is dearer: near the cap there is only the first."""
    async with capped(0.02) as (relay, vendor):
        [near] = relay.server._models._aliases["near"]
        dear = replace(near, vendor="dear", model="dear", prices=PriceList(Price(90_000, 900_000, 90_000, 90_000, "x")))
        relay.server._models._aliases["near"] = (dear, near)
        body = {"model": "near", "max_tokens": 1024, "messages": [{"role": "user", "content": "x"}]}
        headers, _ = await ask(relay, "/v1/chat/completions", body)
        assert "x-tinyfat-refused" not in headers
        assert [said["model"] for said in vendor.bodies] == ["claude-sonnet-4-5"]


async def test_the_vendor_counts_before_a_first_call_is_refused_by_its_bytes() -> None:
    body = {
        "model": "near",
        "max_tokens": 1024,
        "stream": False,
        "messages": [{"role": "user", "content": "a" * 190_000}],
    }
    async with capped(0.30) as (relay, vendor):  # $0.57 by bytes, $0.14 by tokens
        headers, _ = await ask(relay, "/v1/messages", body)
        assert "x-tinyfat-refused" not in headers and vendor.counts == 1
        headers, _ = await ask(relay, "/v1/messages", body)
        assert "x-tinyfat-refused" in headers and vendor.counts == 1  # it is known by now
    async with capped(1.0) as (relay, vendor):
        await ask(relay, "/v1/messages", body)
        assert vendor.counts == 0  # where the cap is far nobody is asked


@pytest.mark.parametrize(
    ("name", "fields", "lowered", "wanted"),
    [
        ("chat", {"max_tokens": 9000, "max_completion_tokens": 500}, 2000,
         {"max_tokens": 2000, "max_completion_tokens": 500}),
        ("chat", {}, 2000, {"max_tokens": 2000}),
        ("chat", {"max_tokens": None}, 2000, {"max_tokens": 2000}),
        ("messages", {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}}, 3000,
         {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 1976}}),
        ("messages", {"thinking": {"budget_tokens": 1024, "type": "enabled"}, "max_tokens": 9000}, 4000,
         {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("responses", {"max_output_tokens": 9000, "input": "x"}, 2000, {"max_output_tokens": 2000}),
    ],
)  # fmt: skip
def test_lowered_in_the_bytes_of_the_bound_alone(
    name: str, fields: dict[str, Any], lowered: int, wanted: dict[str, Any]
) -> None:
    said = {"model": "main", "metadata": {"max_tokens": 7, "ä": 1.50}, **fields}
    surface = SURFACES[name]
    request = read_request(json.dumps(said, ensure_ascii=False).encode(), surface)
    changed = upstream_body(request, "m", False, lowered, surface.output_field(TARGET))
    assert json.loads(changed) == {**said, "model": "m", **wanted}
    assert b"1.5" in changed


TEXT = st.text(max_size=30)
PART = st.fixed_dictionaries(
    {"type": st.just("text"), "text": TEXT}, optional={"cache_control": st.just({"type": "ephemeral"})}
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": TEXT | st.lists(PART, max_size=3)}
)


def tokens_of(body: dict[str, Any]) -> int:
    """What a vendor that charges a token for every byte of text would count: the dearest there can be."""
    said = (message["content"] for message in body["messages"])
    parts = (part for content in said for part in ([content] if isinstance(content, str) else content))
    return sum(len((part if isinstance(part, str) else part["text"]).encode()) for part in parts)


@given(
    before=st.lists(MESSAGE, max_size=5), more=st.lists(MESSAGE, max_size=5), name=st.sampled_from(["chat", "messages"])
)
@settings(max_examples=200)
def test_what_is_known_of_a_beginning_never_says_less_than_the_whole_is(
    before: list[dict[str, Any]], more: list[dict[str, Any]], name: str
) -> None:
    known = KnownInputs()
    first = {"model": "main", "max_tokens": 9, "messages": before}
    request = read_request(json.dumps(first, ensure_ascii=False).encode(), SURFACES[name])
    known.learn(ASKED, request, TARGET.vendor, TARGET.model, tokens_of(first))
    then = {**first, "messages": before + more}
    request = read_request(json.dumps(then, ensure_ascii=False).encode(), SURFACES[name])
    found = known.bound(ASKED, request, TARGET)
    assert found is None or found >= tokens_of(then)
    assert bound(request, TARGET, found).input >= min(tokens_of(then), len(request.raw))
    if tokens_of(first):
        assert found is not None


def marked(text: str) -> dict[str, Any]:
    mark = {"cache_control": {"type": "ephemeral"}}
    return {"role": "user", "content": [{"type": "text", "text": text, **mark}]}


def test_a_mark_for_the_cache_that_moves_on_does_not_make_a_conversation_another() -> None:
    known = KnownInputs()
    tool = [{"type": "tool_result", "tool_use_id": "c", "content": "ok"}]
    result: dict[str, Any] = {"role": "user", "content": tool}
    marked_result = {"role": "user", "content": [{**tool[0], "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]}
    steps: list[list[dict[str, Any]]] = [
        [marked("x" * 900)],
        [{"role": "user", "content": "x" * 900}, call, marked_result],
        [{"role": "user", "content": "x" * 900}, call, result, marked("and?")],
    ]
    for number, messages in enumerate(steps):
        body = {"model": "main", "system": "s", "messages": messages}
        request = read_request(json.dumps(body, separators=(",", ":")).encode(), SURFACES["messages"])
        found = known.bound(ASKED, request, TARGET)
        assert found is None if number == 0 else found is not None and found < 100 + 400
        known.learn(ASKED, request, TARGET.vendor, TARGET.model, 100 + number)


def test_what_changes_the_input_makes_it_another_conversation() -> None:
    known = KnownInputs()
    body = chat("x" * 900, tools=[], reasoning_effort="low")

    def read(asked: Asked = ASKED, model: str = TARGET.model, **more: Any) -> int | None:
        request = read_request(json.dumps({**body, **more}).encode(), SURFACES["chat"])
        return known.bound(asked, request, replace(TARGET, model=model))

    request = read_request(json.dumps(body).encode(), SURFACES["chat"])
    known.learn(ASKED, request, TARGET.vendor, TARGET.model, 250)
    assert read() == 250 and read(max_tokens=7, temperature=0.5, stream=True) == 250
    assert read(tools=[{"type": "function"}]) is None and read(reasoning_effort="high") is None
    assert read(model="another") is None and read(replace(ASKED, key_hash=b"another")) is None
    assert read(replace(ASKED, passed={"anthropic-beta": "x"})) is None
    assert (read(messages=[{"role": "user", "content": "x" * 899 + "y"}]) or 0) >= 900  # what stood before it is known


def test_what_is_fetched_anew_and_what_is_left_out_teach_nothing() -> None:
    known = KnownInputs()
    link = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    for body, name in (
        ({"model": "main", "messages": [{"role": "user", "content": [link]}]}, "chat"),
        ({"model": "main", "input": [{"role": "user", "content": "x"}], "truncation": "auto"}, "responses"),
    ):
        request = read_request(json.dumps(body).encode(), SURFACES[name])
        known.learn(ASKED, request, TARGET.vendor, TARGET.model, 5)
        assert known.bound(ASKED, request, TARGET) is None


def test_the_memory_is_bounded_and_long_conversations_are_found_by_their_end() -> None:
    known = KnownInputs(most=10)
    messages = [{"role": "user", "content": f"{n}"} for n in range(3 * MARKS_MAX)]
    request = read_request(json.dumps({"model": "main", "messages": messages}).encode(), SURFACES["chat"])
    assert len(request.marks) == MARKS_MAX + 1
    known.learn(ASKED, request, TARGET.vendor, TARGET.model, 1_000)
    more = {"model": "main", "messages": [*messages, {"role": "user", "content": "and?"}]}
    longer = read_request(json.dumps(more).encode(), SURFACES["chat"])
    assert (known.bound(ASKED, longer, TARGET) or 0) < 1_100
    for number in range(30):
        other = read_request(json.dumps(chat(f"{number}", seed=number)).encode(), SURFACES["chat"])
        known.learn(ASKED, other, TARGET.vendor, TARGET.model, 5)
    assert len(known._known) == 10
