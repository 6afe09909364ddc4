"""A smarthost that keeps what it is given: the other end of every story. It can be told to refuse, defer or hang."""

from __future__ import annotations

import asyncio
import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.machine_speed import patient


@dataclass(frozen=True)
class Received:
    at: float  # loop time, seconds
    mail_from: str
    rcpt_to: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])

    @property
    def in_reply_to(self) -> str:
        return str(self.message["In-Reply-To"] or "")

    @property
    def text(self) -> str:
        body = self.message.get_body(("plain",))
        assert body is not None
        return str(body.get_content())


class Mailbox:
    """`async with Mailbox() as mailbox`: an SMTP server on a free port of loopback (or the one given)."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.received: list[Received] = []
        self.answers: list[str] = []  # what to say to the next messages instead of 250, first come first served
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Mailbox:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, enable_SMTPUTF8=True), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answers:
            return self.answers.pop(0)
        assert isinstance(envelope.content, bytes)
        now = asyncio.get_running_loop().time()
        self.received.append(Received(now, envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content))
        async with self._arrived:
            self._arrived.notify_all()
        return "250 2.0.0 Ok: kept"

    async def wait_for(self, count: int, seconds: float = 30.0) -> list[Received]:
        """The first `count` messages, or an AssertionError that says how many came."""
        try:
            async with asyncio.timeout(patient(seconds)), self._arrived:
                await self._arrived.wait_for(lambda: len(self.received) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.received)} of {count} messages came within {seconds} s") from None
        return self.received[:count]
