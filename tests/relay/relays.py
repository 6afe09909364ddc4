"""A relay in this process over the stand-in, with a ledger in memory; and calls to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import anthropic
import openai
import uvicorn

from tests.running import until
from tinyfat.domain.prices import PriceList
from tinyfat.domain.relay_keys import key_from, key_hash
from tinyfat.domain.usage import Caps, Price
from tinyfat.drivers.inference.http import HttpInference
from tinyfat.drivers.usage.memory import MemoryUsageLedger, Written
from tinyfat.ports.inference import Api, Target
from tinyfat.relay.batches import LedgerDesk
from tinyfat.relay.calls import Calls
from tinyfat.relay.counting import CountTokens
from tinyfat.relay.models import Models
from tinyfat.relay.server import RelayServer
from tinyfat.relay.vendors import Waits
from tinyfat.standins.model import model_app

PRICE = PriceList(Price(300, 1200, 30, 375, "test"))
VENDOR_KEY = "vendor-key-PLANTED-7d1f"
OWNER_KEY = "owner-key-PLANTED-0c4e"
NO_CAPS = Caps(None, None, None, None)
EVERYTHING = frozenset(("chat", "responses", "embeddings", "messages", "count_tokens"))
KEY = key_from(b"k" * 32)
SECONDS_MAX = 10.0


class _Quiet(uvicorn.Server):
    """No signals, no looking ten times a second whether it should end, no goodbye."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class StandIn:
    """The stand-in for a vendor, and every request it got."""

    def __init__(self) -> None:
        self.requests: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.bodies: list[bytes] = []
        self.gone = 0
        self._listener = listening()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._server = _Quiet(uvicorn.Config(self._app, log_config=None, lifespan="off", interface="asgi3"))
        self._inner = model_app(lambda _, body: self.requests.append(body))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
            elif message.get("body"):
                self.bodies.append(message["body"])
            return message

        await self._inner(scope, heard, send)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        await until(self._started, SECONDS_MAX, "the stand-in serves")

    async def _started(self) -> bool:
        return self._server.started

    async def stop(self) -> None:
        self._server.ending.set()
        await self._task


class NoOwners:
    async def key(self, agent_id: str, vendor: str) -> str | None:
        return OWNER_KEY if vendor == "owners" else None


class TestRelay:
    __test__ = False

    def __init__(self, standin: StandIn, port: int, ledger: MemoryUsageLedger, server: RelayServer) -> None:
        self.standin, self.port, self.ledger, self.server = standin, port, ledger, server
        self.url = f"http://127.0.0.1:{port}"

    def openai(self, key: str = KEY, **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0, **more)

    def anthropic(self, key: str = KEY, **more: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(api_key=key, base_url=self.url, max_retries=0, **more)

    async def ended(self, calls: int = 1) -> list[Written]:
        """When so many calls are in the ledger, and nothing is held."""

        async def written() -> bool:
            return len(self.ledger.calls) >= calls and not self.ledger._holds

        await until(written, SECONDS_MAX, f"{calls} calls are settled: {self.ledger.calls} {self.ledger._holds}")
        return self.ledger.calls

    async def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Raw: the status and all the bytes of the answer."""
        import aiohttp

        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **(headers or {})}
        async with aiohttp.ClientSession() as session, session.post(self.url + path, data=data, headers=sent) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def relaying(
    aliases: Mapping[str, list[Target]] | None = None, caps: Caps = NO_CAPS, waits: Waits | None = None, byok: str = "",
    prices: PriceList = PRICE, owners_prices: PriceList = PRICE, owners_url: str = "",
) -> AsyncIterator[TestRelay]:  # fmt: skip
    """`aliases`: beside `main`, which is the stand-in, as the owners' vendor is unless `owners_url` names another."""
    standin = StandIn()
    await standin.start()
    ledger = MemoryUsageLedger()
    ledger.add("ada", key_hash(KEY), caps, byok)
    main = [replace(target(standin.url), prices=prices)]
    owners = replace(target(owners_url or standin.url, "owners", "owners-model"), prices=owners_prices)
    models = Models({"main": main, **(aliases or {})}, {"owners": owners})
    vendors = HttpInference()
    numbers = itertools.count(1)
    clock = asyncio.get_running_loop().time
    calls = Calls(
        models, LedgerDesk(ledger), vendors, NoOwners(), waits or Waits(), clock, lambda: f"call-{next(numbers)}"
    )
    server = RelayServer(calls, models, CountTokens(calls))
    listener = listening()
    await server.start(listener)
    try:
        yield TestRelay(standin, listener.getsockname()[1], ledger, server)
    finally:
        await server.stop()
        await vendors.close()
        await standin.stop()


def target(url: str, vendor: str = "stand-in", model: str = "vendors/own-name", api: Api = Api.OPENAI) -> Target:
    return Target(vendor, model, url, api, PRICE, VENDOR_KEY, EVERYTHING)


def listening() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "main", "messages": [{"role": "user", "content": text}], **more}
