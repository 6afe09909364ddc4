"""A reply leaves: attempts with growing pauses for up to five days, and a word to the ledger after each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Protocol

from tinyfat.domain.mail.addresses import bounce_address
from tinyfat.domain.mail.states import MessageState
from tinyfat.ports.ledger import Deliveries, ToDeliver
from tinyfat.ports.mail import DeliveryDeferred, DeliveryRefused, MailOut

LEASE_SECONDS = 900.0  # longer than any attempt can take: a smarthost may think ten minutes about a mail
PAUSE_SECONDS_FIRST = 15.0
PAUSE_SECONDS_MAX = 3600.0
EXPIRY_SECONDS = 5 * 24 * 3600.0  # RFC 5321 4.5.4.1: at least 4 to 5 days
AT_ONCE_MAX = 16


class Clock(Protocol):
    def __call__(self) -> datetime: ...


def now() -> datetime:
    return datetime.now(UTC)


def pause_seconds(attempts: int) -> float:
    """Before the next attempt, after so many: 15 s, 30 s, a minute ... an hour."""
    return min(PAUSE_SECONDS_FIRST * 2.0 ** max(0, min(attempts - 1, 20)), PAUSE_SECONDS_MAX)


class Delivery:
    def __init__(
        self, domain: str, deliveries: Deliveries, mail_out: MailOut, bounce_secret: bytes, clock: Clock = now
    ) -> None:
        self._domain = domain
        self._deliveries = deliveries
        self._mail_out = mail_out
        self._bounce_secret = bounce_secret
        self._clock = clock
        self._attempting: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)

    async def attempt(self, row_id: str) -> None:
        """Try once, unless it is being tried or is done with; then the replies that waited for it.

        Never raises for what the smarthost says.
        """
        following: str | None = row_id
        while following is not None:  # each round ends a message for good: as long as the conversation, at most
            following = await self._attempt_one(following)

    async def _attempt_one(self, row_id: str) -> str | None:
        """The reply that may leave now, if this one was waited for."""
        if row_id in self._attempting:
            return None
        self._attempting.add(row_id)
        try:
            async with self._slots:
                message = await self._deliveries.claim(row_id, LEASE_SECONDS)
                return None if message is None else await self._send(message)
        finally:
            self._attempting.discard(row_id)

    async def sweep(self) -> None:
        """Try whatever is due."""
        await asyncio.gather(*(self.attempt(row_id) for row_id in await self._deliveries.due(AT_ONCE_MAX * 4)))

    async def _send(self, message: ToDeliver) -> str | None:
        return_path = bounce_address(message.agent_name, self._domain, message.id, self._bounce_secret)
        try:
            delivered = await self._mail_out.send(return_path, message.recipient, message.raw)
        except DeliveryRefused as refused:
            return await self._deliveries.undeliverable(message.id, MessageState.REFUSED, str(refused))
        except DeliveryDeferred as deferred:
            if (self._clock() - message.first_at).total_seconds() > EXPIRY_SECONDS:
                words = f"given up after 5 days: {deferred}"
                return await self._deliveries.undeliverable(message.id, MessageState.EXPIRED, words)
            await self._deliveries.deferred(message.id, str(deferred), pause_seconds(message.attempts))
            return None
        return await self._deliveries.delivered(message.id, delivered.response)
