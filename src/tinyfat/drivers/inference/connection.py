"""One connection to a vendor: HTTP/1.1 (RFC 9112), one call at a time, kept for the next. httptools reads the bytes;
what it finds is handed over as it comes. Why not a library's client: docs/decisions/0011.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import httptools

from tinyfat.ports.inference import VendorCut

UNREAD_BYTES_MAX = 256 * 1024  # of an answer: as much waits for a slow client; then the vendor waits too
FRAME_BYTES_MAX = 64 * 1024  # of head, chunk sizes and trailers, between two pieces of a body
PIECE_COST = 64  # bytes that a piece counts besides its own: an answer in chunks of a few bytes is many objects
PROVISIONAL_MAX = 1000  # answers before the answer (RFC 9110, 15.2): one in four seconds for as long as is waited
UNPACKED_BYTES_MAX = 16 * 1024 * 1024  # of one packed piece, and of all that wait
KEEPALIVE_SECONDS = 30.0  # unused for so long, it is closed

_BODILESS = (204, 304)  # RFC 9112, 6.3
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # Python's zlib: "automatically accepts either the zlib or gzip format"
_CODINGS = ("gzip", "x-gzip", "deflate")

Gone: TypeAlias = "Callable[[Connection], None]"


class Connection(asyncio.Protocol):
    """A call is `send`, `head`, `read` until it gives nothing, `rest`. `gone` is called when it is closed."""

    transport: asyncio.Transport
    status: int  # of the answer; 0 until it is there
    headers: dict[str, str]
    _asleep: bool  # no call is under way
    _unread: list[bytes]
    _ended: bool
    _paused: bool
    _waiter: asyncio.Future[None] | None
    _unpack: Any  # a zlib decompressor, which has no public type

    def __init__(self, gone: Gone) -> None:
        self._loop = asyncio.get_running_loop()
        self._gone = gone
        self._parser = httptools.HttpResponseParser(self)
        self._broken = ""
        self.silent = False  # that is why it was closed
        self._watch: asyncio.TimerHandle | None = None
        self._forget_answer()

    def send(self, head: bytes, body: bytes, until: float) -> None:
        """`until`, by the loop's clock: the answer's first piece must be there; then see `wait_at_most`."""
        self._forget_answer()
        self._asleep = False
        self._deadline = until
        self._watch_over()
        self.transport.writelines((head, body))

    def wait_at_most(self, seconds: float) -> None:
        """For each further piece."""
        self._patience = seconds

    async def head(self) -> int:
        """The status; then `headers` are there, their names in lower case. Raises VendorCut."""
        while not self.status:
            await self._more(0.0)
        return self.status

    async def read(self) -> bytes:
        """All that came; empty at the end. Raises VendorCut."""
        patience = self._patience
        while not self._unread:
            if self._ended:
                return b""
            await self._more(patience)
            patience = 0.0  # bytes that are no piece, of a chunk's frame, do not move the bound
        data = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
        self._unread = []
        self._unread_bytes = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return data

    def rest(self) -> bool:
        """The call is over. True where it can be used for another; else it is closed."""
        unsent = self.transport.get_write_buffer_size()
        if not self._reusable or self._broken or self._unread or self._waiter is not None or unsent:
            self.close()
            return False
        self._asleep = True
        self._deadline = self._loop.time() + KEEPALIVE_SECONDS
        self._watch_over()
        return True

    @property
    def closing(self) -> bool:
        """Also before `gone` says so: the loop has yet to come to it."""
        return self.transport.is_closing()

    def close(self) -> None:
        """What was not read is forgotten."""
        self._unread = []
        self._break("it was closed")

    def _forget_answer(self) -> None:
        self.status = 0
        self.headers = {}
        self._asleep = True
        self._ended = self._reusable = self._until_close = self._paused = False
        self._unread = []
        self._unread_bytes = self._frame_bytes = self._provisional = 0
        self._unpack = None
        self._waiter = None
        self._patience = 0.0

    async def _more(self, patience: float) -> None:
        """Within so many seconds; 0: the bound stands where it is."""
        if self._broken:
            raise VendorCut(self._broken)
        if patience:
            self._deadline = self._loop.time() + patience
            self._watch_over()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, why: str) -> None:
        if not self._broken:  # asyncio's transport does not bear it twice
            self._broken = why
            self.transport.abort()
        self._wake()

    def _watch_over(self) -> None:
        """One timer, which looks at the deadline when it goes off: to move it with every piece costs as much as one."""
        if self._watch is not None:
            if self._watch.when() <= self._deadline:
                return
            self._watch.cancel()
        self._watch = self._loop.call_at(self._deadline, self._late)

    def _late(self) -> None:
        self._watch = None
        now = self._loop.time()
        if self._waiter is None and not self._asleep:  # a client reads slowly: nobody waits for the vendor
            self._deadline = now + max(self._patience, 1.0)
        if now < self._deadline:
            self._watch_over()
        else:
            self.silent = True
            self._break("it was silent for too long")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._asleep:
            return self._break("it spoke unasked")
        self._frame_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return self._break(f"its answer is no HTTP: {error.__context__ or error}")
        if self._frame_bytes > FRAME_BYTES_MAX:
            return self._break(f"its answer's head or frame is over {FRAME_BYTES_MAX} bytes")
        self._wake()
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if self._until_close and error is None and not self._broken and self._unpacked():
            self._ended = True
        self._broken = self._broken or "the connection was closed"
        if self._watch is not None:
            self._watch.cancel()
        self._gone(self)
        self._wake()

    # httptools

    def on_message_begin(self) -> None:
        if self._ended:
            raise ValueError("a second one to one call")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # a trailer is not ours
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._frame_bytes = 0
        status = self._parser.get_status_code()
        if status < 200:  # provisional (RFC 9110, 15.2): another follows
            self.headers = {}
            self._provisional += 1
            if self._provisional > PROVISIONAL_MAX:
                raise ValueError(f"over {PROVISIONAL_MAX} provisional answers")
            return
        self.status = status
        framing = self.headers.get("transfer-encoding", "chunked").lower()
        if framing != "chunked":  # llhttp leaves what else was done to the body as it is
            raise ValueError(f"framed as {framing[:20]!r}, which nobody asked for")
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self._until_close = not framed and status not in _BODILESS
        coding = self.headers.get("content-encoding", "identity").lower()
        if coding in _CODINGS:
            self._unpack = zlib.decompressobj(_GZIP_OR_ZLIB)
        elif coding != "identity":
            raise ValueError(f"packed as {coding[:20]!r}, which nobody asked for")

    def on_body(self, body: bytes) -> None:
        self._frame_bytes = 0
        if self._unpack is not None:
            body = self._unpack.decompress(body, UNPACKED_BYTES_MAX)
            if self._unpack.unconsumed_tail or self._unread_bytes > UNPACKED_BYTES_MAX:
                raise ValueError(f"a piece unpacks to over {UNPACKED_BYTES_MAX} bytes")
            if self._unpack.unused_data:
                raise ValueError("more follows what was packed")
        if not body:
            return
        self._unread.append(body)
        self._unread_bytes += len(body) + PIECE_COST
        if self._unread_bytes > UNREAD_BYTES_MAX and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status:
            if not self._unpacked():
                raise ValueError("what was packed broke off")
            self._ended = True
            self._reusable = self._parser.should_keep_alive()  # the parser knows it only here

    def _unpacked(self) -> bool:
        return self._unpack is None or bool(self._unpack.eof)
