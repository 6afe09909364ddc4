"""uvicorn's WebSocket, for peers that are hostile: no flood of frames holds the loop, or grows in memory.

uvicorn parses all that one read brings (up to 256 KiB, over forty thousand empty frames) in one go, keeps every
fragment of an unfinished message, and answers every ping, whether or not its answers are read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from websockets.frames import Frame

SLICE_BYTES = 4096  # parsed in one go: at most 682 frames of six bytes
FRAGMENTS_MAX = 1024  # of one message
CONTROLS_MAX = 100  # pings, pongs and empty fragments between two messages, in CONTROL_SECONDS
CONTROL_SECONDS = 10.0
_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class BoundedWebSocket(WebSocketsSansIOProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unread = bytearray()
        self._held = False  # we asked the transport to read no more
        self._feeding: asyncio.Handle | None = None
        self._controls = 0
        self._controls_since = 0.0

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._feeding is None:
            self._feed()

    def _feed(self) -> None:
        """One slice; the next when others had their turn, and once the application took what this one brought."""
        self._feeding = None
        if self.transport.is_closing():
            self._unread.clear()
            return
        piece = bytes(self._unread[:SLICE_BYTES])
        del self._unread[:SLICE_BYTES]
        if piece:
            super().data_received(piece)
        if self._unread:
            if not self._held and not self.transport.is_closing():
                self._held = True
                self.transport.pause_reading()
            if not self.read_paused:
                self._feeding = self.loop.call_soon(self._feed)
        elif self._held:
            self._held = False
            if not self.read_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._unread or self._held:
                if self._feeding is None:
                    self._feeding = self.loop.call_soon(self._feed)
            elif not self.transport.is_closing():
                self.transport.resume_reading()
        return message

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_MAX:
            self._end("too many fragments")
        elif event.data or event.fin or self._control_is_allowed():
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._control_is_allowed():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._control_is_allowed():
            super().handle_pong(event)

    def _control_is_allowed(self) -> bool:
        now = self.loop.time()
        if now - self._controls_since > CONTROL_SECONDS:
            self._controls, self._controls_since = 0, now
        self._controls += 1
        # Not writable: it sends and does not read, and our answers would pile up.
        if self._controls > CONTROLS_MAX or not self.writable.is_set():
            self._end("too many control frames")
            return False
        return True

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:  # frames that came before the WebSocket was there: nobody to say it to
            self.transport.abort()
        else:
            super().handle_parser_exception()

    def _end(self, words: str) -> None:
        """Asked for once; of what is left in this slice nothing counts."""
        if self.transport.is_closing():
            return
        self._unread.clear()
        self.conn.fail(_POLICY_VIOLATION, words)
        self.handle_parser_exception()
