"""What a peer hears where there is no room: before its bytes where it announced them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import aiosmtplib
import pytest

from tinyfat.drivers.mail.smtp_in import SmtpBounds, SmtpIn
from tinyfat.ports.mail import DiskLow, Envelope, NeverRoom, NoRoom


class _Full:
    def __init__(self) -> None:
        self.announced: list[int] = []
        self.at_once: NoRoom | None = None
        self.after_data: NoRoom | None = None

    def room(self, size: int) -> None:
        self.announced.append(size)
        if self.at_once:
            raise self.at_once

    async def recipient(self, address: str) -> None:
        pass

    async def accept(self, envelope: Envelope, recipients: Sequence[str], raw: bytes) -> str:
        if self.after_data:
            raise self.after_data
        return "kept"


@pytest.fixture
def full() -> _Full:
    return _Full()


@pytest.fixture
async def peer(full: _Full) -> AsyncIterator[aiosmtplib.SMTP]:
    server = SmtpIn(full, "127.0.0.1", 0, "tinyfat.localhost", SmtpBounds(100_000))
    await server.start()
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=server.port, start_tls=False) as peer:
        yield peer
    await server.stop()


@pytest.mark.parametrize(
    "options, size", [(["SIZE=4711"], 4711), (["size=4711"], 4711), ([], 0), (["BODY=8BITMIME", "SIZE=5"], 5)]
)
async def test_the_announced_size_is_asked_about_before_the_data(
    full: _Full, peer: aiosmtplib.SMTP, options: list[str], size: int
) -> None:
    full.at_once = DiskLow("the disk is nearly full")
    await peer.ehlo()
    await peer.mail("a@example.org", options=options)
    with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
        await peer.rcpt("ada@tinyfat.localhost")
    assert refused.value.code == 452 and refused.value.message.startswith("4.3.1 ")
    assert full.announced == [size]


@pytest.mark.parametrize(
    "why, code, words",
    [
        (NoRoom("full"), 452, "4.2.2 full"),
        (NeverRoom("large"), 552, "5.2.3 large"),
        (DiskLow("disk"), 452, "4.3.1 disk"),
    ],
)
async def test_what_only_the_mail_itself_tells_is_answered_after_it(
    full: _Full, peer: aiosmtplib.SMTP, why: NoRoom, code: int, words: str
) -> None:
    full.after_data = why
    with pytest.raises(aiosmtplib.SMTPDataError) as refused:
        await peer.sendmail("a@example.org", ["ada@tinyfat.localhost"], b"Subject: x\r\n\r\nx\r\n")
    assert (refused.value.code, refused.value.message) == (code, words)
