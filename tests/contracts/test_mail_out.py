"""What every way out promises (ports/mail MailOut): SMTP to a real server, and the memory twin."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from tests.certificates import Certificate, certificate
from tests.mailbox import Mailbox
from tests.running import free_port
from tinyfat.drivers.mail.memory import MemoryMailOut
from tinyfat.drivers.mail.smtp_out import NoSmarthost, SmtpOut
from tinyfat.ports.mail import DeliveryDeferred, DeliveryRefused, MailOut

RAW = (
    b"From: ada@tinyfat.localhost\r\nTo: owner@example.org\r\nSubject: Hello\r\n\r\n.a line that begins with a dot\r\n"
)


class Driver(Protocol):
    @property
    def out(self) -> MailOut: ...

    def answer(self, line: str) -> None:
        """What the smarthost says to the next message."""

    def taken(self) -> list[tuple[str, str, bytes]]:
        """(envelope sender, recipient, message), oldest first."""


class Memory:
    def __init__(self) -> None:
        self.out = MemoryMailOut()

    def answer(self, line: str) -> None:
        self.out.answer_next([line])

    def taken(self) -> list[tuple[str, str, bytes]]:
        return [(one.envelope_from, one.recipient, one.raw) for one in self.out.sent]


class Smtp:
    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.out = plain(mailbox.port)

    def answer(self, line: str) -> None:
        self.mailbox.answers.append(line)

    def taken(self) -> list[tuple[str, str, bytes]]:
        return [(one.mail_from, one.rcpt_to[0], one.raw) for one in self.mailbox.received]


def plain(port: int) -> SmtpOut:
    return SmtpOut("127.0.0.1", port, "offered", "", "", "tinyfat.localhost")


@pytest.fixture(params=["memory", "smtp"])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    async with Mailbox() as mailbox:
        yield Memory() if request.param == "memory" else Smtp(mailbox)


async def test_a_message_arrives_as_it_is(driver: Driver) -> None:
    delivered = await driver.out.send("ada+bounce@tinyfat.localhost", "owner@example.org", RAW)
    assert delivered.response.startswith("250 ")
    assert driver.taken() == [("ada+bounce@tinyfat.localhost", "owner@example.org", RAW)]


async def test_sent_twice_it_arrives_twice(driver: Driver) -> None:
    for _ in range(2):
        await driver.out.send("a@tinyfat.localhost", "owner@example.org", RAW)
    assert len(driver.taken()) == 2


@pytest.mark.parametrize("answer", ["451 4.3.0 Later, please", "421 4.3.2 Closing"])
async def test_a_4xx_is_for_later_and_the_words_are_kept(driver: Driver, answer: str) -> None:
    driver.answer(answer)
    with pytest.raises(DeliveryDeferred, match=answer[:3]):
        await driver.out.send("a@tinyfat.localhost", "owner@example.org", RAW)
    assert driver.taken() == []
    await driver.out.send("a@tinyfat.localhost", "owner@example.org", RAW)
    assert len(driver.taken()) == 1


@pytest.mark.parametrize("answer", ["550 5.7.1 We do not want this", "554 5.6.0 Nor this"])
async def test_a_5xx_is_for_good_and_the_words_are_kept(driver: Driver, answer: str) -> None:
    driver.answer(answer)
    with pytest.raises(DeliveryRefused, match=answer[4:]):
        await driver.out.send("a@tinyfat.localhost", "owner@example.org", RAW)
    assert driver.taken() == []


# What only SMTP does.


async def test_a_trial_comes_as_far_as_a_mail_would_and_sends_none(driver: Driver) -> None:
    await driver.out.trial()
    assert driver.taken() == []
    with pytest.raises(DeliveryDeferred):
        await plain(free_port()).trial()


async def test_nobody_there_is_for_later() -> None:
    with pytest.raises(DeliveryDeferred, match=r"127\.0\.0\.1"):
        await plain(free_port()).send("a@tinyfat.localhost", "owner@example.org", RAW)


async def test_without_a_smarthost_it_is_for_later_and_says_what_to_set() -> None:
    with pytest.raises(DeliveryDeferred, match="TINYFAT_SMARTHOST"):
        await NoSmarthost().send("a@tinyfat.localhost", "owner@example.org", RAW)


class Strict:
    """A smarthost of the kind people have: TLS, a password; or one that breaks off."""

    def __init__(self, **smtp: Any) -> None:
        self.taken: list[bytes] = []
        self.encrypted: list[bool] = []
        self.break_off = False
        self.rcpt_answer = "250 2.1.5 Ok"
        self._smtp = smtp
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self, tls: ssl.SSLContext | None = None) -> Strict:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, **self._smtp), "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if self.rcpt_answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.rcpt_answer

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        if self.break_off:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
            return "451 4.3.0 never seen"
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        self.taken.append(envelope.content)
        return "250 2.0.0 Ok"


def check_password(server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.login == b"tinyfat" and data.password == b"correct horse", handled=False)


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


def trusting(made: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(made.certificate))


def to(smarthost: Strict, tls: str, made: Certificate | None, password: str = "") -> SmtpOut:
    context = trusting(made) if made else None
    user = "tinyfat" if password else ""
    return SmtpOut("127.0.0.1", smarthost.port, tls, user, password, "tinyfat.localhost", tls_context=context)


async def test_starttls_and_a_password(own_certificate: Certificate) -> None:
    smarthost = await Strict(
        tls_context=own_certificate.server(), authenticator=check_password, auth_required=True, auth_require_tls=True
    ).open()
    try:
        out = to(smarthost, "required", own_certificate, "correct horse")
        await out.send("a@tinyfat.localhost", "owner@example.org", RAW)
        assert smarthost.taken == [RAW] and smarthost.encrypted == [True]
        with pytest.raises(DeliveryDeferred, match="TINYFAT_SMARTHOST") as wrong:
            await to(smarthost, "required", own_certificate, "wrong").send("a@b.c", "owner@example.org", RAW)
        with pytest.raises(DeliveryDeferred, match="TINYFAT_SMARTHOST"):
            await to(smarthost, "required", own_certificate, "wrong").trial()
        assert "wrong" not in str(wrong.value)
    finally:
        smarthost.close()


async def test_tls_from_the_first_byte(own_certificate: Certificate) -> None:
    smarthost = await Strict().open(own_certificate.server())
    try:
        await to(smarthost, "implicit", own_certificate).send("a@tinyfat.localhost", "owner@example.org", RAW)
        assert smarthost.taken == [RAW] and smarthost.encrypted == [True]
    finally:
        smarthost.close()


async def test_where_tls_is_required_nothing_is_sent_without(own_certificate: Certificate) -> None:
    smarthost = await Strict().open()
    try:
        with pytest.raises(DeliveryDeferred):
            await to(smarthost, "required", own_certificate).send("a@b.c", "owner@example.org", RAW)
        assert smarthost.taken == []
    finally:
        smarthost.close()


async def test_a_certificate_nobody_vouches_for_is_no_tls(own_certificate: Certificate) -> None:
    smarthost = await Strict(tls_context=own_certificate.server()).open()
    try:
        with pytest.raises(DeliveryDeferred):
            await to(smarthost, "required", None).send("a@b.c", "owner@example.org", RAW)
        assert smarthost.taken == []
        await to(smarthost, "offered", None).send("a@b.c", "owner@example.org", RAW)
        assert smarthost.taken == [RAW] and smarthost.encrypted == [True]
    finally:
        smarthost.close()


@pytest.mark.parametrize(
    ("answer", "error"), [("550 5.1.1 No such user", DeliveryRefused), ("450 4.2.1 Mailbox busy", DeliveryDeferred)]
)
async def test_a_recipient_the_smarthost_does_not_take(answer: str, error: type[Exception]) -> None:
    smarthost = await Strict().open()
    smarthost.rcpt_answer = answer
    try:
        with pytest.raises(error, match=answer[4:]):
            await to(smarthost, "none", None).send("a@b.c", "owner@example.org", RAW)
    finally:
        smarthost.close()


async def test_a_connection_that_breaks_off_is_for_later() -> None:
    smarthost = await Strict().open()
    smarthost.break_off = True
    try:
        with pytest.raises(DeliveryDeferred):
            await to(smarthost, "none", None).send("a@b.c", "owner@example.org", RAW)
    finally:
        smarthost.close()


def test_a_certificate_was_made(own_certificate: Certificate) -> None:
    assert Path(own_certificate.certificate).read_text().startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("end", ["closes", "resets", "refuses to part", "knows no EHLO"])
async def test_once_it_said_250_the_mail_is_delivered_whatever_comes_after(end: str) -> None:
    """A smarthost that ends the session in its own way has the mail: to send it again would double it."""
    taken = 0
    ended = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(b"220 mx.example.org\r\n")
        while line := (await reader.readline()).upper().split(b" ")[0].strip():
            if line == b"DATA":
                writer.write(b"354 Go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                taken += 1
                writer.write(b"250 2.0.0 Ok\r\n")
                await writer.drain()
                if end in ("closes", "resets"):
                    break
            elif line == b"QUIT":
                writer.write(b"421 4.3.2 No\r\n")
            else:
                writer.write(b"502 What?\r\n" if line == b"EHLO" and end == "knows no EHLO" else b"250 Ok\r\n")
        if end == "resets":
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.abort()
        writer.close()
        ended.set()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        delivered = await plain(port).send("a@tinyfat.localhost", "owner@example.org", RAW)
        await ended.wait()
    assert delivered.response.startswith("250") and taken == 1
