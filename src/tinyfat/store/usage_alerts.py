"""Alerts that the usage ledger noted, and their mails: once each, in the outgoing mail of the ledger."""

from __future__ import annotations

from tinyfat.ports.usage import Alert, Notice
from tinyfat.store.database import Connection, Database, lock_agent, storable


class UsageAlertStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, limit: int) -> list[Alert]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select u.id::text, u.agent_id::text, a.name, a.owner, u.kind, u.spent, u.reserved, u.cap, u.amount, "
                "u.at from usage_alerts u join agents a on a.id = u.agent_id where u.message_row is null "
                "order by u.at limit %s",
                (limit,),
            )
            return [Alert(*row) for row in await cursor.fetchall()]

    async def record(self, alert: Alert, notice: Notice) -> str:
        async with self._database.transaction() as connection:
            await lock_agent(connection, alert.agent_id)
            cursor = await connection.execute("select message_row from usage_alerts where id = %s", (alert.id,))
            row = await cursor.fetchone()
            if row is not None and row[0] is not None:
                return str(row[0])
            row_id = await _queue(connection, alert.agent_id, notice)
            await connection.execute("update usage_alerts set message_row = %s where id = %s", (row_id, alert.id))
            return row_id


async def _queue(connection: Connection, agent_id: str, notice: Notice) -> str:
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
