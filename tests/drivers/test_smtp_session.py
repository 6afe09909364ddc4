"""A session's data is read in pieces, its time and its commands have their bounds, and controls are no address."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine_speed import patient
from tinyfat.drivers.mail import smtp_session
from tinyfat.drivers.mail.smtp_in import SmtpBounds, SmtpIn
from tinyfat.engine.reading import Reading
from tinyfat.ports.mail import Envelope

SIZE_MAX = 3_000_000


class _Intake:
    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.envelopes: list[Envelope] = []
        self.go = asyncio.Event()
        self.go.set()

    def room(self, size: int) -> None: ...

    async def recipient(self, address: str) -> None: ...

    async def accept(self, envelope: Envelope, recipients: Sequence[str], raw: bytes) -> str:
        self.raw.append(raw)
        self.envelopes.append(envelope)
        await self.go.wait()
        return "kept"


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def heard(self) -> str:
        """The last line of an answer; "" where the connection ended."""
        async with asyncio.timeout(patient(20)):
            try:
                while (line := await self.reader.readline()) and line[3:4] == b"-":
                    pass
            except ConnectionError:
                return ""
        return line.decode("latin-1")

    async def say(self, line: bytes) -> str:
        self.writer.write(line + b"\r\n")
        with suppress(ConnectionError):
            await self.writer.drain()
        return await self.heard()

    async def to_data(self) -> None:
        for line in (b"MAIL FROM:<a@b.example>", b"RCPT TO:<ada@x.example>"):
            assert (await self.say(line)).startswith("250")
        assert (await self.say(b"DATA")).startswith("354")

    async def send(self, stuffed: bytes, pieces: int = 1) -> str:
        """What a client sends after DATA, its end included."""
        await self.to_data()
        for start in range(0, len(stuffed), max(1, len(stuffed) // pieces)):
            self.writer.write(stuffed[start : start + max(1, len(stuffed) // pieces)])
            await self.writer.drain()
            if pieces > 1:
                await asyncio.sleep(0)
        return await self.heard()


@asynccontextmanager
async def server(intake: _Intake, reading: Reading | None = None) -> AsyncIterator[SmtpIn]:
    smtp = SmtpIn(intake, "127.0.0.1", 0, "x.example", SmtpBounds(SIZE_MAX, reading or Reading()))
    await smtp.start()
    try:
        yield smtp
    finally:
        await smtp.stop()


@asynccontextmanager
async def peer_of(smtp: SmtpIn, hello: bool = True) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", smtp.port)
    peer = Peer(reader, writer)
    assert (await peer.heard()).startswith("220")
    if hello:
        assert (await peer.say(b"EHLO peer.example")).startswith("250")
    try:
        yield peer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def stuffed(raw: bytes) -> bytes:
    """As a client sends it (RFC 5321 4.5.2); `raw` ends with CRLF or is empty."""
    return re.sub(rb"(?:(?<=\A)|(?<=\r\n))\.", b"..", raw) + b".\r\n"


async def test_what_is_sent_is_what_arrives() -> None:
    random.seed(5)
    kinds = [b"\r\n", b".", b"..", b".\r\n", b"\r", b"\n", b"\n.\n", b"\r.\r", b"a", b"\xff" * 50, b"word " * 300]
    bodies = [b"".join(random.choices(kinds, k=random.choice((1, 5, 500)))) + b"\r\n" for _ in range(60)]
    bodies += [
        b"",
        b"\r\n",
        b"\r\n" * 100_000,
        b".\r\n" * 70_000,
        b".." * 32_000 + b"\r\n",
        (b"a" * 65_534 + b"\r\n") * 5,
    ]
    for length in range(60, 90):  # pieces of the reader end where they hurt
        line = b"b" * 998 + b"\r\n"
        bodies.append(line * 131 + b"c" * length + b"\r\n.dot\r\n" + line * 60)
    intake = _Intake()
    async with server(intake) as smtp, peer_of(smtp) as peer:
        for body in bodies:
            assert (await peer.send(stuffed(body), random.choice((1, 7)))).startswith("250"), body[:50]
            got = intake.raw.pop()
            assert got == body, (len(got), len(body), body[:60])


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\x00.\r\n", b"\r\r\n.\r"]
)
async def test_only_one_end_is_an_end(end: bytes) -> None:
    intake = _Intake()
    async with server(intake) as smtp, peer_of(smtp) as peer:
        body = b"one" + end + b"MAIL FROM:<c@d.example>\r\n"
        assert (await peer.send(body + b".\r\n")).startswith("250")
    assert len(intake.raw) == 1 and b"MAIL FROM:<c@d.example>" in intake.raw[0]


async def test_what_follows_an_end_is_the_next_command() -> None:
    intake = _Intake()
    async with server(intake) as smtp, peer_of(smtp) as peer:
        assert (await peer.send(b"one\r\n.\r\nNOOP\r\n")).startswith("250")
        assert (await peer.heard()).startswith("250")
        assert (await peer.send(b".\r\n")).startswith("250")
    assert intake.raw == [b"one\r\n", b""]


TOO_MUCH = {
    "552": b"x\r\n" * (SIZE_MAX // 3 + 1),
    "500": b"a" * (smtp_session.LINE_BYTES_MAX + 1) + b"\r\n",
    "500 ": b"ok\r\n" * 40_000 + b"a" * 300_000 + b"\r\nok\r\n",
}


@pytest.mark.parametrize(("code", "body"), TOO_MUCH.items(), ids=["size", "line", "a line among others"])
async def test_too_much_is_refused_after_all_of_it(code: str, body: bytes) -> None:
    intake = _Intake()
    async with server(intake) as smtp, peer_of(smtp) as peer:
        assert (await peer.send(body + b".\r\n")).startswith(code.strip())
        assert (await peer.send(b"a small one\r\n.\r\n")).startswith("250")
    assert intake.raw == [b"a small one\r\n"]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 9))
def test_the_length_of_lines_does_not_depend_on_the_pieces(lengths: list[int], size: int) -> None:
    original, smtp_session.LINE_BYTES_MAX = smtp_session.LINE_BYTES_MAX, 20
    try:
        raw = b"".join(b"a" * length + b"\r\n" for length in lengths)
        begun, found = 0, False
        for start in range(0, len(raw), size):
            begun, too_long = smtp_session._lines(raw[start : start + size], begun)
            found = found or too_long
        assert found == any(length > 20 for length in lengths)
    finally:
        smtp_session.LINE_BYTES_MAX = original


async def test_what_all_sessions_hold_is_bounded_and_comes_back() -> None:
    intake, reading = _Intake(), Reading(2 * 1_000_000)
    intake.go.clear()
    async with server(intake, reading) as smtp, peer_of(smtp) as first, peer_of(smtp) as second:
        under_way = asyncio.create_task(first.send(b"x" * 60_000 + b"\r\n" + b"y" * 60_000 + b"\r\n.\r\n"))
        while not intake.raw:
            await asyncio.sleep(0)
        assert reading.held == 120_004
        assert (await second.send((b"z" * 60_000 + b"\r\n") * 16 + b".\r\n")).startswith("452 4.3.1")
        assert reading.held == 120_004
        intake.go.set()
        assert (await under_way).startswith("250")
        assert reading.held == 0


CONTROLS = [b"\x00", b"\x01", b"\x1b[31m", b"\x7f", b"\t", b"\xc2\x85", b"\xe2\x80\xa8", b"\xff", b"\xed\xa0\x80"]


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("where", [b"a%s@b.example", b"a@b%s.example", b"%sa@b.example", b'"a%s"@b.example'])
async def test_controls_are_no_address(control: bytes, where: bytes) -> None:
    async with server(_Intake()) as smtp, peer_of(smtp) as peer:
        address = where.replace(b"%s", control)
        assert (await peer.say(b"MAIL FROM:<" + address + b"> SMTPUTF8"))[:3] in ("501", "553")
        assert (await peer.say(b"MAIL FROM:<a@b.example> SMTPUTF8")).startswith("250")
        assert (await peer.say(b"RCPT TO:<" + address + b">"))[:3] in ("501", "553")


@pytest.mark.parametrize("verb", [b"HELO", b"EHLO"])
async def test_controls_are_no_name(verb: bytes) -> None:
    async with server(_Intake()) as smtp, peer_of(smtp, hello=False) as peer:
        assert (await peer.say(verb + b" a\x00b")).startswith("501")
        assert (await peer.say(verb + b" peer.example")).startswith("250")


async def test_an_address_of_another_script_is_one() -> None:
    async with server(_Intake()) as smtp, peer_of(smtp) as peer:
        assert (await peer.say("MAIL FROM:<józef@b.example> SMTPUTF8".encode())).startswith("250")


async def test_who_talks_and_sends_no_mail_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_session, "TALK_SECONDS_MAX", 0.3)
    async with server(_Intake()) as smtp, peer_of(smtp) as peer:
        heard = "250"
        while heard.startswith("250"):
            heard = await peer.say(b"RSET")
            await asyncio.sleep(0.02)
        assert heard.startswith("421 4.4.2") or heard == ""


async def test_a_mail_gives_its_session_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    intake = _Intake()
    async with server(intake) as smtp, peer_of(smtp) as peer:
        (session,) = smtp._sessions
        before = session._talk_until
        assert (await peer.send(b"one\r\n.\r\n")).startswith("250")
        assert session._talk_until > before
        after = session._talk_until
        assert (await peer.send(b"x\r\n" * SIZE_MAX + b".\r\n")).startswith("552")
        assert session._talk_until == after


async def test_a_session_has_so_many_commands_of_no_use() -> None:
    async with server(_Intake()) as smtp, peer_of(smtp) as peer:
        for _ in range(smtp_session.COMMANDS_MAX["NOOP"]):
            assert (await peer.say(b"NOOP")).startswith("250")
        assert (await peer.say(b"NOOP")).startswith("421")


async def test_a_data_that_drips_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_session, "DATA_SECONDS_MAX", 0.3)
    async with server(_Intake()) as smtp, peer_of(smtp) as peer:
        await peer.to_data()
        with suppress(ConnectionError):
            while not peer.reader.at_eof():
                peer.writer.write(b"a\r\n")
                await peer.writer.drain()
                await asyncio.sleep(0.02)
        assert await peer.heard() == ""


class _Turns:
    """How often others had their turn on the loop."""

    def __init__(self) -> None:
        self.count = 0

    async def go(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


FLOODS = (b"RSET", b"x", b"", b"NOOP", b"RCPT TO:<ada@x.example>", b"MAIL FROM:<(a.a>", b"VRFY a", b"AUTH PLAIN AA==")


@pytest.mark.parametrize("line", FLOODS, ids=lambda line: line.decode() or "empty")
async def test_of_commands_that_come_at_once_each_waits_for_the_others_turn(line: bytes) -> None:
    async with server(_Intake()) as smtp, peer_of(smtp) as peer:
        await peer.say(b"MAIL FROM:<a@b.example>")
        turns = _Turns()
        others = asyncio.create_task(turns.go())
        answers, before = 0, turns.count
        peer.writer.write((line + b"\r\n") * 80)
        while answers < 80 and (said := await peer.heard()):
            answers += 1
            if said.startswith("421"):
                break
        others.cancel()
        assert answers >= 5 and turns.count - before >= answers


@pytest.mark.parametrize("unit", ["a.", "(", "@a,", "a ", '"\\', "[", "é.", '"a".'])
def test_a_line_of_what_is_costly_to_parse_is_not_parsed(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_: object) -> None:
        raise AssertionError("it was")

    monkeypatch.setattr(smtp_session.SMTP, "_getaddr", parsed)
    session = smtp_session.SmtpSession.__new__(smtp_session.SmtpSession)
    for head in ("<", "", "<@", '<"'):
        assert session._getaddr(head + unit * 120 + "@b.example>")[0] is None
