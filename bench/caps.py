"""How much of a cap an ordinary conversation may spend before it is refused: the recorded shapes of requests, against a
vendor that counts as a tokenizer does. No clock and no network: the figures are the same on every machine.

The goal is a fifth. Where a vendor's cache makes a long context cheap, more than that may have to stay: the next call
costs the whole of its context where the cache has lost it, which nobody knows before, and a cap that may then be passed
is none. So there the goal is that bill: of the call that was refused, with the shortest useful answer, as the vendor
counts it. What is missed is missed by us, and not by arithmetic.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Figure
from tinyfat.domain.prices import PriceList
from tinyfat.domain.relay_keys import key_hash
from tinyfat.domain.usage import NANODOLLARS_PER_DOLLAR, Caps, Price
from tinyfat.drivers.usage.memory import MemoryUsageLedger
from tinyfat.ports.inference import Answer, Api, Call, Sent, Target
from tinyfat.relay.batches import LedgerDesk
from tinyfat.relay.calls import Calls
from tinyfat.relay.holding import USEFUL_TOKENS_MIN
from tinyfat.relay.models import Models
from tinyfat.relay.shapes.surfaces import SURFACES
from tinyfat.relay.vendors import Asked, Waits

CAP_DOLLARS = 1
UNSPENT_PERCENT_MAX = 20.0
NEAR_PERCENT = 1.0  # of the cap: how far above the truth a bound may be
CALLS_MAX = 3_000
CACHE_READ_PART = 10  # of a price, where the vendor's cache holds what was sent before
MAX_TOKENS = 8_000  # as OpenClaw asks for
PROMPT_BYTES = 36_000  # of its system prompt and tools: some 9,000 tokens
PRICES = {  # dollars a million tokens, in and out
    "minimax-m2.1": (0.3, 1.2), "sonnet": (3.0, 15.0), "opus": (5.0, 25.0),
}  # fmt: skip
ANTHROPICS = ("sonnet", "opus")  # by its own API, where the vendor counts for nothing
_PIECE = re.compile(r" ?[A-Za-z]+|\d{1,3}|[^\x00-\x7f]|\s+|[^\w\s]")
_WORDS = {
    "english": "the quick answer to your mail is that the meeting of Tuesday has been moved and everybody agreed",
    "german": "Die Rechnungsprüfung für das vergangene Geschäftsjahr wurde von der Wirtschaftsprüferin bestätigt",
    "chinese": "会议 已经 改到 星期二 所有 人 都 同意 请 查看 附件 里 的 报告",
    "code": "def handle(self, request: Request) -> Response:\n\treturn Response(status=200, body=self.items[key])\n",
}
SHAPES = {  # language, bytes of context at first, of each tool's result, tokens of an answer
    "mails, growing": ("english", 0, 1_500, 400),
    "long context": ("english", 190_000, 800, 400),
    "German": ("german", 10_000, 1_500, 500),
    "Chinese": ("chinese", 10_000, 1_500, 500),
    "code, long tool results": ("code", 5_000, 6_000, 700),
}


def counted(text: str) -> int:
    """As a tokenizer of pieces does: about a token for six letters of a word, one for a sign, one for an ideograph."""
    return sum(-(-len(piece) // 6) if piece[-1].isalpha() and piece.isascii() else 1 for piece in _PIECE.findall(text))


def input_tokens(body: Mapping[str, Any]) -> int:
    """Of a request, with a few for each message's frame."""
    said = [json.dumps(body.get("tools"), ensure_ascii=False), str(body.get("system", ""))]
    said += [str(one["content"]) for one in body["messages"]]
    return sum(map(counted, said)) + 5 * len(said)


