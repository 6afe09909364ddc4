"""What becomes of a call: caps, keys, vendors that fail, clients that go."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import openai
import pytest

from tests.machine_speed import patient
from tests.relay.relays import (
    KEY,
    NO_CAPS,
    OWNER_KEY,
    PRICE,
    VENDOR_KEY,
    StandIn,
    TestRelay,
    chat,
    listening,
    relaying,
    target,
)
from tests.running import until
from tinyfat.domain.prices import PriceList
from tinyfat.domain.relay_keys import key_from, key_hash
from tinyfat.domain.usage import Caps, Price
from tinyfat.relay.shapes.chat import Chat
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.vendors import Waits

MESSAGES = {"model": "main", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat("hello"),
    "/v1/responses": {"model": "main", "input": "hello"},
    "/v1/embeddings": {"model": "main", "input": "hello"},
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": MESSAGES,
}
OTHER_KEY = key_from(b"o" * 32)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("kind", ["unknown", "revoked", "none", "bad body"])
async def test_no_endpoint_opens_to_a_key_that_is_not_good(relay: TestRelay, path: str, kind: str) -> None:
    if kind == "revoked":
        relay.ledger.revoke(key_hash(KEY))
    key = {"revoked": KEY, "none": ""}.get(kind, OTHER_KEY)
    body: object = b"{" if kind == "bad body" else BODIES[path]
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": "", "x-api-key": key}):
        status, answer = await relay.post(path, body, headers)
        assert status == 401
        assert b"error" in answer
    assert relay.standin.headers == []


async def test_models_are_listed_to_good_keys_alone(relay: TestRelay) -> None:
    import openai

    async with relay.openai(OTHER_KEY) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize("path", [path for path in BODIES if not path.endswith("count_tokens")])
async def test_a_key_spends_its_own_agents_money(relay: TestRelay, path: str) -> None:
    relay.ledger.add("bob", key_hash(OTHER_KEY), Caps(0, 0, 0, 0))
    status, _ = await relay.post(path, BODIES[path])
    assert status == 200
    refused, answer = await relay.post(path, BODIES[path], {"authorization": f"Bearer {OTHER_KEY}"})
    assert refused == (429 if path == "/v1/embeddings" else 200)
    assert b"bob has reached what it may spend" in answer
    assert [written.agent_id for written in relay.ledger.calls] == ["ada"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_over_a_cap_the_answer_is_words_in_the_surfaces_own_shape(streamed: bool) -> None:
    async with relaying(caps=Caps(1, None, None, None)) as relay, relay.openai() as client, relay.anthropic() as other:
        if streamed:
            chunks = [c async for c in await client.chat.completions.create(**chat("hello", stream=True))]
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            async with client.responses.stream(model="main", input="hello") as events:
                responded = (await events.get_final_response()).output_text
            async with other.messages.stream(**MESSAGES) as stream:  # type: ignore[arg-type]
                messaged = await stream.get_final_text()
        else:
            said = (await client.chat.completions.create(**chat("hello"))).choices[0].message.content
            responded = (await client.responses.create(model="main", input="hello")).output_text
            messaged = (await other.messages.create(**MESSAGES)).content[0].text  # type: ignore[call-overload]
        assert said == responded == messaged or len({text[:40] for text in (said, responded, messaged)}) == 1
        assert "ada has reached what it may spend this month" in said
        assert relay.standin.requests == []


async def test_a_killed_agent_says_so(relay: TestRelay) -> None:
    relay.ledger.kill("ada")
    async with relay.openai() as client:
        answer = await client.chat.completions.create(**chat("hello"))
    assert "switched off" in (answer.choices[0].message.content or "")


async def test_embeddings_have_no_words_and_are_not_asked_for_again(relay: TestRelay) -> None:
    relay.ledger.kill("ada")
    async with relay.openai() as client:
        with pytest.raises(openai.RateLimitError, match="switched off") as refused:
            await client.with_options(max_retries=2).embeddings.create(model="main", input="hello")
    assert refused.value.request.headers["x-stainless-retry-count"] == "0"


async def test_a_turn_that_runs_away_is_cut() -> None:
    async with relaying(caps=replace(NO_CAPS, turn_calls=2)) as relay:
        answers = [
            json.loads((await relay.post("/v1/chat/completions", chat("model: say x"), {"x-tinyfat-turn": turn}))[1])
            for turn in ("t1", "t1", "t1", "t2")
        ]
    said = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert said[0] == said[1] == said[3] == "x"
    assert "going in circles" in said[2]


async def test_without_a_ledger_nothing_is_called(relay: TestRelay) -> None:
    relay.ledger.down = True
    status, answer = await relay.post("/v1/chat/completions", chat("hello"))
    assert status == 503
    assert b"ledger does not answer" in answer
    assert relay.standin.headers == []


async def test_the_next_vendor_is_tried_before_the_first_byte() -> None:
    failing, good = StandIn(), StandIn()
    await failing.start()
    await good.start()
    nobody = "http://127.0.0.1:9/v1"
    dear = target(good.url, "second", "second-model")
    aliases = {"both": [target(nobody, "gone"), target(failing.url + "/nothing-here", "none"), dear]}
    async with relaying(aliases) as relay:
        # 404 is the vendor's word on the request: it is passed on, and the third is not asked.
        status, _ = await relay.post("/v1/chat/completions", chat("model: say x") | {"model": "both"})
        assert status == 404
        assert relay.ledger.calls == []
    aliases = {"both": [target(nobody, "gone"), dear]}
    async with relaying(aliases) as relay:
        status, _ = await relay.post("/v1/chat/completions", chat("model: say x") | {"model": "both"})
        assert status == 200
        [written] = relay.ledger.calls
        assert (written.vendor, written.model, written.reservation.vendor) == ("second", "second-model", "gone")
    await failing.stop()
    await good.stop()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 429 Busy\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",  # and no more
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n",
        b"",
    ],
)
@pytest.mark.parametrize("then", ["hangs", "closes"])
async def test_the_next_answers_where_the_first_gave_not_one_byte(first: bytes, then: str, streamed: bool) -> None:
    listener = listening()
    connections: list[asyncio.StreamWriter] = []

    async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        await writer.drain()
        while then == "hangs" and await reader.read(1000):
            pass
        writer.close()
        connections.remove(writer)

    async def all_ended() -> bool:
        return not connections

    server = await asyncio.start_server(fails, sock=listener)
    dear = PriceList(Price(30_000, 120_000, 30_000, 30_000, "test"))
    waits = Waits(first_byte_streamed=0.5, first_byte_whole=0.5)
    failing = replace(target(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "first"), prices=dear)
    good = StandIn()
    await good.start()
    async with relaying({"both": [failing, target(good.url, "second")]}, waits=waits) as relay:
        body = chat("model: say all is well", stream=streamed) | {"model": "both"}
        status, answer = await relay.post("/v1/chat/completions", body)
        assert status == 200 and b"well" in answer
        silent = then == "hangs" and not first.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503"))
        *before, written = await relay.ended(1 + silent)
        assert (written.vendor, written.price, written.settlement.usage.estimated) == ("second", PRICE.at(1), False)
        # Who took the call and said nothing may bill it: as much as was held.
        assert [(one.vendor, one.settlement.outcome, one.settlement.usage.estimated) for one in before] == (
            [("first", "silent", True)] if silent else []
        )
        assert all(one.cost == one.reservation.amount > 0 for one in before)
        assert (await relay.ledger.spend("ada")).reserved == 0
    await until(all_ended, 5.0, "the relay has hung up on the first")
    await good.stop()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_each_vendor_is_asked_once_and_the_last_ones_error_counts(status: int) -> None:
    other = StandIn()
    await other.start()
    async with relaying({"both": [target(other.url, "first"), target(other.url, "second")]}) as relay:
        answered, _ = await relay.post("/v1/chat/completions", chat(f"model: status {status}") | {"model": "both"})
        assert answered == status
        assert len(other.requests) == 2
        assert relay.ledger.calls == []
        assert (await relay.ledger.spend("ada")).reserved == 0
    await other.stop()


async def test_a_vendor_that_does_not_answer_in_time() -> None:
    waits = Waits(first_byte_streamed=0.1, first_byte_whole=0.1)
    async with relaying(waits=waits) as relay:
        status, answer = await relay.post("/v1/chat/completions", chat("model: hang"))
        assert status == 502
        assert b"No vendor of this model answered" in answer
        assert (await relay.ledger.spend("ada")).reserved == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("model: cut\nmodel: say one two three four five six", stream=True)),
        ("/v1/responses", {"model": "main", "input": "model: cut\nmodel: say one two three four", "stream": True}),
        ("/v1/messages", MESSAGES | {"stream": True, "messages": [
            {"role": "user", "content": "model: cut\nmodel: say one two three four five"}]}),
    ],
)  # fmt: skip
async def test_a_stream_that_is_cut_pays_for_what_came(relay: TestRelay, path: str, body: dict[str, Any]) -> None:
    _, answer = await relay.post(path, body)
    assert b"one" in answer
    [written] = relay.ledger.calls
    assert written.settlement.outcome == "cut"
    assert written.settlement.usage.estimated
    assert written.settlement.usage.input > 0
    assert written.settlement.usage.output > 0


async def test_a_vendor_whose_connection_breaks_is_cut_and_the_client_sees_it() -> None:
    listener = listening()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[{"index":0,"delta":{"content":"eight by"}}]}\n\n'

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(breaks, sock=listener)
    broken = target(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    async with relaying({"broken": [broken]}) as relay:
        import aiohttp

        with pytest.raises(aiohttp.ClientError):
            await relay.post("/v1/chat/completions", chat("x", stream=True) | {"model": "broken"})
        [written] = await relay.ended()
        usage = written.settlement.usage
        # A token is at least a byte, so the eight bytes that came are at most eight; what was thought before, by time.
        assert written.settlement.outcome == "cut" and usage.estimated and usage.output >= 8
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("together", [False, True])
async def test_the_head_of_a_stream_leaves_with_the_first_event(together: bool) -> None:
    """Not before it: until then another vendor may have to answer."""
    listener = listening()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[{"index":0,"delta":{"content":"eight by"}}]}\n\n'
    chunk = b"%x\r\n%s\r\n" % (len(event), event)
    first_seen = asyncio.Event()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (head + chunk,) if together else (head, chunk):
            writer.write(piece)
            await writer.drain()
        await first_seen.wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answers, sock=listener)
    at = target(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    async with asyncio.timeout(patient(10)), relaying({"patient": [at]}) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        wire = json.dumps(chat("x", stream=True) | {"model": "patient"}).encode()
        asked = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(wire)}\r\n"
        writer.write(asked.encode() + b"\r\n" + wire)
        first = await reader.read(2**16)
        assert first.startswith(b"HTTP/1.1 200") and first.endswith(event + b"\r\n")
        first_seen.set()
        assert event not in await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await relay.ended()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_vendor_that_counts_nothing_is_counted(relay: TestRelay, path: str, streamed: bool) -> None:
    text = f"model: no usage\nmodel: say {'word ' * 40}"
    body: dict[str, Any] = {**BODIES[path], "stream": streamed}
    body |= {"input": text} if path == "/v1/responses" else {"messages": [{"role": "user", "content": text}]}
    body.pop("max_tokens", None)
    status, _ = await relay.post(path, body)
    assert status == 200
    [written] = relay.ledger.calls
    assert written.settlement.outcome == "ok"
    assert written.settlement.usage.estimated
    assert 40 <= written.settlement.usage.output <= 200


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_goes_away_cancels_the_call_and_pays(relay: TestRelay, streamed: bool) -> None:
    wire = json.dumps(chat("model: hang", stream=streamed)).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(wire)}\r\n\r\n"
    writer.write(head.encode() + wire)

    async def asked() -> bool:
        return bool(relay.standin.requests)

    await until(asked, 5, "the vendor is asked")
    writer.close()
    [written] = await relay.ended()
    assert written.settlement.outcome == "vanished"
    assert written.settlement.usage.estimated
    assert written.settlement.usage.input > 0

    async def hung_up() -> bool:
        return relay.standin.gone > 0

    await until(hung_up, 5, "the vendor sees its client go")


async def test_on_an_owners_key_the_owners_vendor_is_called() -> None:
    async with relaying(byok="owners") as relay:
        for _ in range(2):
            status, _ = await relay.post("/v1/chat/completions", chat("model: say x"))
            assert status == 200
        assert {sent["authorization"] for sent in relay.standin.headers} == {f"Bearer {OWNER_KEY}"}
        assert [(written.vendor, written.model) for written in relay.ledger.calls] == [("owners", "owners-model")] * 2
        assert (await relay.ledger.spend("ada")).reserved == 0


async def test_a_key_that_comes_or_goes_refuses_no_call() -> None:
    """Near the cap: by the owner's vendor's price a call is over it, by ours it is not, and the other way round."""
    body = chat("model: say x", max_tokens=100)
    dear = PriceList(Price(30_000, 120_000, 30_000, 30_000, "test"))
    for ours, owners in ((PRICE, dear), (dear, PRICE)):
        async with relaying(caps=replace(NO_CAPS, month=1_000_000), prices=ours, owners_prices=owners) as relay:
            for vendor in ("", "owners", "", "owners"):
                relay.ledger.paid_by("ada", vendor)
                too_dear = (owners if vendor else ours) is dear
                status, said = await relay.post("/v1/chat/completions", body)
                assert status == 200 and (b"may spend this month" in said) is too_dear, said
                assert (await relay.ledger.spend("ada")).reserved == 0


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("/v1/responses", {"background": True}, "background"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "audio"),
        ("/v1/messages", {"inference_geo": "us"}, "inference_geo"),
        ("/v1/messages", {"fallbacks": "default"}, "fallbacks"),
        ("/v1/responses", {"tools": [{"type": "web_search"}]}, "web_search"),
        ("/v1/messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ("/v1/chat/completions", {"service_tier": "priority"}, "priority"),
        ("/v1/chat/completions", {"n": 0}, "n must be"),
        ("/v1/chat/completions", {"model": 7}, "model must be"),
    ],
)
async def test_what_cannot_be_counted_is_refused(relay: TestRelay, path: str, more: dict[str, Any], words: str) -> None:
    status, answer = await relay.post(path, BODIES[path] | more)
    assert status == 400
    assert words in json.loads(answer)["error"]["message"]
    assert relay.standin.headers == []


async def test_a_body_that_is_too_long_is_not_read(relay: TestRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfat.relay.bodies.BODY_BYTES_MAX", 1000)
    status, _ = await relay.post("/v1/chat/completions", chat("x" * 2000))
    assert status == 413
    status, _ = await relay.post("/v1/chat/completions", chat("model: say x"))
    assert status == 200


async def test_a_strangers_body_is_not_waited_for(relay: TestRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears 401 from its head alone; the connection ends; whoever has a key never waits for it."""
    for number in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: no-{number}\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(patient(10)):
            assert b" 401 " in await reader.readline()
            assert (await reader.read()).count(b"HTTP/1.") == 0  # and the end
        writer.close()
    monkeypatch.setattr("tinyfat.relay.server.STRANGERS_WAITING_MAX", 0)
    assert (await relay.post("/v1/chat/completions", chat("model: say x")))[0] == 503  # nobody knows it yet
    monkeypatch.setattr("tinyfat.relay.server.STRANGERS_WAITING_MAX", 1)
    assert (await relay.post("/v1/chat/completions", chat("model: say x")))[0] == 200
    monkeypatch.setattr("tinyfat.relay.server.STRANGERS_WAITING_MAX", 0)
    assert (await relay.post("/v1/chat/completions", chat("model: say x")))[0] == 200


