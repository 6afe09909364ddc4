"""The relay's own listener. aiohttp's server: measured beside starlette on uvicorn, as fast, and one library less."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from tinyfat.domain.relay_keys import key_hash
from tinyfat.engine.connections import Connections, Door, affordable
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.relay.batches import Overloaded
from tinyfat.relay.calls import JSON, UNKNOWN_KEY_WORDS, Calls
from tinyfat.relay.counting import PATH as COUNT_PATH
from tinyfat.relay.counting import CountTokens
from tinyfat.relay.models import Models
from tinyfat.relay.shapes.chat import Chat
from tinyfat.relay.shapes.embeddings import Embeddings
from tinyfat.relay.shapes.messages import Messages
from tinyfat.relay.shapes.responses import Responses
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.vendors import Asked

BODY_BYTES_MAX = 32 * 1024 * 1024  # of one request: images travel in it
BODIES_BYTES_MAX = 256 * 1024 * 1024  # of all requests under way
BODY_SECONDS_MAX = 60.0
CALLS_MAX = 2000  # at once. Half of it, and of the bytes, is for keys that were seen to open something
CALLS_PER_KEY_MAX = 400  # at once: one agent does not keep the others out
CALL_SECONDS_MAX = 3600.0
HEADER_SECONDS_MAX = 30.0
KEEPALIVE_SECONDS = 75.0
WORD_CHARS_MAX = 200
STOP_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 4096  # over its listeners; the boxes of this machine have half of them
CONNECTIONS_OF_PEER_MAX = 512  # a server's agents: a call each, and more of them than a key may make at once

_PASSED = ("anthropic-version", "anthropic-beta", "openai-beta", "idempotency-key")
_MODELS = "/v1/models"

_Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class TooMuch(Exception):
    """The request is refused unread; `status` and the text are for the client."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(slots=True)
class _Taken:
    """Bytes of one request's body, and how many all of them together may be for it to be read."""

    room: int
    size: int = 0


class RelayServer:
    def __init__(self, calls: Calls, models: Models, counting: CountTokens) -> None:
        self._calls, self._models, self._counting = calls, models, counting
        surfaces: tuple[Surface, ...] = (Chat(), Responses(), Embeddings(), Messages())
        self._surfaces = {surface.path: surface for surface in surfaces}
        self._at_once = 0
        self._of_key: dict[bytes, int] = {}  # by the key's hash
        self._bodies_bytes = 0
        self._runner: web.ServerRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = _Server(self._handle)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=STOP_SECONDS_MAX)
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
            await self._bounded(surface, path, hashed, request, sink)
        except TooMuch as refused:
            await sink.whole(refused.status, JSON, surface.error(refused.status, str(refused)))
        except (StoreUnavailable, Overloaded):
            words = "The ledger does not answer, so no call can be made now. Try again in a moment."
            await sink.whole(503, JSON, surface.error(503, words))
        return sink.response

    async def _bounded(
        self, surface: Surface, path: str, key: bytes, request: web.BaseRequest, sink: _HttpSink
    ) -> None:
        """One of so many calls at once, for so long."""
        stranger = not self._calls.seen(key)
        room = CALLS_MAX // 2 if stranger else CALLS_MAX
        if self._at_once >= room or self._of_key.get(key, 0) >= CALLS_PER_KEY_MAX:
            raise TooMuch(429, "Too many calls at once; try again in a moment.")
        self._at_once += 1
        self._of_key[key] = self._of_key.get(key, 0) + 1
        taken = _Taken(BODIES_BYTES_MAX // 2 if stranger else BODIES_BYTES_MAX)
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
            self._bodies_bytes -= taken.size
            self._at_once -= 1
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]

    async def _asked(self, request: web.BaseRequest, key: bytes, taken: _Taken) -> Asked:
        body = await self._body(request, taken)
        headers = request.headers
        passed = {name: headers[name] for name in _PASSED if name in headers}
        turn, conversation = _word(headers, "x-tinyfat-turn"), _word(headers, "x-tinyfat-conversation")
        return Asked(key, body, passed, turn, conversation)

    async def _body(self, request: web.BaseRequest, taken: _Taken) -> bytes:
        """`taken` says how many bytes of it are held, also where it raises."""
        if request.content.is_eof():  # all there, as small ones mostly are: no timer is needed
            body = request.content.read_nowait()
            self._take(len(body), taken)
            return body
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                while piece := await request.content.readany():
                    self._take(len(piece), taken)
                    pieces.append(piece)
        except TimeoutError:
            raise TooMuch(408, f"The request did not arrive within {BODY_SECONDS_MAX:g} s.") from None
        return b"".join(pieces)

    def _take(self, size: int, taken: _Taken) -> None:
        """Raises TooMuch."""
        taken.size += size
        self._bodies_bytes += size
        if taken.size > BODY_BYTES_MAX:
            raise TooMuch(413, f"The request is over {BODY_BYTES_MAX} bytes.")
        if self._bodies_bytes > taken.room:
            raise TooMuch(503, "Too much is being asked at once; try again in a moment.")

    async def _list_models(
        self, request: web.BaseRequest, surface: Surface, key: bytes, path: str
    ) -> web.StreamResponse:
        if request.method != "GET":
            raise TooMuch(405, f"{_MODELS} takes GET.")
        if not await self._calls.known(key):
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
        self._response = web.Response(status=status, headers=dict(headers), body=body)

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


class _Server(web.Server):
    """A connection that does not bring its first request's headers in time is closed."""

    def __init__(self, handle: _Handler) -> None:
        super().__init__(handle, access_log=None, handler_cancellation=True, keepalive_timeout=KEEPALIVE_SECONDS)
        self._silent: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> web.RequestHandler:
        handler = super().__call__()
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
