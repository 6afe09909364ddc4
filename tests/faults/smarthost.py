"""A smarthost that can be as bad as real ones are: it defers, and connections to it break around the final dot."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from email import message_from_bytes
from enum import StrEnum

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.mailbox import Mailbox

TROUBLES_OF_ONE_MAIL_MAX = 2  # each costs its reply a growing pause: 15 s, 30 s


class Trouble(StrEnum):
    DEFERRED = "4xx"
    CUT_BEFORE = "cut before it was kept"
    CUT_AFTER = "cut after it was kept"  # a lost 250: the same mail comes again


class Smarthost(Mailbox):
    """Good until `trouble` is set; then so many of the mails meet one of the troubles."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.trouble = 0.0
        self.troubles: Counter[Trouble] = Counter()
        self.answered: set[str] = set()  # the Message-IDs of the mails that have a reply here
        self._chance = random.Random(f"{seed} smarthost")
        self._of_mail: Counter[bytes] = Counter()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        trouble = self._draw(envelope)
        if trouble is None:
            return await self._keep(server, session, envelope)
        self.troubles[trouble] += 1
        if trouble is Trouble.DEFERRED:
            return "451 4.3.0 come again"
        if trouble is Trouble.CUT_AFTER:
            await self._keep(server, session, envelope)
        assert isinstance(server.transport, asyncio.Transport)
        server.transport.abort()
        await asyncio.Event().wait()  # ends by the connection's end, which cancels this transaction
        raise AssertionError("not reached")

    async def _keep(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        kept = await super().handle_DATA(server, session, envelope)
        self.answered.add(str(message_from_bytes(envelope.content)["In-Reply-To"]))
        return kept

    def _draw(self, envelope: Envelope) -> Trouble | None:
        assert isinstance(envelope.content, bytes)
        if self._chance.random() >= self.trouble or self._of_mail[envelope.content] >= TROUBLES_OF_ONE_MAIL_MAX:
            return None
        self._of_mail[envelope.content] += 1
        return self._chance.choice(list(Trouble))

    @property
    def lost_answers(self) -> int:
        """Mails that are here, and whose sender had to send them again."""
        return self.troubles[Trouble.CUT_AFTER]