async def test_no_key_is_in_any_log(relay: TestRelay, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for text in ("model: say x", "model: status 500", "model: status 401", "model: cut"):
            for path in ("/v1/chat/completions", "/v1/messages"):
                body = BODIES[path] | {"messages": [{"role": "user", "content": text}], "stream": True}
                await relay.post(path, body)
        await relay.post("/v1/chat/completions", chat("x"), {"authorization": f"Bearer {OTHER_KEY}"})
    said = caplog.text + repr(relay.ledger.calls)
    assert "answered 500" in said
    for key in (KEY, OTHER_KEY, VENDOR_KEY, OWNER_KEY):
        assert key not in said


async def test_the_operators_key_refused_is_no_fault_of_the_agents(relay: TestRelay) -> None:
    for status in (401, 403, 402):
        answered, answer = await relay.post("/v1/chat/completions", chat(f"model: status {status}"))
        assert answered == 502
        assert b"for the operator to mend" in answer


async def test_the_body_arrives_byte_for_byte(relay: TestRelay) -> None:
    raw = b'{ "temperature": 1.50e-1, "model" :\t"main","messages":[{"role":"user","content":"model: say \\u00e9"}]}'
    status, _ = await relay.post("/v1/chat/completions", raw)
    assert status == 200
    assert b"".join(relay.standin.bodies) == raw.replace(b'"main"', b'"vendors/own-name"')


async def test_a_hundred_at_once_never_pass_the_cap() -> None:
    body = chat("model: say one two three", max_tokens=100)
    async with relaying(caps=replace(NO_CAPS, month=1_000_000)) as relay:
        answers = await asyncio.gather(*(relay.post("/v1/chat/completions", body) for _ in range(100)))
        spend = await relay.ledger.spend("ada")
        assert spend.spent <= 1_000_000
        assert spend.reserved == 0
        assert {status for status, _ in answers} == {200}
        assert 0 < len(relay.standin.requests) == spend.calls < 100


@pytest.mark.parametrize("surface", [Chat(), Responses(), Messages()])
def test_a_refusal_names_no_tokens(surface: Any) -> None:
    whole = json.loads(surface.refusal("no", "main", "1", streamed=False))
    assert surface.usage(whole) is None