@dataclass
class _Sent:
    """A call and its answer, in one piece."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})

    async def answer(self) -> Answer:
        return self

    async def next(self) -> bytes:
        rest, self.body = self.body, b""
        return rest

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await self.next():
            yield piece

    def close(self) -> None: ...


class Vendor:
    """`caches`: what the last call sent costs a tenth in the next."""

    def __init__(self, answer_tokens: int, caches: bool) -> None:
        self._answer_tokens, self._caches = answer_tokens, caches
        self._before = 0

    async def open(self, call: Call) -> Answer:
        return await (await self.send(call)).answer()

    async def send(self, call: Call) -> Sent:
        body = json.loads(call.body)
        taken = input_tokens(body)
        if call.url.endswith("/count_tokens"):
            return _Sent(json.dumps({"input_tokens": taken}).encode())
        cached, self._before = (min(self._before, taken) if self._caches else 0), taken
        made = min(self._answer_tokens, body["max_tokens"])
        if call.url.endswith("/messages"):
            usage = {"input_tokens": taken - cached, "output_tokens": made, "cache_read_input_tokens": cached}
            return _Sent(json.dumps({"content": [{"type": "text", "text": "ok"}], "usage": usage}).encode())
        usage = {"prompt_tokens": taken, "completion_tokens": made}
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}}
        return _Sent(json.dumps({"choices": [choice], "usage": {**usage, **details}}).encode())

    async def close(self) -> None: ...


class _Sink:
    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        assert status == 200, body
        self.headers = headers

    async def begin(self, status: int, headers: Mapping[str, str]) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def end(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


class _NoOwners:
    async def key(self, agent_id: str, vendor: str) -> str | None:
        return None


async def spent(shape: str, price: str, caches: bool) -> tuple[float, float]:
    """Dollars, when the first call is refused; and what that call could have cost, at least."""
    language, context, result, answer_tokens = SHAPES[shape]
    given, made = (int(dollars * 1000) for dollars in PRICES[price])
    prices = PriceList(Price(given, made, given // CACHE_READ_PART if caches else given, given, price))
    name, api = ("messages", Api.ANTHROPIC) if price in ANTHROPICS else ("chat", Api.OPENAI)
    at = Target("bench", price, "http://vendor/v1", api, prices, "key")
    ledger = MemoryUsageLedger()
    ledger.add("ada", key_hash("k"), Caps(None, None, CAP_DOLLARS * NANODOLLARS_PER_DOLLAR, None))
    ids = (f"call-{number}" for number in itertools.count())
    calls = Calls(
        Models({"main": [at]}, {}), LedgerDesk(ledger), Vendor(answer_tokens, caches), _NoOwners(), Waits(),
        lambda: 0.0, ids.__next__,
    )  # fmt: skip
    draw = random.Random(1)
    system = {"role": "system", "content": text(draw, "english", PROMPT_BYTES // 2)}
    messages = [system] if name == "chat" else []
    messages.append({"role": "user", "content": text(draw, language, max(context, 500))})
    about = [text(draw, "english", 600) for _ in range(PROMPT_BYTES // 2 // 600)]
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": f"t{n}", "description": d}} for n, d in enumerate(about)
    ]
    anthropics = [tool["function"] for tool in tools]
    body: dict[str, Any] = {}
    for _ in range(CALLS_MAX):
        sink = _Sink()
        body = {"model": "main", "max_tokens": MAX_TOKENS, "messages": messages}
        body |= {"tools": tools} if name == "chat" else {"tools": anthropics, "system": system["content"]}
        raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        await calls.serve(SURFACES[name], Asked(key_hash("k"), raw, {}, "turn", ""), sink)
        if "x-tinyfat-refused" in sink.headers:
            break
        messages.append({"role": "assistant", "content": text(draw, language, 4 * answer_tokens)})
        messages.append({"role": "user", "content": text(draw, language, result)})
        if sum(len(message["content"]) for message in messages) > 300_000 + context:
            messages[1 + (name == "chat") :] = [
                {"role": "user", "content": text(draw, language, 2_000)}
            ]  # the runtime's compaction
    await calls.close()
    assert all(written.cost <= written.reservation.amount for written in ledger.calls), "a hold was below the truth"
    refused = input_tokens(body) * given + min(MAX_TOKENS, USEFUL_TOKENS_MIN) * made
    return (await ledger.spend("ada")).spent / NANODOLLARS_PER_DOLLAR, refused / NANODOLLARS_PER_DOLLAR


def text(draw: random.Random, language: str, size: int) -> str:
    """About so many bytes."""
    words = _WORDS[language].split(" ")
    found: list[str] = []
    while size > 0:
        found.append(draw.choice(words))
        size -= len(found[-1].encode()) + 1
    return " ".join(found)


async def measure() -> list[Figure]:
    figures: list[Figure] = []
    for shape, price, caches in itertools.product(SHAPES, PRICES, (False, True)):
        dollars, refused = await spent(shape, price, caches)
        left = 100 * (1 - dollars / CAP_DOLLARS)
        goal = max(UNSPENT_PERCENT_MAX, 100 * refused / CAP_DOLLARS + NEAR_PERCENT) if caches else UNSPENT_PERCENT_MAX
        what = f"of a cap of ${CAP_DOLLARS} unspent: {shape}, {price}{', cached' if caches else ''}"
        figures.append(Figure(what, "%", left, goal=goal))
        await asyncio.sleep(0)
    return figures
