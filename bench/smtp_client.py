"""The client both sides are measured with: kept SMTP connections, nothing pipelined, as little work as can be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

OWNER = "owner@example.org"
AGENT = "ada@tinyfat.localhost"
MAIL_BYTES = 4500
REPLY_SECONDS_MAX = 120.0


class Unexpected(Exception):
    """A server did not answer what it should have."""


@dataclass(frozen=True, slots=True)
class Taken:
    """`sent_at`: Unix seconds, just before the mail's last bytes (the final dot with them) were written."""

    sent_at: float
    words: str  # after the 250


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def deliver(self, raw: bytes) -> Taken:
        """One mail from OWNER to AGENT, with CRLFs and no line that begins with a dot. Raises Unexpected."""
        await self._say(f"MAIL FROM:<{OWNER}>", "250")
        await self._say(f"RCPT TO:<{AGENT}>", "250")
        await self._say("DATA", "354")
        sent_at = time.time()
        self._writer.write(raw + b".\r\n")
        return Taken(sent_at, await self._hear("250"))

    async def greet(self) -> None:
        await self._hear("220")
        await self._say("EHLO bench.example.org", "250")

    async def quit(self) -> None:
        await self._say("QUIT", "221")

    def close(self) -> None:
        self._writer.close()

    async def _say(self, command: str, expected: str) -> str:
        self._writer.write(command.encode("ascii") + b"\r\n")
        return await self._hear(expected)

    async def _hear(self, expected: str) -> str:
        async with asyncio.timeout(REPLY_SECONDS_MAX):
            line = await self._reader.readline()
            while line[3:4] == b"-":
                line = await self._reader.readline()
        words = line.decode("ascii", "replace").strip()
        if not words.startswith(expected):
            raise Unexpected(f"{words or 'the connection ended'!r} where {expected} was expected")
        return words.partition(" ")[2]


@asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """`count` of them, to a port of loopback."""
    opened: list[Connection] = []
    try:
        for _ in range(count):
            opened.append(Connection(*await asyncio.open_connection("127.0.0.1", port)))
            await opened[-1].greet()
        yield opened
        for connection in opened:
            await connection.quit()
    finally:
        for connection in opened:
            connection.close()


class Letters:
    """Mails of MAIL_BYTES, each the first of a thread of its own."""

    def __init__(self, run: str) -> None:
        """`run` makes the Message-IDs different from every other run's."""
        self._run = run
        self._count = 0

    def next(self) -> tuple[str, bytes]:
        """(Message-ID, the mail)."""
        self._count += 1
        message_id = f"<{self._run}.{self._count}@example.org>"
        head = (
            f"From: The Owner <{OWNER}>\r\nTo: Ada <{AGENT}>\r\nSubject: Question {self._count}\r\n"
            f"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n\r\n"
        )
        line = "How many boats lie in the harbour today, and which of them are going out again?\r\n"
        return message_id, (head + line * ((MAIL_BYTES - len(head)) // len(line) + 1)).encode("ascii")
