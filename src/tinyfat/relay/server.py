"""The relay's own listener. aiohttp's server: measured beside starlette on uvicorn, as fast, and one library less."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from aiohttp import web

from tinyfat.domain.relay_keys import key_hash
from tinyfat.engine.connections import Connections, Door, affordable
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.relay.answering import JSON
from tinyfat.relay.batches import Overloaded
from tinyfat.relay.bodies import Bodies, Place, TooMuch
from tinyfat.relay.calls import UNKNOWN_KEY_WORDS, Calls
from tinyfat.relay.counting import PATH as COUNT_PATH
from tinyfat.relay.counting import CountTokens
from tinyfat.relay.headers import passed_on
from tinyfat.relay.models import Models
from tinyfat.relay.shapes.chat import Chat
from tinyfat.relay.shapes.embeddings import Embeddings
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.openai_errors import openai_error
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.vendors import Asked

CALLS_MAX = 2000  # at once
CALLS_PER_KEY_MAX = 400  # at once: one agent does not keep the others out
STRANGERS_MAX = (
    64  # keys at once that are looked up for the first time; of such a request no more is read than its head
)
STRANGERS_WAITING_MAX = 512  # more are told to come again
LINGER_SECONDS = 1.0  # what a refused client still sends is thrown away for so long: else it may not hear the refusal
CALL_SECONDS_MAX = 3660.0  # a minute more than a vendor has for its first byte: so the client hears of it
HEADER_SECONDS_MAX = 30.0
KEEPALIVE_SECONDS = 75.0
WORD_CHARS_MAX = 200
STOP_SECONDS_MAX = 5.0
WHOLE_BYTES_MAX = 256 * 1024  # of an answer that is handed to the socket in one piece
CONNECTIONS_MAX = 4096  # over its listeners; the boxes of this machine have half of them
CONNECTIONS_OF_PEER_MAX = 512  # a server's agents: a call each, and more of them than a key may make at once
LINES_AT_ONCE_MAX = 1000  # of one read (up to 256 KiB) that are parsed in one go
SLICE_BYTES = 8 * 1024  # of a read that has more
NOT_NOW_WORDS = (
    "The ledger does not answer, or too much is asked of it, so no call can be made now. Try again in a moment."
)

_MODELS = "/v1/models"

log = logging.getLogger(__name__)

_Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class RelayServer:
    def __init__(self, calls: Calls, models: Models, counting: CountTokens) -> None:
        self._calls, self._models, self._counting = calls, models, counting
        surfaces: tuple[Surface, ...] = (Chat(), Responses(), Embeddings(), Messages())
        self._surfaces = {surface.path: surface for surface in surfaces}
        self._at_once = 0
        self._of_key: dict[bytes, int] = {}  # by the key's hash
        self._bodies = Bodies()
        self._strangers = asyncio.Semaphore(STRANGERS_MAX)
        self._waiting = 0  # strangers, with those that are looked up
        self._runner: web.ServerRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = _Server(self._handle)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=STOP_SECONDS_MAX / 2)  # it waits twice
        await self._runner.setup()
        self._door = Door("relay", self._server, Connections(affordable(CONNECTIONS_MAX), CONNECTIONS_OF_PEER_MAX))
        await self.listen(listener)

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """On one more socket, once it was started; with `tls` for boxes that are on other machines."""
        assert self._runner is not None, "start comes first"
        self._door.listen(listener, tls)

    async def stop(self) -> None:
        """Calls under way get STOP_SECONDS_MAX; then they are cut, and settled as such."""
        if self._runner is not None:
            await self._door.close()
            await self._runner.cleanup()
        await self._calls.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._server.heard(request.protocol)
        path = request.path
        key = _key(request.headers)
        surface = self._surfaces.get(path) or self._surfaces["/v1/messages" if path == COUNT_PATH else Chat.path]
        sink = _HttpSink(request)
        try:
            if path == "/healthz":
                return web.json_response({"ok": True})
            if not key:
                raise TooMuch(401, "Give this agent's key as `Authorization: Bearer KEY` or `x-api-key: KEY`.")
            hashed = key_hash(key)
            if path == _MODELS or path.startswith(_MODELS + "/"):
                return await self._list_models(request, surface, hashed, path)
            if path not in self._surfaces and path != COUNT_PATH:
                raise TooMuch(404, f"There is no {path[:WORD_CHARS_MAX]} here.")
            if request.method != "POST":
                raise TooMuch(405, f"{path} takes POST.")
            if not await self._opens(hashed):
                raise TooMuch(401, UNKNOWN_KEY_WORDS)
            await self._bounded(surface, path, hashed, request, sink)
        except TooMuch as refused:
            await sink.whole(refused.status, {**JSON, **refused.headers}, surface.error(refused.status, str(refused)))
        except (StoreUnavailable, Overloaded) as error:
            log.warning("a call was not made: %s", error)
            await sink.whole(503, {**JSON, "retry-after": "2"}, surface.error(503, NOT_NOW_WORDS))
        if not request.content.is_eof():
            sink.response.force_close()  # whatever comes is no next request
        return sink.response

    async def _opens(self, key: bytes) -> bool:
        """Before a byte of its body is read. Raises TooMuch, StoreUnavailable, Overloaded."""
        if self._calls.seen(key):
            return True
        if self._waiting >= STRANGERS_WAITING_MAX:
            raise TooMuch(503, "Too many new keys at once; try again in a moment.", {"retry-after": "2"})
        self._waiting += 1
        try:
            async with self._strangers:
                return await self._calls.known(key)
        finally:
            self._waiting -= 1

    async def _bounded(
        self, surface: Surface, path: str, key: bytes, request: web.BaseRequest, sink: _HttpSink
    ) -> None:
        """One of so many calls at once, for so long."""
        if self._at_once >= CALLS_MAX or self._of_key.get(key, 0) >= CALLS_PER_KEY_MAX:
            raise TooMuch(429, "Too many calls at once; try again in a moment.")
        self._at_once += 1
        self._of_key[key] = self._of_key.get(key, 0) + 1
        taken = self._bodies.place(key)
        task = asyncio.current_task()
        assert task is not None
        ending = asyncio.get_running_loop().call_later(CALL_SECONDS_MAX, task.cancel)  # as if its client went away
        try:
            asked = await self._asked(request, key, taken)
            if path == COUNT_PATH:
                await self._counting.serve(asked, sink)
            else:
                await self._calls.serve(surface, asked, sink)
        finally:
            ending.cancel()
            self._bodies.leave(taken)
            self._at_once -= 1
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]

    async def _asked(self, request: web.BaseRequest, key: bytes, taken: Place) -> Asked:
        passed = passed_on(request.headers)
        body = await self._bodies.read(request, taken)
        turn, conversation = _word(request.headers, "x-tinyfat-turn"), _word(request.headers, "x-tinyfat-conversation")
        return Asked(key, body, passed, turn, conversation)

    async def _list_models(
        self, request: web.BaseRequest, surface: Surface, key: bytes, path: str
    ) -> web.StreamResponse:
        if request.method != "GET":
            raise TooMuch(405, f"{_MODELS} takes GET.")
        if not await self._opens(key):
            raise TooMuch(401, UNKNOWN_KEY_WORDS)
        listed = [_listed(name) for name in self._models.names]
        if path == _MODELS:
            ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
            return web.json_response({"object": "list", "data": listed, "has_more": False, **ends})
        wanted = path.removeprefix(_MODELS + "/")
        for model in listed:
            if model["id"] == wanted:
                return web.json_response(model)
        raise TooMuch(404, f"There is no model {wanted[:WORD_CHARS_MAX]!r} here.")


def _listed(name: str) -> dict[str, object]:
    """As both vendors list a model: each client reads its own fields."""
    return {
        "id": name, "object": "model", "created": 0, "owned_by": "tinyfat",
        "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z",
    }  # fmt: skip


class _Streamed(web.StreamResponse):
    """Its head and the first piece leave in one packet: to send one costs as much as to read all of a call."""

    _send_headers_immediately = False


class _HttpSink:
    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    @property
    def response(self) -> web.StreamResponse:
        """What was begun, or all of it."""
        assert self._response is not None, "every call ends in an answer"
        return self._response

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if len(body) <= WHOLE_BYTES_MAX:
            self._response = web.Response(status=status, headers=dict(headers), body=body)
            return
        await self.begin(status, {**headers, "content-length": str(len(body))})
        rest = memoryview(body)
        for start in range(0, len(rest), WHOLE_BYTES_MAX):
            await self.write(bytes(rest[start : start + WHOLE_BYTES_MAX]))
        await self.end(b"")

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._response = _Streamed(status=status, headers=headers)
        await self._response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        await self.response.write(data)

    async def end(self, data: bytes) -> None:
        await self.response.write_eof(data)

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class _Connection(web.RequestHandler):
    """What is no HTTP is answered as everything else is. A read of many short lines (each chunk of a byte has two) is
    parsed in slices, between which others have their turn."""

    __slots__ = ("_feeding", "_unread")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unread = b""
        self._feeding: asyncio.Handle | None = None

    def data_received(self, data: bytes) -> None:
        if self._unread and data:
            self._unread += data
        elif not data or data.count(b"\n") <= LINES_AT_ONCE_MAX:
            super().data_received(data)
        else:
            self._unread = data
            self._feed()

    def _feed(self) -> None:
        self._feeding = None
        if self.transport is None:
            self._unread = b""
            return
        piece, self._unread = self._unread[:SLICE_BYTES], self._unread[SLICE_BYTES:]
        super().data_received(piece)
        if self._unread:
            self._pause_transport_reading()
        if not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        """aiohttp's word for: more may come. What is here comes first."""
        if not self._unread:
            super()._resume_transport_reading()
        elif self._feeding is None:
            self._feeding = asyncio.get_running_loop().call_soon(self._feed)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status < 500:
            log.info("a request could not be read: %s", type(exc).__name__)
            words = "The request is no valid HTTP."
        else:
            log.error("a request failed", exc_info=exc)
            words = "The relay failed at this request."
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = web.Response(status=status, body=openai_error(status, words), content_type="application/json")
        response.force_close()
        return response


