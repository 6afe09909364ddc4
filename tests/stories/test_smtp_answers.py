"""What a peer of SMTP hears."""

from __future__ import annotations

import asyncio
import ssl

import aiosmtplib
import pytest
import pytest_asyncio

from tests.machine_speed import patient
from tests.running import OWNER, letter
from tests.stories.conftest import SIZE_MAX
from tests.stories.town import House, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
DORA = "dora@tinyfat.localhost"


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def dora(house: House) -> None:
    await house.operator.make_agent("dora")


@pytest.mark.parametrize(
    "recipient",
    [
        "nobody@tinyfat.localhost",
        "dora@example.org",
        "dora@sub.tinyfat.localhost",
        '"dora x"@tinyfat.localhost',
        "dora",
    ],
)
async def test_an_unknown_recipient_is_refused_at_rcpt(house: House, recipient: str) -> None:
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=house.tinyfat.smtp_port, start_tls=False) as smtp:
        await smtp.mail(OWNER)
        with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
            await smtp.rcpt(recipient)
    assert 550 <= refused.value.code <= 553


async def test_the_known_recipients_of_a_transaction_are_served(house: House) -> None:
    message_id = new_id()
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=house.tinyfat.smtp_port, start_tls=False) as smtp:
        errors, _ = await smtp.sendmail(
            OWNER, ["nobody@tinyfat.localhost", DORA], letter("Hello", to=DORA, message_id=message_id).as_bytes()
        )
    assert {address: answer.code for address, answer in errors.items()} == {"nobody@tinyfat.localhost": 550}
    await house.office.reply_to(message_id)


async def test_a_mail_over_the_size_is_refused_whether_or_not_it_says_so(house: House) -> None:
    message_id = new_id()
    large = letter("x" * 70 + "\n", to=DORA, message_id=message_id)
    large.set_content(("x" * 70 + "\n") * (SIZE_MAX // 70))
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=house.tinyfat.smtp_port, start_tls=False) as smtp:
        await smtp.ehlo()
        assert smtp.esmtp_extensions["size"] == str(SIZE_MAX)
        with pytest.raises(aiosmtplib.SMTPResponseException) as said:
            await smtp.mail(OWNER, options=[f"SIZE={SIZE_MAX + 1}"])
        assert said.value.code == 552
        await smtp.rset()
        await smtp.mail(OWNER)
        await smtp.rcpt(DORA)
        with pytest.raises(aiosmtplib.SMTPResponseException) as sent:
            await smtp.data(large.as_bytes())
        assert sent.value.code == 552
    assert message_id not in [m["message_id"] for m in await house.operator.mail("dora")]


async def test_a_line_longer_than_smtp_promises_is_taken(house: House) -> None:
    message_id = new_id()
    raw = letter("Hello.", to=DORA, message_id=message_id).as_bytes() + b"A long line: " + b"x" * 50_000 + b"\n"
    await house.tinyfat.send(raw, to=DORA)
    await house.office.reply_to(message_id)


async def test_starttls_with_our_certificate(house: House) -> None:
    message_id = new_id()
    context = ssl.create_default_context(cafile=house.tinyfat.environment["TINYFAT_SMTP_CERTIFICATE"])
    async with aiosmtplib.SMTP(
        hostname="127.0.0.1", port=house.tinyfat.smtp_port, start_tls=True, tls_context=context
    ) as smtp:
        assert smtp.get_transport_info("cipher")
        await smtp.sendmail(OWNER, [DORA], letter("Secretly", to=DORA, message_id=message_id).as_bytes())
    await house.office.reply_to(message_id)


async def test_without_a_certificate_starttls_is_not_offered(hasty: House) -> None:
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=hasty.tinyfat.smtp_port, start_tls=False) as smtp:
        await smtp.ehlo()
        assert not smtp.supports_extension("starttls") and smtp.supports_extension("size")


async def test_a_command_pipelined_behind_starttls_is_not_obeyed(house: House) -> None:
    """CVE-2011-0411: what came in plain must not count inside TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.tinyfat.smtp_port)
    await reader.readline()
    writer.write(b"EHLO x\r\n")
    while not (await reader.readline()).startswith(b"250 "):
        pass
    writer.write(b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n")
    assert (await reader.readline()).startswith(b"220")
    context = ssl.create_default_context(cafile=house.tinyfat.environment["TINYFAT_SMTP_CERTIFICATE"])
    async with asyncio.timeout(patient(10)):
        try:
            await writer.start_tls(context, server_hostname="localhost")
            writer.write(b"RCPT TO:<dora@tinyfat.localhost>\r\n")
            answer = await reader.readline()
        except (OSError, ssl.SSLError):
            answer = b""  # broken off is safe too
    assert not answer.startswith(b"2")
    writer.close()


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n"])
async def test_only_crlf_dot_crlf_ends_a_mail(house: House, end: bytes) -> None:
    """SMTP smuggling (CVE-2023-51764 and its kin): the second mail must stay inside the first, or be refused."""
    outer, inner = new_id(), new_id()
    smuggled = b"MAIL FROM:<owner@example.org>\r\nRCPT TO:<dora@tinyfat.localhost>\r\nDATA\r\n"
    smuggled += letter("smuggled", to=DORA, message_id=inner).as_bytes().replace(b"\n", b"\r\n") + b"\r\n.\r\n"
    body = letter("outer", to=DORA, message_id=outer).as_bytes().replace(b"\n", b"\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.tinyfat.smtp_port)
    await reader.readline()
    for line in (b"EHLO x", b"MAIL FROM:<owner@example.org>", b"RCPT TO:<dora@tinyfat.localhost>", b"DATA"):
        writer.write(line + b"\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
    writer.write(body + end + smuggled)
    async with asyncio.timeout(patient(10)):
        await reader.readline()
    writer.close()
    assert inner not in [m["message_id"] for m in await house.operator.mail("dora")]


async def test_nobody_logs_in_here(house: House) -> None:
    context = ssl.create_default_context(cafile=house.tinyfat.environment["TINYFAT_SMTP_CERTIFICATE"])
    async with aiosmtplib.SMTP(
        hostname="127.0.0.1", port=house.tinyfat.smtp_port, start_tls=True, tls_context=context
    ) as smtp:
        assert not smtp.supports_extension("auth")
        code, _ = await smtp.execute_command(b"AUTH", b"PLAIN", b"AGEAYg==")
        assert code >= 500


async def test_the_readers_of_our_log_see_no_traceback(house: House) -> None:
    assert "Traceback" not in house.tinyfat.log.read_text()
