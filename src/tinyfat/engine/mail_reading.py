"""A mail is read here where that takes moments, in a worker process where it may take longer.

Measured: plain text and fields cost 0.3 ms a kB at worst; HTML, whose layout is reckoned, 8 ms a kB.
"""

from __future__ import annotations

import asyncio
import re

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.engine.workers import WorkerBusy, WorkerFailed, Workers
from tinyfat.ports.mail import MailBusy, MailUnreadable

HERE_BYTES_MAX = 32 * 1024
HTML_HERE_BYTES_MAX = 2 * 1024
READ_SECONDS_MAX = 60.0  # 50 MB made to hurt take a third of it on a slow machine

# HTML, and what may hide some: a message within, Outlook's packing, UTF-16.
_COSTLY = (b"html", b"message/", b"tnef", b"winmail", b"\0")
# So may whatever is encoded: 4 kB of it hold 3 kB of HTML at most.
_ENCODED = re.compile(rb"content-transfer-encoding\s*+:\s*+(?!(?:7bit|8bit|binary)[ \t]*\r?\n)")
ENCODED_HERE_BYTES_MAX = 4 * 1024


class MailReading:
    def __init__(self, workers: Workers | None = None) -> None:
        """`workers` None: in a thread, for tests and programs that nobody shares."""
        self._workers = workers

    async def read(self, raw: bytes, whose: str = "") -> Mail:
        """`whose`: the peer's, who shares the workers with others. Raises MailBusy, MailUnreadable."""
        if _is_quick(raw):
            return read_mail(raw)
        if self._workers is None:
            return await asyncio.to_thread(read_mail, raw)
        try:
            return await self._workers.run(
                read_mail, raw, size=len(raw), whose=f"mail {whose}", seconds=READ_SECONDS_MAX
            )
        except WorkerBusy as busy:
            raise MailBusy(Failure(FailureId.MAIL_BUSY).text()) from busy
        except WorkerFailed as failed:
            raise MailUnreadable(Failure(FailureId.MAIL_UNREADABLE).text()) from failed

    async def read_again(self, raw: bytes, whose: str = "") -> Mail:
        """One that was accepted once is not refused any more: where no worker does it, a thread does."""
        try:
            return await self.read(raw, whose)
        except (MailBusy, MailUnreadable):
            return await asyncio.to_thread(read_mail, raw)


def _is_quick(raw: bytes) -> bool:
    if len(raw) <= HTML_HERE_BYTES_MAX:
        return True
    if len(raw) > HERE_BYTES_MAX:
        return False
    lowered = raw.lower()  # and not patterns that ignore the case: they take fifty times as long
    if any(word in lowered for word in _COSTLY):
        return False
    return len(raw) <= ENCODED_HERE_BYTES_MAX or not _ENCODED.search(lowered)
