"""One vendor's answer, as far as it has come: what kind it is, whether it is an answer at all, and how to read on.

Every wait here can be cancelled and taken up again: a client that hangs up ends its own call, and not the vendor's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping

from tinyfat.engine.reading import Held, TooMuchBeingRead
from tinyfat.ports.inference import Answer, Sent, Target, VendorCut
from tinyfat.relay.answer_body import Said, read_answer, unread_answer
from tinyfat.relay.shapes.faults import UNTOLD, Fault
from tinyfat.relay.shapes.sse import StreamReader
from tinyfat.relay.shapes.surface import Surface
from tinyfat.relay.vendor_errors import told_event

ANSWER_BYTES_MAX = 64 * 1024 * 1024  # of an answer that is not streamed
ANSWERS_BYTES_MAX = 256 * 1024 * 1024  # of all such answers that are here at once; of one key's, half
ERROR_BYTES_MAX = 64 * 1024  # of a vendor's error that is passed on
LAST_SECONDS_MAX = 2.0  # for what a vendor sends behind its last word
PRELUDE_SECONDS_MAX = 1.0  # so long what says nothing yet is kept back: an error may follow, and another vendor answer
PRELUDE_BYTES_MAX = 256 * 1024

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_REASON = re.compile(rb'"(?:finish_reason|stop_reason)"\s*:\s*"|"response\.(?:completed|incomplete)"')
_BLANK = b"\xef\xbb\xbf \t\r\n"


class Reply:
    """`begin`, then what `fault`, `status` and `reader` say. Close it in any case."""

    def __init__(
        self, surface: Surface, target: Target, key: str, sent: Sent, streamed: bool, strip_usage: bool, room: Held,
        lowered: int = 0,
    ) -> None:  # fmt: skip
        """`key`: the call was made with, the target's or an owner's. `room`: for what is not streamed; it is given back
        with `close`."""
        self.key = key
        self.target, self.lowered = target, lowered  # tokens: the bound of the answer, where a cap left no more
        self.reader: StreamReader | None = None  # of an answer that is streamed
        self.fault: Fault | None = None  # it says 200 and is an error, or broke off before it said anything
        self.cut: VendorCut | None = None  # it broke off while it was judged
        self.body = b""  # of one that is not, or of an error: when it is all there
        self.said: Said | None = None  # of such a one, also where it broke off
        self._surface, self._sent, self._streamed, self._strip_usage = surface, sent, streamed, strip_usage
        self._room = room
        self._answer: Answer | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._ready: list[bytes] = []  # of a stream: kept back while it is judged
        self._coming: asyncio.Task[bytes] | None = None

    @property
    def answered(self) -> bool:
        """Its status is known."""
        return self._answer is not None

    @property
    def status(self) -> int:
        """Of an error that says 200, what it should have said."""
        assert self._answer is not None
        return self._answer.status if self.fault is None else self.fault.status

    @property
    def headers(self) -> Mapping[str, str]:
        assert self._answer is not None
        return self._answer.headers

    @property
    def charged(self) -> bool:
        """It names a usage: whatever else it is, the vendor may bill it."""
        if self.reader is not None:
            return bool(self.reader.counts)
        return self.said is not None and bool(self.said.counts)

    async def begin(self) -> None:
        """Until it is known what it is: of a stream, until it says something; of any other, all of it. Raises
        VendorUnreachable, and VendorCut where it was not streamed and broke off."""
        self._answer = await self._sent.answer()
        if self._answer.status >= 300:
            try:
                await self._gather(ERROR_BYTES_MAX)
            except VendorCut:
                self._pieces = []
            self._read()
            return
        first = await self._next()
        if looks_streamed(self.headers.get("content-type", ""), first, self._streamed):
            self.reader = self._stream()
            await self._prelude(self.reader, first)
            return
        self._add(first)
        try:
            await self._gather(ANSWER_BYTES_MAX)
        except VendorCut:
            self._broken_off()
            raise
        self._read()

    def _stream(self) -> StreamReader:
        reader = self._surface.stream(self._strip_usage)
        reader.telling = lambda event, body: told_event(event, body, self.key)
        return reader

    async def ready(self) -> AsyncIterator[bytes]:
        """Of a stream: what may leave, as it comes. Raises VendorCut."""
        assert self.reader is not None and self._answer is not None
        if kept := b"".join(self._ready):
            self._ready = []
            yield kept
        if self.cut is not None:
            raise self.cut
        while piece := await (self._last() if self.reader.finished else self._next()):
            if out := self.reader.feed(piece):
                yield out

    async def _last(self) -> bytes:
        """Behind its last word: a usage perhaps, and the end. Who stays on the line, or hangs up there, has ended."""
        try:
            async with asyncio.timeout(LAST_SECONDS_MAX):
                return await self._next()
        except (TimeoutError, VendorCut):
            return b""

    async def finish(self, silence_seconds: float, bytes_max: int) -> None:
        """Read on, for nobody, until it ends, is silent for so long, or has become so long. Raises VendorCut,
        VendorUnreachable, TimeoutError."""
        loop = asyncio.get_running_loop()
        size = 0
        async with asyncio.timeout(silence_seconds) as silence:
            if self._answer is None:
                self._answer = await self._sent.answer()
                silence.reschedule(loop.time() + silence_seconds)
            try:
                while piece := await self._next():
                    silence.reschedule(loop.time() + silence_seconds)
                    size += len(piece)
                    if size > bytes_max:
                        raise VendorCut(f"longer than {bytes_max} bytes")
                    self._take(piece)
            except BaseException:
                self._broken_off()
                raise
        if self.reader is None:
            self._read()
        else:
            self.reader.end()

    def close(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
        if self._answer is not None:
            self._answer.close()
        self._sent.close()
        self._room.end()

    async def _prelude(self, reader: StreamReader, piece: bytes) -> None:
        """What comes before the model says anything is kept back for a moment: until then another vendor can answer
        without the client seeing two."""
        assert self._answer is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + PRELUDE_SECONDS_MAX
        raw: list[bytes] = []
        try:
            while piece:
                raw.append(piece)
                self._ready.append(reader.feed(piece))
                if reader.fault or reader.finished or reader.told or reader.speaks:
                    break
                if reader.passed_bytes > PRELUDE_BYTES_MAX:
                    break
                self._coming = asyncio.create_task(self._answer.next(), name="a vendor's next piece")
                if not (await asyncio.wait({self._coming}, timeout=until - loop.time()))[0]:
                    break
                piece = await self._next()
        except VendorCut as cut:
            self.cut = cut
        if not reader.told and not reader.speaks:
            self.fault = reader.fault or self._nothing_in(b"".join(raw), not piece or reader.finished)

    def _nothing_in(self, raw: bytes, ended: bool) -> Fault | None:
        if self.cut is not None:
            return Fault(UNTOLD, "it broke off before it said anything")
        return Fault(UNTOLD, "it said nothing") if ended and not _REASON.search(raw) else None

    async def _next(self) -> bytes:
        """The piece that is waited for, else the next one; empty at the end. Raises VendorCut."""
        assert self._answer is not None
        if self._coming is None:
            return await self._answer.next()
        piece = await asyncio.shield(self._coming)
        self._coming = None
        return piece

    def _take(self, piece: bytes) -> None:
        first = self.reader is None and not self._pieces and self.status < 400
        if first and looks_streamed(self.headers.get("content-type", ""), piece, self._streamed):
            self.reader = self._stream()
        if self.reader is not None:
            self.reader.feed(piece)
        else:
            self._add(piece)

    async def _gather(self, bytes_max: int) -> None:
        while piece := await self._next():
            self._add(piece)
            if self._size > bytes_max:
                raise VendorCut(f"longer than {bytes_max} bytes")

    def _add(self, piece: bytes) -> None:
        """Raises VendorCut, where so many answers are here that there is no room for more of this one."""
        try:
            self._room.more(len(piece))
        except TooMuchBeingRead as error:
            raise VendorCut(f"it is not read on: {error}") from None
        self._pieces.append(piece)
        self._size += len(piece)

    def _broken_off(self) -> None:
        """What came of one that is not streamed may hold its usage."""
        if self.reader is None:
            self.said = unread_answer(self._surface, b"".join(self._pieces))

    def _read(self) -> None:
        """All of it is there."""
        assert self._answer is not None
        self.body = b"".join(self._pieces)
        self._pieces = [self.body]  # once in memory
        content_type = self.headers.get("content-type", "")
        status = self._answer.status
        self.said = read_answer(self._surface, self.body, status, content_type)
        self.fault = self.said.fault if not 300 <= status < 400 else Fault(UNTOLD, f"it answered {status}")


def looks_streamed(content_type: str, first: bytes, wanted: bool) -> bool:
    """By its first bytes before all: types are forgotten, and written in many ways."""
    start = first.lstrip(_BLANK)[:16]
    if start[:1] in (b"{", b"["):
        return False
    kind = content_type.strip().lower()
    if kind.startswith("text/event-stream") or start.startswith(_FIELDS):
        return True
    return wanted and start[:1] != b"<" and "json" not in kind
