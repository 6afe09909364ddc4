"""Mails of our own to owners, in the outgoing mail of the ledger: each once."""

from __future__ import annotations

from tinyfat.ports.usage import Notice
from tinyfat.store.database import Connection, Database, lock_agent, storable


class NoticeStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, agent_id: str, notice: Notice) -> str:
        """The row's id. Recorded again, by its Message-ID: the one that is there."""
        async with self._database.transaction() as connection:
            await lock_agent(connection, agent_id)
            cursor = await connection.execute(
                "select id from messages where agent_id = %s and direction = 'out' and message_id = %s",
                (agent_id, notice.message_id),
            )
            row = await cursor.fetchone()
            return str(row[0]) if row is not None else await queue_notice(connection, agent_id, notice)


async def queue_notice(connection: Connection, agent_id: str, notice: Notice) -> str:
    """In a conversation of its own: who answers the notice, answers the agent."""
    cursor = await connection.execute(
        "with thread as (insert into threads (agent_id, subject) values (%(agent)s, %(subject)s) returning id), "
        "known as (insert into thread_refs (agent_id, message_id, thread_id) "
        "select %(agent)s, %(message_id)s, id from thread) "
        "insert into messages (agent_id, thread_id, direction, message_id, sender, recipient, subject, state, size, "
        "next_attempt_at) select %(agent)s, id, 'out', %(message_id)s, %(sender)s, %(recipient)s, %(subject)s, "
        "'queued', %(size)s, now() from thread returning id",
        {
            "agent": agent_id,
            "message_id": notice.message_id,
            "sender": notice.sender,
            "recipient": storable(notice.recipient),
            "subject": storable(notice.subject),
            "size": len(notice.raw),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    await connection.execute("insert into message_bodies values (%s, %s)", (row[0], notice.raw))
    return str(row[0])
