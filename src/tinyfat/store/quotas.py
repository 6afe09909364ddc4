"""How much mail is kept for an agent: of strangers, and in its conversations."""

from __future__ import annotations

from dataclasses import dataclass

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.states import MessageState
from tinyfat.ports.mail import NeverRoom, NoRoom
from tinyfat.store.database import Connection, Database, storable

MIB = 1024**2

# What is kept and never answered: strangers', automatic, about a mail of ours. Mail that is held back is the owner's
# side's, and counts as conversation.
UNANSWERED = (MessageState.QUARANTINED, MessageState.IGNORED, MessageState.BOUNCE)

_KEPT = """
select count(*), coalesce(sum(size), 0)::bigint,
    count(*) filter (where sender = %(sender)s), coalesce(sum(size) filter (where sender = %(sender)s), 0)::bigint
from messages where agent_id = %(agent)s and direction = 'in' and turn_id is null
    and state in ('quarantined', 'ignored', 'bounce')
"""
# What was sent again is not kept again: it needs no room.
_KNOWN_ALREADY = """
select exists (select from messages where agent_id = %s and direction = 'in' and message_id = %s and sender = %s)
"""
# Of everybody's together: while that is under one agent's quota, nobody is over it.
_ALL_BODIES = "select pg_total_relation_size('message_bodies')"
_FULL_CONVERSATIONS = """
select agent_id::text from messages where body_gone_at is null
    and (direction = 'out' or turn_id is not null or state not in ('quarantined', 'ignored', 'bounce'))
group by agent_id having sum(size) >= %s
"""


@dataclass(frozen=True, slots=True)
class Quotas:
    """Of one agent each. Bytes are those of the mails, as they came."""

    quarantine_bytes: int = 200 * MIB
    quarantine_mails: int = 2000
    sender_bytes: int = 50 * MIB  # of one sender, in the same quarantine
    sender_mails: int = 200
    conversations_bytes: int = 10 * 1024 * MIB


class MailQuotas:
    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas
        self._full: frozenset[str] = frozenset()  # agents, as of the last look

    async def look(self) -> None:
        """Which agents' conversations are full. A sum over every message: from time to time, not for each mail. What
        comes between two looks may pass the quota; the disk's floor stands behind it."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_ALL_BODIES)).fetchone()
            if row and row[0] < self._quotas.conversations_bytes:
                self._full = frozenset()
                return
            cursor = await connection.execute(_FULL_CONVERSATIONS, (self._quotas.conversations_bytes,))
            self._full = frozenset(row[0] for row in await cursor.fetchall())

    def conversation(self, agent_id: str, size: int) -> None:
        """For a mail that is, or may be, answered. Raises NoRoom."""
        if size > self._quotas.conversations_bytes:
            raise NeverRoom(Failure(FailureId.MAIL_TOO_LARGE).text())
        if agent_id in self._full:
            raise NoRoom(Failure(FailureId.MAILBOX_FULL).text())

    async def unanswered(
        self, connection: Connection, agent_id: str, sender: str, message_id: str, size: int
    ) -> NoRoom | None:
        """For one that is kept and not answered, under the agent's lock: why there is no room for it."""
        quotas = self._quotas
        if size > min(quotas.quarantine_bytes, quotas.sender_bytes):
            return NeverRoom(Failure(FailureId.STRANGERS_MAIL_TOO_LARGE).text())
        values = {"agent": agent_id, "sender": storable(sender)}
        row = await (await connection.execute(_KEPT, values)).fetchone()
        assert row is not None
        mails, total, senders_mails, senders_total = row
        full = mails >= quotas.quarantine_mails or total + size > quotas.quarantine_bytes
        senders_full = senders_mails >= quotas.sender_mails or senders_total + size > quotas.sender_bytes
        if not full and not senders_full:
            return None
        cursor = await connection.execute(_KNOWN_ALREADY, (agent_id, storable(message_id), storable(sender)))
        known = await cursor.fetchone()
        if known and known[0]:
            return None
        if senders_full:
            return NoRoom(Failure(FailureId.SENDERS_MAIL_WAITS).text())
        return NoRoom(Failure(FailureId.STRANGERS_MAIL_WAITS).text())