_CONNECTION: Mapping[str, Any] = {
    "access_log": None,
    "keepalive_timeout": KEEPALIVE_SECONDS,
    "lingering_time": LINGER_SECONDS,
    "auto_decompress": False,  # `bodies` does it, bounded, and after the key
}


class _Server(web.Server):
    """A connection that does not bring its first request's headers in time is closed."""

    def __init__(self, handle: _Handler) -> None:
        super().__init__(handle, handler_cancellation=True)
        self._silent: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> web.RequestHandler:
        handler = _Connection(self, loop=asyncio.get_running_loop(), **_CONNECTION)
        self._silent.add(handler)
        asyncio.get_running_loop().call_later(HEADER_SECONDS_MAX, self._close_silent, handler)
        return handler

    def heard(self, connection: asyncio.BaseProtocol) -> None:
        self._silent.discard(connection)

    def _close_silent(self, handler: web.RequestHandler) -> None:
        if handler in self._silent:
            self._silent.discard(handler)
            handler.force_close()


def _key(headers: Mapping[str, str]) -> str:
    """Empty where there is none. Anthropic's clients send the first, OpenAI's the second."""
    given = headers.get("x-api-key", "")
    if not given:
        kind, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip() if kind.lower() == "bearer" else ""
    return given[:WORD_CHARS_MAX]


def _word(headers: Mapping[str, str], name: str) -> str:
    return "".join(letter for letter in headers.get(name, "")[:WORD_CHARS_MAX] if letter.isprintable())
