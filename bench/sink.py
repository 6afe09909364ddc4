"""The smarthost of both sides: takes every mail at once, and says when each reply had come in full."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import cast

_MESSAGE_ID = re.compile(rb"^Message-ID:\s*(<[^>]+>)", re.MULTILINE | re.IGNORECASE)
_IN_REPLY_TO = re.compile(rb"^In-Reply-To:\s*(<[^>]+>)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    at: float  # Unix seconds, the final dot of its DATA
    message_id: str


class ReplyLost(Exception):
    """A mail was accepted and not answered in time."""


class Sink:
    """`async with Sink() as sink`: on a free port of loopback."""

    def __init__(self) -> None:
        self.port = 0
        self._expected: dict[str, asyncio.Future[Reply]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Sink:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Session(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def expect(self, message_id: str) -> asyncio.Future[Reply]:
        """To be asked before the mail is sent: done when the reply to it is here."""
        self._expected[message_id] = asyncio.get_running_loop().create_future()
        return self._expected[message_id]

    def take(self, raw: bytes) -> None:
        head = raw.partition(b"\r\n\r\n")[0]
        own, answered = _MESSAGE_ID.search(head), _IN_REPLY_TO.search(head)
        if own is None or answered is None:
            return
        waiting = self._expected.pop(answered[1].decode("ascii", "replace"), None)
        if waiting is not None and not waiting.done():  # whoever waited may have gone
            waiting.set_result(Reply(time.time(), own[1].decode("ascii", "replace")))


async def reply_to(expected: asyncio.Future[Reply], message_id: str, seconds: float) -> Reply:
    """Raises ReplyLost."""
    try:
        async with asyncio.timeout(seconds):
            return await expected
    except TimeoutError:
        raise ReplyLost(f"no reply to {message_id} within {seconds:.0f} s") from None


class _Session(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods, not by its class
        self._transport.write(b"220 sink.example.org ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take_data() if self._in_data else self._take_command():
            pass

    def _take_data(self) -> bool:
        """False where the mail is not here in full."""
        end = self._buffer.find(b"\r\n.\r\n")
        if end < 0:
            return False
        self._sink.take(bytes(self._buffer[:end]))
        del self._buffer[: end + 5]
        self._in_data = False
        self._transport.write(b"250 2.0.0 Ok\r\n")
        return True

    def _take_command(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        verb = bytes(self._buffer[:end]).split(b" ")[0].upper()
        del self._buffer[: end + 2]
        match verb:
            case b"DATA":
                self._in_data = True
                self._transport.write(b"354 Go on\r\n")
            case b"EHLO":
                self._transport.write(b"250-sink.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
            case b"QUIT":
                self._transport.write(b"221 2.0.0 Bye\r\n")
                self._transport.close()
            case _:
                self._transport.write(b"250 2.0.0 Ok\r\n")
        return True
