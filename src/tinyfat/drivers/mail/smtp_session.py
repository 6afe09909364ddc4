"""One SMTP session on aiosmtpd, with what it does not have: an end for whoever talks and sends no mail, one bound for
what all sessions have in memory, and a DATA that is read in pieces and not line by line."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, cast

from aiosmtpd.smtp import SMTP

from tinyfat.engine.connections import peer_of
from tinyfat.engine.reading import Held, Reading, TooMuchBeingRead

TALK_SECONDS_MAX = 300.0  # without a mail that was accepted, its DATA not counted
IDLE_SECONDS_MAX = 300.0  # RFC 5321 4.5.3.2.7: at least 5 min
DATA_SECONDS_MAX = 900.0  # for all of a mail; 25 MB then come at 28 kB/s
CLOSE_SECONDS_MAX = 5.0
# RFC 5321 4.5.3.1.6 lets a peer send 1000, and asks us to take more where we can: others do, and a 500 loses the mail.
LINE_BYTES_MAX = 64 * 1024
# Commands in one session; "*": of each other one. A smarthost sends thousands of mails in one, and no thousand NOOPs.
COMMANDS_MAX = {"*": 20_000, "NOOP": 100, "VRFY": 100, "EXPN": 20, "HELP": 20, "HELO": 100, "EHLO": 100, "AUTH": 5}

# RFC 5321 4.1.2: a Path whose local part is a Dot-string, as nearly every one is; parameters may follow.
PLAIN_PATH = re.compile(r"<([A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>(?: +|$)")
# C0, DEL, C1 and the line ends of Unicode (RFC 5321 4.1.2 and RFC 6531 3.3 know none of them), and bytes that are no
# UTF-8, which came as surrogates.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The parser of what is no plain address takes milliseconds for a line of dots, routes or comments; RFC 5321 4.1.2 knows
# no comments, and nobody sends routes of many hosts (appendix C).
COSTLY = '(),:;<>@[\\". '
COSTLY_MAX = 40
_END = b"\r\n.\r\n"


class SmtpReading:
    """What the sessions of one server may have in memory: of all bodies being read half, of that a peer half."""

    def __init__(self, reading: Reading, size_max: int) -> None:
        self._all = reading
        self._peers = Reading(max(2 * size_max, reading.bytes_max // 2))

    def hold(self, peer: object) -> tuple[Held, Held]:
        return self._all.hold(whose="smtp"), self._peers.hold(whose=peer_of(peer))


class SmtpSession(SMTP):
    """`sessions` has it while it is open."""

    line_length_limit = LINE_BYTES_MAX

    def __init__(self, handler: object, *, sessions: set[SmtpSession], reading: SmtpReading, **arguments: Any) -> None:
        super().__init__(handler, timeout=IDLE_SECONDS_MAX, command_call_limit=COMMANDS_MAX, **arguments)
        self._open_sessions = sessions
        self._reading = reading
        self._talk: asyncio.TimerHandle | None = None
        self._talk_until = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Called once more after STARTTLS: that is no new session.
        if self not in self._open_sessions:
            self._open_sessions.add(self)
            self._talk_until = self.loop.time() + TALK_SECONDS_MAX
            self._await_mail()
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._open_sessions.discard(self)
        if self._talk is not None:
            self._talk.cancel()
        super().connection_lost(error)

    async def push(self, status: Any) -> None:
        """A reply, before which it is the others' turn: of commands that came in one piece, each would be the next at
        once. Not behind it: what a peer sends upon "220 Ready to start TLS" must find TLS there."""
        await asyncio.sleep(0)
        await super().push(status)

    async def smtp_HELO(self, hostname: str) -> None:
        if not await self._is_controlled(hostname):
            await super().smtp_HELO(hostname)

    async def smtp_EHLO(self, hostname: str) -> None:
        if not await self._is_controlled(hostname):
            await super().smtp_EHLO(hostname)

    async def smtp_DATA(self, arg: str) -> None:
        """As aiosmtpd's, but for how it reads: there a body of short lines is an object a line."""
        if await self.check_helo_needed():
            return
        assert self.envelope is not None and self.session is not None
        if not self.envelope.rcpt_tos:
            await self.push("503 Error: need RCPT command")
            return
        if arg:
            await self.push("501 Syntax: DATA")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        if self._talk is not None:
            self._talk.cancel()
        self._reset_timeout(DATA_SECONDS_MAX)
        held, held_of_peer = self._reading.hold(self.session.peer)
        with held, held_of_peer:
            status = await self._taken(held, held_of_peer)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        if status.startswith("2"):
            self._talk_until = self.loop.time() + TALK_SECONDS_MAX
        self._reset_timeout()
        self._await_mail()
        await self.push(status)

    def _await_mail(self) -> None:
        self._talk = self.loop.call_at(self._talk_until, self._too_much_talk)

    def _too_much_talk(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        stream = cast(asyncio.Transport, self.transport)  # uvloop's is one by its methods, not by its class
        stream.write(b"421 4.4.2 Too long without a mail; closing\r\n")
        stream.close()
        self.loop.call_later(CLOSE_SECONDS_MAX, stream.abort)

    async def _taken(self, held: Held, held_of_peer: Held) -> str:
        """The answer to a mail's data. All of it is read, whatever the answer will be (RFC 5321 4.2.5)."""
        pieces: list[bytes] = []
        refusal, size, begun = "", 0, 0
        async for piece in self._data():
            size += len(piece)
            begun, too_long = _lines(piece, begun)
            refusal = refusal or self._refusal(size, too_long, len(piece), held, held_of_peer)
            if refusal:
                pieces.clear()
                held.end()
                held_of_peer.end()
            else:
                pieces.append(piece)
        if refusal:
            return refusal
        assert self.envelope is not None
        self.envelope.content = self.envelope.original_content = b"".join(pieces)
        pieces.clear()
        return str(await self._call_handler_hook("DATA"))

    def _refusal(self, size: int, too_long: bool, more: int, held: Held, held_of_peer: Held) -> str:
        if size > (self.data_size_limit or size):
            return "552 Error: Too much mail data"
        if too_long:
            return "500 Line too long (see RFC5321 4.5.3.1.6)"
        try:
            held.more(more)
            held_of_peer.more(more)
        except TooMuchBeingRead:
            return "452 4.3.1 Too much mail at once; please come again"
        return ""

    async def _data(self) -> AsyncIterator[bytes]:
        """The mail in pieces, without the dots that were put before its own (RFC 5321 4.5.2). Only <CRLF>.<CRLF> ends
        it: what else looks like an end is how mails are smuggled."""
        reader = self._reader
        reader._buffer[:0] = b"\r\n"  # type: ignore[attr-defined]  # the one before the first line
        first, kept, ended = True, b"", False
        while not ended:
            try:
                piece = kept + await reader.readuntil(_END)
                ended, kept = True, b""
                piece = piece[: -len(_END) + 2]
            except asyncio.LimitOverrunError as overrun:
                piece = kept + await reader.readexactly(overrun.consumed)
                kept = b"\r\n" if piece.endswith(b"\r\n") else b"\r" if piece.endswith(b"\r") else b""
                piece = piece[: len(piece) - len(kept)]
            piece = piece.replace(b"\r\n.", b"\r\n")
            yield piece[2:] if first and piece else piece
            first = first and not piece

    async def _is_controlled(self, argument: str | None) -> bool:
        if argument and CONTROLS.search(argument):
            await self.push("501 5.5.2 Error: control characters")
            return True
        return False

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """(address, what follows it). The parser takes a fifth of the time in which a mail is accepted: it is left for
        the addresses that need it, and the tests hold both to the same answer."""
        if plain := PLAIN_PATH.match(arg):
            return plain[1], arg[plain.end() :]
        if CONTROLS.search(arg) or sum(map(arg.count, COSTLY)) > COSTLY_MAX:
            return None, None  # aiosmtpd's word for a syntax error: 553
        try:
            address, rest = super()._getaddr(arg)
        except Exception:  # the standard library's, of several kinds: <a@[> is enough
            return None, None
        return address, rest


def _lines(piece: bytes, begun: int) -> tuple[int, bool]:
    """(bytes of its last line, which is not at its end yet; whether a line is too long). `begun`: as the piece before
    said. In steps of the bound, not of a line."""
    start = -begun
    while len(piece) - start > LINE_BYTES_MAX + 2:
        end = piece.rfind(b"\n", max(start, 0), max(start + LINE_BYTES_MAX + 2, 0))
        if end < 0:
            return 0, True
        start = end + 1
    last = piece.rfind(b"\n")
    return (len(piece) - last - 1 if last >= 0 else begun + len(piece)), False
