"""A mail that costs more than moments is read in another process, and where that fails it is said which way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from tests.machine_speed import patient
from tinyfat.domain.mail.message import read_mail
from tinyfat.engine import mail_reading
from tinyfat.engine.mail_reading import HERE_BYTES_MAX, HTML_HERE_BYTES_MAX, MailReading
from tinyfat.engine.workers import Workers
from tinyfat.ports.mail import MailBusy, MailUnreadable

HEAD = b"From: a@b.example\r\nTo: c@d.example\r\nSubject: x\r\n"
PLAIN = HEAD + b"\r\n" + b"word word\r\n" * 1000
HTML = HEAD + b"Content-Type: text/html\r\n\r\n" + b"<p>word word</p>\r\n" * 1000
LARGE = HEAD + b"\r\n" + b"word word\r\n" * 10_000
WITHIN = HEAD + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"aGVsbG8K" * 1000
HIDDEN = HEAD + b"Content-Transfer-Encoding: 7bit base64\r\n\r\n" + b"PGh0bWw+PHA+" * 1000
UTF_16 = (HEAD + b"\r\n" + b"<html><p>x" * 300).decode().encode("utf-16")
SHORT = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"aGVsbG8K" * 300
NAMED = HEAD + b"Content-Transfer-Encoding: 7bit \r\n\r\n" + b"word word\r\n" * 1000
LISTS = HEAD + b"Content-Type: TEXT/HTML\r\n\r\n" + b"<ul>" * 100 + b"<li>x" * 500


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.close()


@pytest.mark.parametrize(
    ("raw", "elsewhere"),
    [
        *((PLAIN, False), (HTML, True), (LARGE, True), (WITHIN, True), (LISTS, True), (b"", False), (b"html", False)),
        *((HIDDEN, True), (UTF_16, True), (SHORT, False), (NAMED, False)),
    ],
)
async def test_what_is_costly_is_read_elsewhere_with_the_same_result(
    workers: Workers, raw: bytes, elsewhere: bool
) -> None:
    assert await MailReading(workers).read(raw) == read_mail(raw) == await MailReading().read(raw)
    assert workers.processes == (1 if elsewhere else 0)


def test_what_is_read_here_is_small() -> None:
    assert HTML_HERE_BYTES_MAX <= 2048 and HERE_BYTES_MAX <= 32 * 1024


async def test_where_too_many_are_read_the_peer_comes_again() -> None:
    workers = Workers(size_max=10)
    with pytest.raises(MailBusy):
        await MailReading(workers).read(LARGE)
    assert await MailReading(workers).read_again(LARGE) == read_mail(LARGE)
    await workers.close()


async def test_a_mail_that_cannot_be_read_in_time_is_refused(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_reading, "READ_SECONDS_MAX", 0.001)
    with pytest.raises(MailUnreadable):
        await MailReading(workers).read(LARGE)
    assert await MailReading(workers).read_again(LARGE) == read_mail(LARGE)


async def test_a_process_that_is_killed_under_a_mail_refuses_it(workers: Workers) -> None:
    reading = asyncio.create_task(MailReading(workers).read(LARGE * 20))
    async with asyncio.timeout(patient(30)):
        while not workers._busy:
            await asyncio.sleep(0)
    for child in tuple(workers._busy):
        os.kill(child.process.pid, 9)
    with pytest.raises(MailUnreadable):
        await reading
