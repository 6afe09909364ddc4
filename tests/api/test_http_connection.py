"""Each wait on an HTTP connection has its end, each size its bound; what answers in time is not disturbed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, Response

from tests.machine_speed import patient
from tests.running import until
from tinyfat.api import http_connection
from tinyfat.cli import serving_http
from tinyfat.cli.serving_http import http_served

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Story = Callable[[Coroutine[Any, Any, None]], None]
either_loop = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
CHUNKED = b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIP_SECONDS = 0.01
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def _app() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/")
    async def hello() -> Response:
        return PlainTextResponse("hello")

    @app.post("/unread")
    async def unread(request: Request) -> Response:
        return PlainTextResponse("not read")

    @app.post("/size")
    async def size(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    @app.get("/large")
    async def large() -> Response:
        return Response(bytes(50_000_000))

    @app.websocket("/socket")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())

    return app


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    async with http_served("test", _app(), listener):
        yield port


@asynccontextmanager
async def connected(port: int, **arguments: Any) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **arguments)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def told(port: int, *pieces: bytes) -> bytes:
    """All that the server says until it ends the connection."""
    async with connected(port) as (reader, writer):
        try:
            async with asyncio.timeout(patient(20)):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                return await reader.read()
        except ConnectionError:
            return b"(reset)"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS_MAX", "UNREAD_SECONDS_MAX", "CLOSE_SECONDS_MAX"):
        monkeypatch.setattr(http_connection, name, 0.1)
    monkeypatch.setattr(serving_http, "KEEPALIVE_SECONDS", 0.1)


SILENT = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "an answer, then half a head": GET + b"GET / HT",
}


@either_loop
@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT.keys())
def test_who_does_not_finish_a_head_is_closed(run: Story, quick: None, sent: bytes) -> None:
    async def story() -> None:
        async with served() as port:
            said = await told(port, sent)
            assert said.count(b"hello") == sent.count(GET)

    run(story())


@either_loop
def test_a_head_that_drips_has_no_more_time(run: Story, quick: None) -> None:
    async def story() -> None:
        async with served() as port, connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n")

            ended = asyncio.create_task(reader.read())
            async with asyncio.timeout(patient(20)):
                while not ended.done():
                    writer.write(b"a: b\r\n")
                    await asyncio.wait({ended}, timeout=DRIP_SECONDS)
            with suppress(ConnectionError):
                assert await ended == b""

    run(story())


@either_loop
def test_a_body_that_nobody_reads_is_not_waited_for(run: Story) -> None:
    async def story() -> None:
        async with served() as port:
            said = await told(port, b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
            assert b"not read" in said

    run(story())


@either_loop
def test_a_client_that_does_not_read_is_cut(run: Story, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = http_connection.HttpConnection.connection_lost

    async def story() -> None:
        cut = asyncio.Event()

        def connection_lost(self: http_connection.HttpConnection, error: Exception | None) -> None:
            lost(self, error)
            cut.set()

        monkeypatch.setattr(http_connection.HttpConnection, "connection_lost", connection_lost)
        async with served() as port, connected(port, limit=1024) as (reader, writer):
            writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(1000)
            async with asyncio.timeout(patient(20)):
                await cut.wait()
            try:
                async with asyncio.timeout(patient(20)):
                    read = len(await reader.read())
            except ConnectionError:
                read = 0
            assert read < 50_000_000

    run(story())


TOO_MUCH = {
    "a long target": b"GET /" + b"a" * 300_000,
    "one long header": b"GET / HTTP/1.1\r\nHost: " + b"a" * 300_000,
    "a long name": b"GET / HTTP/1.1\r\n" + b"a" * 300_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 60_000,
    "trailers": CHUNKED + b"0\r\n" + b"a: b\r\n" * 60_000,
    "chunks of one byte": b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * 60_000,
    "chunk extensions": CHUNKED + b"1;" + b"a" * 300_000,
    "requests behind one another": GET * 20_000,
}


@either_loop
@pytest.mark.parametrize("sent", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_is_too_much_beside_a_body_ends_the_connection(run: Story, sent: bytes) -> None:
    async def story() -> None:
        async with served() as port:
            said = await told(port, *(sent[at : at + 50_000] for at in range(0, len(sent), 50_000)))
            assert said.count(b"hello") <= 10_000
            assert (await told(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).endswith(b"hello")

    run(story())


@either_loop
def test_what_is_usual_passes(run: Story) -> None:
    async def story() -> None:
        async with served() as port:
            chunks = b"%x\r\n%s\r\n" % (1000, b"x" * 1000) * 20_000 + b"0\r\n\r\n"
            head = b"POST /size HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await told(port, head, chunks)).endswith(b"20000000")
            last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            assert (await told(port, GET * 8 + last)).count(b"hello") == 9

    run(story())


@either_loop
def test_a_websocket_is_not_held_to_a_heads_time(run: Story, quick: None) -> None:
    async def story() -> None:
        async with served() as port, connected(port) as (reader, writer):
            writer.write(
                b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert b"101" in await reader.readuntil(b"\r\n\r\n")
            assert await told(port, b"GET / HT") == b""  # one that came later had a head's time
            writer.write(b"\x81\x82\x00\x00\x00\x00hi")  # RFC 6455 5.2: a text frame, masked with zeros
            async with asyncio.timeout(patient(20)):
                assert await reader.readexactly(4) == b"\x81\x02hi"

    run(story())


@either_loop
def test_connections_are_bounded_and_their_places_come_back(run: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_http, "CONNECTIONS_MAX", 4)

    async def story() -> None:
        async with served() as port:
            async with connected(port), connected(port):
                assert b"503" in await told(port)

            async def answered() -> bool:
                last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                return b"hello" in await told(port, last)

            await until(answered, 20, "there is a place again")

    run(story())
