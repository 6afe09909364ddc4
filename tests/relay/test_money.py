"""After any ending, a call is charged no less than its vendor can bill for it by any reading of what it said, else an
estimate that is marked as one; never nothing for what may be billed; and every hold ends once.

Endings x surfaces x dialects, through the whole relay (tests/relay/wire.py), against vendors that know their own bill
(tests/relay/billing.py). The same examples each time; TINYFAT_MONEY_EXAMPLES=5000 tries so many of each kind anew.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.relay import billing
from tests.relay.billing import Truth
from tests.relay.relays import target
from tests.relay.wire import (
    HANG,
    HANG_UP,
    LAST_CHUNK,
    Client,
    Step,
    Wait,
    WireRelay,
    answer_head,
    chunk,
    in_no_time,
    sse,
)
from tinyfat.domain.prices import PriceList
from tinyfat.domain.usage import Price
from tinyfat.relay import draining
from tinyfat.relay.draining import STOP_SECONDS_MAX as DRAINS_STOP_SECONDS_MAX
from tinyfat.relay.server import STOP_SECONDS_MAX

EXAMPLES = int(os.environ.get("TINYFAT_MONEY_EXAMPLES", "0"))
MAX_TOKENS = 400
QUIET_SECONDS_MAX = 4_000.0
PROMPT = "every good boy deserves " * 90  # bytes, and so as many tokens as there can be
SSE, JSON = "text/event-stream", "application/json"
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
         "embeddings": "/v1/embeddings"}  # fmt: skip
PRICES = [
    Price(300, 1200, 30, 375, "test"), Price(3000, 15000, 300, 3750, "test", 6000), Price(5000, 25000, 5000, 5000, "x"),
    Price(1000, 1000, 100, 1000, "flat"), Price(2000, 2000, 2000, 2500, "x", 4000),
]  # fmt: skip
BESIDE = (billing.anthropic, billing.anthropic_renamed, billing.bedrock, billing.in_parts)  # they tell what is written
ANTHROPICS = (billing.anthropic, billing.in_parts)


def examples(most: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=EXAMPLES or most, derandomize=not EXAMPLES, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


@st.composite
def bills(draw: st.DrawFn, surfaces: Sequence[str] = ("chat", "responses", "messages")) -> Bill:
    surface = draw(st.sampled_from(surfaces))
    known = ANTHROPICS if surface == "messages" else billing.DIALECTS
    dialect = draw(st.sampled_from((*known, *known, *billing.SILENT)))
    words = draw(st.lists(st.sampled_from(["a", " and", "ß", "\n\n", '"', " täglich", "{}", "[DONE]"]), max_size=8))
    cached, written, hour = (draw(st.integers(0, 500)) for _ in range(3))
    tells = dialect in BESIDE
    true = Truth(
        draw(st.integers(1, 600)), cached if dialect is not billing.bare else 0, written * tells,
        hour * (surface == "messages"), tuple(words), draw(st.sampled_from([0, 0, 1, 7, 300])),
    )  # fmt: skip
    if surface == "embeddings":
        true = Truth(true.fresh, 0, 0, 0, (), 0)
    places = [place for place in billing.PLACES if place is not billing.twice_in_one_object or dialect in known]
    return Bill(surface, dialect, true, draw(st.sampled_from(PRICES)), draw(st.sampled_from(places)))


class Bill:
    """What one vendor says of one call, and what it charges for it."""

    def __init__(self, surface: str, dialect: billing.Dialect, true: Truth, price: Price, place: billing.Place) -> None:
        self.surface, self.dialect, self.true, self.price, self.place = surface, dialect, true, price, place
        self.usage = dialect(true, price)
        self.told = dialect not in billing.SILENT
        self.silent = not self.told and (place is not billing.at_first_and_again or surface != "chat")

    def __repr__(self) -> str:
        return f"{self.surface} {self.dialect.__name__} {self.place.__name__} {self.true} {self.price}"

    @property
    def owed(self) -> int:
        """Of the whole answer: what it thought and did not tell of, nobody can know."""
        return self.true.bill(self.price) if self.told else self.owed_until(self.true.said)

    def owed_until(self, words: int) -> int:
        """And no more than what was told by then: what its cache does, it says at the end."""
        taken = self.true.input_bill(self.price)
        if self.surface == "chat" and self.place is billing.at_first_and_again:
            taken = min(taken, self.true.taken * self.price.input)
        return taken + words * self.price.output

    def events(self) -> list[bytes]:
        if self.surface == "chat":
            return self.place(self.true, self.usage)
        stream = billing.messages_stream if self.surface == "messages" else billing.responses_stream
        return stream(self.true, self.usage)

    def words_in(self, events: Sequence[bytes]) -> int:
        """Of the words, how many begin in these."""
        marks = (b'"content": "', b'"text_delta"', b"output_text.delta")
        return sum(any(mark in event for mark in marks) for event in events)

    def whole(self) -> bytes:
        return billing.whole(self.surface, self.true, self.usage)

    def asked(self, streamed: bool) -> bytes:
        most = {"responses": "max_output_tokens", "embeddings": ""}.get(self.surface, "max_tokens")
        body: dict[str, Any] = {"model": "main", **({most: MAX_TOKENS, "stream": streamed} if most else {})}
        if self.surface in ("responses", "embeddings"):
            body["input"] = PROMPT
        else:
            body["messages"] = [{"role": "user", "content": PROMPT}]
        if self.surface == "messages":
            body["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
        return json.dumps(body).encode()

    def relay(self, *scripts: Sequence[Step] | None) -> WireRelay:
        return WireRelay(scripts, [replace(target("http://vendor/v1"), prices=PriceList(self.price))])

    def ask(self, relay: WireRelay, streamed: bool) -> Client:
        return relay.ask(PATHS[self.surface], self.asked(streamed))


async def quiet(relay: WireRelay) -> None:
    """Nothing is under way any more."""
    async with asyncio.timeout(QUIET_SECONDS_MAX):
        while relay.ledger._holds or relay.calls._answering._ending:
            await asyncio.sleep(10)


async def must_pay(relay: WireRelay, owed: int, estimated: bool = False, told: bool = True) -> None:
    """`estimated`: it must be said to be one. `told`: what the vendor says is what it can be, so is what was held."""
    await quiet(relay)
    assert len(relay.ledger.calls) == 1, "a call that may be billed is in the ledger, once"
    [written] = relay.ledger.calls
    assert written.cost >= max(owed, 1), f"{written.settlement.usage} of {owed}"
    assert written.settlement.usage.estimated or not estimated, written.settlement
    if told:
        assert written.cost <= written.reservation.amount, f"{written.settlement.usage} of {written.reservation}"
    await adds_up(relay)


async def adds_up(relay: WireRelay) -> None:
    await quiet(relay)
    spend = await relay.ledger.spend("ada")
    assert spend.reserved == 0 and spend.spent == sum(written.cost for written in relay.ledger.calls)
    assert all(number == 1 for number in relay.ledger.ends.values()), relay.ledger.ends


def plausible(bill: Bill) -> bool:
    """Of what stands beside and what inside only one can be; the other reading may be more than there is."""
    return bill.surface == "messages" or bill.dialect not in (billing.anthropic_renamed, billing.in_parts)


def cut_in(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


UNREADABLE = ["bytes behind it", "cut, and said to be whole", "gzip that breaks off", "gzip", "byte mark"]
CUTS = st.lists(st.integers(0, 4000), max_size=4)


@given(bill=bills(("chat", "responses", "messages", "embeddings")), streamed=st.booleans(), cuts=CUTS)
@examples(250)
def test_a_whole_answer(bill: Bill, streamed: bool, cuts: list[int]) -> None:
    streamed = streamed and bill.surface != "embeddings"

    async def main() -> None:
        body = b"".join(bill.events()) if streamed else bill.whole()
        wire = [chunk(piece) for piece in cut_in(body, cuts)]
        relay = bill.relay([answer_head(SSE if streamed else JSON), *wire, LAST_CHUNK])
        status, came = await bill.ask(relay, streamed).ended()
        assert status == 200, came
        await must_pay(relay, bill.owed, bill.silent, plausible(bill))

    in_no_time(main())


def test_a_client_that_goes_the_moment_its_money_is_held_leaves_no_hold() -> None:
    async def main() -> None:
        bill = Bill("chat", billing.openai, Truth(9, 0, 0, 0, ("a",), 0), PRICES[0], billing.at_the_end)
        for steps in range(30):  # of the loop
            relay = bill.relay([HANG])
            client = bill.ask(relay, True)
            for _ in range(steps):
                await asyncio.sleep(0)
            client.hang_up()
            await adds_up(relay)
            assert len(relay.ledger.calls) == len(relay.vendor.calls)

    in_no_time(main())


@given(bill=bills(), streamed=st.booleans(), at=st.integers(0, 5000), late=st.sampled_from([0, 5, 950]))
@examples(200)
def test_the_vendor_breaks_off(bill: Bill, streamed: bool, at: int, late: int) -> None:
    """Anywhere behind the head: it hangs up, or says no more until nobody waits any longer."""

    async def main() -> None:
        events = bill.events() if streamed else [bill.whole()]
        body = b"".join(events)
        came = body[: 1 + at % (len(body) - 1)]
        end: list[Step] = [HANG_UP] if late < 900 else [HANG]
        relay = bill.relay([answer_head(SSE if streamed else JSON), chunk(came), Wait(late), *end])
        await bill.ask(relay, streamed).ended()
        if not streamed:  # it was produced, all of it
            return await must_pay(relay, bill.true.bill(bill.price), told=plausible(bill))
        begun = [event for number, event in enumerate(events) if sum(map(len, events[:number])) < len(came)]
        words = bill.words_in(begun)
        if words == 0 and not relay.ledger.calls:
            return await adds_up(relay)  # it had said nothing: a failure
        await must_pay(relay, bill.owed_until(words), told=plausible(bill))
        return None

    in_no_time(main())


@given(bill=bills(), streamed=st.booleans(), after=st.floats(0, 14), then=st.sampled_from(["goes on", "says no more"]))
@examples(200)
def test_the_client_hangs_up(bill: Bill, streamed: bool, after: float, then: str) -> None:
    """Before the head, in the middle, at the end: the vendor goes on, and bills all of it."""

    async def main() -> None:
        events = bill.events() if streamed else [bill.whole()]
        script: list[Step] = [Wait(1), answer_head(SSE if streamed else JSON)]
        for event in events:
            script += [chunk(event), Wait(1)]
        if then == "says no more":
            script = [*script[: int(after) + 2], HANG]
        relay = bill.relay([*script, LAST_CHUNK])
        client = bill.ask(relay, streamed)
        await asyncio.sleep(after)
        client.hang_up()
        await quiet(relay)
        if relay.vendor.calls:
            await must_pay(relay, bill.owed, told=plausible(bill))
        else:
            await adds_up(relay)

    in_no_time(main())


@given(bill=bills(), streamed=st.booleans(), after=st.floats(1.5, 9),
       limit=st.sampled_from(["DRAINS_MAX", "DRAINS_PER_AGENT_MAX", "DRAIN_BYTES_MAX", "DRAIN_SECONDS_MAX"]),
       most=st.integers(0, 3))  # fmt: skip
@examples(100)
def test_nobody_hears_the_end_once_the_client_has_hung_up(
    bill: Bill, streamed: bool, after: float, limit: str, most: int
) -> None:
    """One drain too many, or one that is too long."""

    async def main() -> None:
        script: list[Step] = [answer_head(SSE if streamed else JSON)]
        for event in bill.events() if streamed else [bill.whole()]:
            script += [chunk(event[:20]), Wait(1), chunk(event[20:]), Wait(1)]
        relay = bill.relay([*script, LAST_CHUNK])
        client = bill.ask(relay, streamed)
        await asyncio.sleep(after)
        client.hang_up()
        await must_pay(relay, bill.owed, told=plausible(bill))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draining, limit, most)
        in_no_time(main())


@given(bill=bills(), streamed=st.booleans(), after=st.floats(0, 9), gone=st.booleans())
@examples(100)
def test_the_relay_ends(bill: Bill, streamed: bool, after: float, gone: bool) -> None:
    """In the middle of a call, and of one whose client had gone; and it does not take long."""

    async def main() -> None:
        script: list[Step] = [Wait(1), answer_head(SSE if streamed else JSON)]
        for event in bill.events() if streamed else [bill.whole()]:
            script += [chunk(event), Wait(7)]
        relay = bill.relay([*script, LAST_CHUNK])
        client = bill.ask(relay, streamed)
        await asyncio.sleep(after)
        if gone:
            client.hang_up()
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await relay.stop()
        assert loop.time() - began <= STOP_SECONDS_MAX + DRAINS_STOP_SECONDS_MAX + 1
        if relay.vendor.calls:
            await must_pay(relay, bill.owed, told=plausible(bill))
        else:
            await adds_up(relay)

    in_no_time(main())


@given(bill=bills(("chat", "responses", "messages", "embeddings")), status=st.sampled_from([400, 422, 429, 500, 503]),
       usage=st.sampled_from(["none", "top", "error"]))  # fmt: skip
@examples(100)
def test_an_error(bill: Bill, status: int, usage: str) -> None:
    async def main() -> None:
        body: dict[str, Any] = {"error": {"message": "no"}}
        (body if usage == "top" else body["error"])["usage"] = bill.usage
        if usage == "none":
            body = {"error": {"message": "no"}}
        relay = bill.relay([answer_head(JSON, status), chunk(json.dumps(body).encode()), LAST_CHUNK])
        await bill.ask(relay, False).ended()
        if usage != "none" and bill.told:
            await must_pay(relay, bill.owed, told=plausible(bill))
        else:
            await adds_up(relay)
            assert not relay.ledger.calls

    in_no_time(main())


@given(bill=bills(), words=st.integers(0, 8), usage=st.booleans())
@examples(100)
def test_an_error_inside_a_stream(bill: Bill, words: int, usage: bool) -> None:
    """`usage`: it is named before the error."""

    async def main() -> None:
        events = bill.events()
        upto = events if usage else [event for event in events if bill.words_in([event])][:words]
        ends = (b"[DONE]", b'"message_stop"', b'"response.completed"')
        upto = [event for event in upto if not any(end in event for end in ends)]
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
        relay = bill.relay([answer_head(SSE), chunk(b"".join([*upto, sse(error)])), LAST_CHUNK])
        await bill.ask(relay, True).ended()
        said = bill.words_in(upto)
        told = usage and bill.told and bill.surface != "responses" and bill.place is not billing.after_done
        if told:
            await must_pay(relay, bill.owed, told=plausible(bill))
        elif said:
            await must_pay(relay, bill.owed_until(said), told=plausible(bill))
        else:
            await adds_up(relay)

    in_no_time(main())


@given(bill=bills(("responses",)), end=st.sampled_from(["failed", "incomplete", "cancelled"]), streamed=st.booleans())
@examples(100)
def test_a_response_that_is_not_completed_is_billed_all_the_same(bill: Bill, end: str, streamed: bool) -> None:
    async def main() -> None:
        events = billing.responses_stream(bill.true, bill.usage, end)
        body = b"".join(events)
        if not streamed:
            body = json.dumps({"status": end, "output": [], "usage": bill.usage}).encode()
        relay = bill.relay([answer_head(SSE if streamed else JSON), chunk(body), LAST_CHUNK])
        await bill.ask(relay, streamed).ended()
        if bill.told:
            await must_pay(relay, bill.owed, told=plausible(bill))
        elif end == "incomplete" or (end == "cancelled" and (bill.true.said or not streamed)):
            await must_pay(relay, bill.owed_until(bill.true.said if streamed else 0), True)

    in_no_time(main())


@given(bill=bills(("embeddings", "chat", "messages", "responses")),
       how=st.sampled_from(UNREADABLE))  # fmt: skip
@examples(100)
def test_a_body_that_cannot_be_read(bill: Bill, how: str) -> None:
    async def main() -> None:
        whole, more = bill.whole(), ""
        body = {
            "bytes behind it": whole + b"}\n", "cut, and said to be whole": whole[:-1], "gzip": gzip.compress(whole),
            "gzip that breaks off": gzip.compress(whole)[:-12], "byte mark": b"\xef\xbb\xbf" + whole,
        }[how]  # fmt: skip
        more = "content-encoding: gzip\r\n" if "gzip" in how else ""
        relay = bill.relay([answer_head(JSON, 200, more), chunk(body), LAST_CHUNK])
        await bill.ask(relay, False).ended()
        if not relay.ledger.calls:  # not one byte could be unpacked
            assert how == "gzip that breaks off"
            return await adds_up(relay)
        return await must_pay(relay, bill.owed, not bill.told, plausible(bill))

    in_no_time(main())


@given(bill=bills(), how=st.sampled_from(["hang up", "silence", "nobody"]), after=st.sampled_from([0, 9, 11, 500]))
@examples(60)
def test_not_one_byte_came(bill: Bill, how: str, after: int) -> None:
    """Who had the call for long may have worked on it."""

    async def main() -> None:
        script: list[Step] | None = {"hang up": [Wait(after), HANG_UP], "silence": [HANG], "nobody": None}[how]
        relay = bill.relay(script)
        status, _ = await bill.ask(relay, True).ended()
        assert status == 502
        if how == "silence" or (how == "hang up" and after > 10):
            await must_pay(relay, bill.true.bill(bill.price), True)
        else:
            await adds_up(relay)
            assert not relay.ledger.calls

    in_no_time(main())


@given(bill=bills(("chat",)), how=st.sampled_from([billing.summed, billing.stepped]), gone=st.integers(0, 12))
@examples(100)
def test_a_usage_with_every_word(bill: Bill, how: Callable[[Truth], list[bytes]], gone: int) -> None:
    """Sums or steps, heard to the end or not."""

    async def main() -> None:
        true = replace(bill.true, cached=0, written=0)
        script: list[Step] = [answer_head(SSE)]
        for event in how(true):
            script += [chunk(event), Wait(1)]
        relay = bill.relay([*script, LAST_CHUNK])
        client = bill.ask(relay, True)
        await asyncio.sleep(gone + 0.5)
        client.hang_up()
        await must_pay(relay, true.bill(bill.price))

    in_no_time(main())
