"""Mail on its way out: one at a time holds a message's lease, and the row says what the smarthost said."""

from __future__ import annotations

from tinyfat.domain.mail.states import MessageState
from tinyfat.ports.ledger import ToDeliver
from tinyfat.store.database import Database, storable

# A reply waits while an earlier one of its conversation to the same reader has not left: a deferral must not turn the
# order around. To another reader it may overtake: one dead mailbox does not silence a conversation of several.
_FIRST = (
    "not exists (select from messages earlier where earlier.thread_id = messages.thread_id "
    "and earlier.recipient = messages.recipient and earlier.position < messages.position "
    "and earlier.direction = 'out' and earlier.state in ('queued', 'deferred'))"
)
_FOLLOWING = (
    "(select id from messages later where later.thread_id = messages.thread_id "
    "and later.recipient = messages.recipient and later.position > messages.position "
    "and later.direction = 'out' and later.state in ('queued', 'deferred') order by later.position limit 1)"
)


class DeliveryStore:
    def __init__(self, database: Database, executor_id: str) -> None:
        self._database = database
        self._executor_id = executor_id

    async def claim(self, row_id: str, lease_seconds: float) -> ToDeliver | None:
        """The message, leased to this process; None where it is done with, another process has it, or it must wait.

        A lease of our own earlier life is ours still: there is one process to an executor's id.
        """
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update messages set leased_by = %(me)s, "  # noqa: S608
                "leased_until = now() + make_interval(secs => %(lease)s), "
                "attempts = attempts + 1 where id = %(id)s and direction = 'out' and state in ('queued', 'deferred') "
                f"and (leased_until is null or leased_until < now() or leased_by = %(me)s) and {_FIRST} "
                "returning id, recipient, attempts, at, "
                "(select name from agents where agents.id = agent_id), "
                "(select raw from message_bodies where message_row = coalesce(messages.body_id, messages.id))",
                {"me": self._executor_id, "lease": lease_seconds, "id": row_id},
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        return ToDeliver(str(row[0]), row[4], row[1], bytes(row[5]), row[2], row[3])

    async def due(self, limit: int) -> list[str]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id from messages where direction = 'out' and state in ('queued', 'deferred') "  # noqa: S608
                "and next_attempt_at <= now() and (leased_until is null or leased_until < now() or leased_by = %s) "
                f"and {_FIRST} order by next_attempt_at limit %s",
                (self._executor_id, limit),
            )
            return [str(row[0]) for row in await cursor.fetchall()]

    async def delivered(self, row_id: str, response: str) -> str | None:
        """The reply that waited for this one to leave, if there is one."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update messages set state = 'sent', reason = '', response = %s, delivered_at = now(), "  # noqa: S608
                f"leased_until = null where id = %s and state in ('queued', 'deferred') returning {_FOLLOWING}",
                (storable(response), row_id),
            )
            row = await cursor.fetchone()
        return str(row[0]) if row and row[0] else None

    async def deferred(self, row_id: str, response: str, again_seconds: float) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update messages set state = 'deferred', reason = %s, response = %s, leased_until = null, "
                "next_attempt_at = now() + make_interval(secs => %s) where id = %s and state in ('queued', 'deferred')",
                (storable(response), storable(response), again_seconds, row_id),
            )

    async def undeliverable(self, row_id: str, state: MessageState, response: str) -> str | None:
        """`state`: refused (5xx) or expired. The reply that waited for this one, if there is one."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update messages set state = %s, reason = %s, response = %s, leased_until = null "  # noqa: S608
                f"where id = %s and state in ('queued', 'deferred') returning {_FOLLOWING}",
                (state, storable(response), storable(response), row_id),
            )
            row = await cursor.fetchone()
        return str(row[0]) if row and row[0] else None

    async def retry_now(self) -> None:
        """After a start: the smarthost may be another one now, or back."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update messages set next_attempt_at = now() where direction = 'out' "
                "and state in ('queued', 'deferred')"
            )
