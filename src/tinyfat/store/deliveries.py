"""Mail on its way out: one at a time holds a message's lease, and the row says what the smarthost said."""

from __future__ import annotations

from tinyfat.domain.mail.states import MessageState
from tinyfat.ports.ledger import ToDeliver
from tinyfat.store.database import Database, storable


class DeliveryStore:
    def __init__(self, database: Database, executor_id: str) -> None:
        self._database = database
        self._executor_id = executor_id

    async def claim(self, row_id: str, lease_seconds: float) -> ToDeliver | None:
        """The message, leased to this process; None where it is done with, or another process has it.

        A lease of our own earlier life is ours still: there is one process to an executor's id.
        """
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update messages set leased_by = %(me)s, leased_until = now() + make_interval(secs => %(lease)s), "
                "attempts = attempts + 1 where id = %(id)s and direction = 'out' and state in ('queued', 'deferred') "
                "and (leased_until is null or leased_until < now() or leased_by = %(me)s) "
                "returning id, recipient, attempts, at, "
                "(select name from agents where agents.id = agent_id), "
                "(select raw from message_bodies where message_row = messages.id)",
                {"me": self._executor_id, "lease": lease_seconds, "id": row_id},
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        return ToDeliver(str(row[0]), row[4], row[1], bytes(row[5]), row[2], row[3])

    async def due(self, limit: int) -> list[str]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id from messages where direction = 'out' and state in ('queued', 'deferred') "
                "and next_attempt_at <= now() and (leased_until is null or leased_until < now() or leased_by = %s) "
                "order by next_attempt_at limit %s",
                (self._executor_id, limit),
            )
            return [str(row[0]) for row in await cursor.fetchall()]

    async def delivered(self, row_id: str, response: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update messages set state = 'sent', reason = '', response = %s, delivered_at = now(), "
                "leased_until = null where id = %s and state in ('queued', 'deferred')",
                (storable(response), row_id),
            )

    async def deferred(self, row_id: str, response: str, again_seconds: float) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update messages set state = 'deferred', reason = %s, response = %s, leased_until = null, "
                "next_attempt_at = now() + make_interval(secs => %s) where id = %s and state in ('queued', 'deferred')",
                (storable(response), storable(response), again_seconds, row_id),
            )

    async def undeliverable(self, row_id: str, state: MessageState, response: str) -> None:
        """`state`: refused (5xx) or expired."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update messages set state = %s, reason = %s, response = %s, leased_until = null "
                "where id = %s and state in ('queued', 'deferred')",
                (state, storable(response), storable(response), row_id),
            )

    async def retry_now(self) -> None:
        """After a start: the smarthost may be another one now, or back."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update messages set next_attempt_at = now() where direction = 'out' "
                "and state in ('queued', 'deferred')"
            )
