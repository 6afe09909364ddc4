"""Alerts that the usage ledger noted, and their mails: once each, in the outgoing mail of the ledger."""

from __future__ import annotations

from tinyfat.ports.usage import Alert, Notice
from tinyfat.store.database import Database, lock_agent
from tinyfat.store.notices import queue_notice


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
            row_id = await queue_notice(connection, alert.agent_id, notice)
            await connection.execute("update usage_alerts set message_row = %s where id = %s", (row_id, alert.id))
            return row_id
