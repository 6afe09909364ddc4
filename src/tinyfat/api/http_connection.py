"""One HTTP connection's deadlines and bounds, which uvicorn does not have: it waits for ever for a half head, a body
that nobody reads and a client that does not read, and takes a head of any size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS_MAX = 20.0  # from the connection, or a request's first byte, to the end of its head
HEAD_BYTES_MAX = 64 * 1024  # of a head, of trailers, of what chunks are framed with
FRAMING_PART = 16  # chunks may be framed with a sixteenth of what they carry, and that is not counted
CHUNK_BYTES_MIN = 5  # of a chunk's own framing: a digit and two line ends
PIPELINED_MAX = 16  # requests that wait behind one
UNREAD_SECONDS_MAX = 60.0  # that a client may leave an answer unread
CLOSE_SECONDS_MAX = 10.0  # for an answer's last bytes, once the connection is to end


class TooMuchSent(Exception):
    """The parser stops, the client hears 400, the connection ends."""


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol with an end to each wait."""

    _beside = 0  # bytes of this request that are not its body
    _framing = 0  # of them those of chunks, counted while one read is parsed: it may bring 40,000 of them
    _reading = False  # its head is there, and its body is not yet
    _waits: dict[str, asyncio.TimerHandle] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits = {}
        self._within(HEAD_SECONDS_MAX, "head", transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in tuple(self._waits or ()):
            self._done(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._reading and (self.cycle is None or self.cycle.response_complete):
            self._within(HEAD_SECONDS_MAX, "head", self.transport.close)
        self._beside += len(data)
        super().data_received(data)
        if self._beside > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("Too much beside the body.")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            raise TooMuchSent
        self._beside = self._framing = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._beside += len(name) + len(value)  # again: one read may bring more than the bound at once
        if self._beside > 2 * HEAD_BYTES_MAX + len(name) + len(value):
            raise TooMuchSent
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._done("head")
        self._reading = True
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._framing += CHUNK_BYTES_MIN
        if self._framing > HEAD_BYTES_MAX:
            raise TooMuchSent

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body) + len(body) // FRAMING_PART
        self._framing = max(0, self._framing - len(body) // FRAMING_PART)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last and self._reading and not self.transport.is_closing():
            self.transport.close()  # the rest of a body that nobody reads is not waited for
        if self.transport.is_closing():
            self._within(CLOSE_SECONDS_MAX, "close", self.transport.abort)

    def handle_websocket_upgrade(self) -> None:
        self._done("head")  # from now on pings tell who is still there
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._within(UNREAD_SECONDS_MAX, "unread", self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._done("unread")

    def _within(self, seconds: float, name: str, end: Callable[[], None]) -> None:
        if self._waits is not None and name not in self._waits:
            self._waits[name] = self.loop.call_later(seconds, end)

    def _done(self, name: str) -> None:
        if self._waits and (wait := self._waits.pop(name, None)):
            wait.cancel()
