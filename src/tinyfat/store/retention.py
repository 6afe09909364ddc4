"""What is old is deleted: bounded batches, each under one lock over all processes, each a commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tinyfat.ports.room import Kept
from tinyfat.store import advisory_locks
from tinyfat.store.database import Connection, Database
from tinyfat.store.ended_agents import purge_ended

BATCH = 500  # rows looked at, or deleted, in one commit

_BEGINNING = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

# What nobody answers and is not of the owner's side. A mail that was released has a turn.
_STRANGERS = "direction = 'in' and turn_id is null and not trusted and state in ('quarantined', 'ignored', 'bounce')"

# A conversation is old when its last mail is. Nothing goes of one with an open turn or a reply that has not left.
_BODIES = f"""
with looked as (
    select * from messages where body_gone_at is null and at < now() - make_interval(days => %(days)s)
        and (at, id) > (%(at)s, %(id)s) order by at, id limit %(limit)s
), old as (
    select id from looked where not ({_STRANGERS}) and not exists (
        select from messages later where later.thread_id = looked.thread_id
            and (later.at >= now() - make_interval(days => %(days)s)
                or later.state in ('queued', 'running', 'deferred'))
    ) and not exists (select from turns where thread_id = looked.thread_id and state in ('waiting', 'running'))
), gone as (
    update messages set body_gone_at = now(), question = '' from old where messages.id = old.id
    returning messages.turn_id, coalesce(body_id, messages.id) as body
), texts as (
    update turns set question = '', answer = '' from gone where turns.id = gone.turn_id
)
select (select array_agg(body) from gone), (select max(at) from looked),
    (select id from looked order by at desc, id desc limit 1), (select count(*) from looked)
"""  # noqa: S608

_UNUSED_BODIES = """
delete from message_bodies where message_row = any(%s::uuid[]) and not exists (
    select from messages where id = message_row and body_id is null and body_gone_at is null
) and not exists (select from messages where body_id = message_row and body_gone_at is null)
"""

_QUARANTINE = f"""
with old as (
    select id from messages where {_STRANGERS} and at < now() - make_interval(days => %(days)s)
    order by at limit %(limit)s for update skip locked
)
delete from messages using old where messages.id = old.id
returning coalesce(body_id, messages.id), thread_id
"""  # noqa: S608
# One with a tag may be found by the next mail at this very moment; it is a row, and stays.
_EMPTY_THREADS = """
delete from threads where id = any(%s::uuid[]) and tag is null
    and not exists (select from messages where thread_id = threads.id)
    and not exists (select from turns where thread_id = threads.id)
    and not exists (select from thread_refs where thread_id = threads.id)
"""

_ATTACHMENTS = """
delete from turn_attachments where (turn_id, place) in (
    select turn_id, place from turn_attachments join turns on turns.id = turn_id
    where ended_at < now() - make_interval(days => %(days)s) limit %(limit)s)
"""
_LOGS = """
delete from logs where id in (
    select id from logs where at < now() - make_interval(days => %(days)s) order by at limit %(limit)s)
"""
# Nobody's but the operator's: as long as a stranger's that nobody let in.
_OPERATORS = (
    "delete from operator_mails where id in (select id from operator_mails "
    "where at < now() - make_interval(days => %(days)s) order by at limit %(limit)s)"
)
_CALLS = "select calls_roll_up((now() at time zone 'utc')::date - %(days)s::int, %(limit)s)"
_AUDIT = (
    "delete from ssh_sessions where serial in (select serial from ssh_sessions "
    "where valid_until < now() - make_interval(days => %(days)s) "
    "and coalesce(ended_at, valid_until) < now() - make_interval(days => %(days)s) limit %(limit)s)",
    "delete from alarms where id in (select id from alarms "
    "where ended_at < now() - make_interval(days => %(days)s) limit %(limit)s)",
    "delete from state_moves where id in (select id from state_moves m "
    "where asked_at < now() - make_interval(days => %(days)s) and phase in ('restored', 'fetched', 'failed') "
    "and not exists (select from machines where machines.id in (m.from_machine, m.to_machine)) limit %(limit)s)",
    "delete from relay_keys where id in (select id from relay_keys k "
    "where revoked_at < now() - make_interval(days => %(days)s) "
    "and not exists (select from holds where key_id = k.id) limit %(limit)s)",
    "delete from usage_alerts where id in (select id from usage_alerts "
    "where at < now() - make_interval(days => %(days)s) and message_row is not null limit %(limit)s)",
    # The month they ended in still counts them.
    "delete from ended_machines where (id, ended_at) in (select id, ended_at from ended_machines "
    "where ended_at < now() - make_interval(days => greatest(%(days)s, 62)) limit %(limit)s)",
    # Of a vendor's account that is asked no more, and of what nobody asks for: their times are Unix seconds.
    "delete from shortages where (account, thing) in (select account, thing from shortages "
    "where until < extract(epoch from now() - make_interval(days => %(days)s)) limit %(limit)s)",
    "delete from request_budgets where account in (select account from request_budgets "
    "where at < extract(epoch from now() - make_interval(days => %(days)s)) limit %(limit)s)",
)


class RetentionStore:
    """Implements ports/room OldRows."""

    def __init__(self, database: Database, batch: int = BATCH) -> None:
        self._database = database
        self._batch = batch
        self._looked: tuple[datetime, UUID] = _BEGINNING  # at bodies, in this pass
        self._kinds: dict[Kept, Callable[[Connection, dict[str, Any]], Awaitable[int]]] = {
            Kept.BODIES: self._bodies,
            Kept.QUARANTINE: _quarantine,
            Kept.ATTACHMENTS: _plain(_ATTACHMENTS),
            Kept.LOGS: _plain(_LOGS),
            Kept.CALLS: _roll_up,
            Kept.ENDED: purge_ended,
            Kept.AUDIT: _plain(*_AUDIT),
        }

    async def delete(self, kept: Kept, days: int) -> bool:
        async with self._database.transaction() as connection:
            cursor = await connection.execute("select pg_try_advisory_xact_lock(%s)", (advisory_locks.RETENTION,))
            row = await cursor.fetchone()
            if not row or not row[0]:
                return False
            done = await self._kinds[kept](connection, {"days": days, "limit": self._batch})
        return done >= self._batch

    async def _bodies(self, connection: Connection, values: dict[str, Any]) -> int:
        """How many were looked at: those of living conversations are old, too, and are passed by."""
        at, row_id = self._looked
        row = await (await connection.execute(_BODIES, {**values, "at": at, "id": row_id})).fetchone()
        assert row is not None
        bodies, last_at, last_id, looked = row
        if bodies:
            await connection.execute(_UNUSED_BODIES, (bodies,))
        self._looked = (last_at, last_id) if looked >= self._batch else _BEGINNING
        return int(looked)


async def _quarantine(connection: Connection, values: dict[str, Any]) -> int:
    rows = await (await connection.execute(_QUARANTINE, values)).fetchall()
    if rows:
        await connection.execute(_UNUSED_BODIES, ([row[0] for row in rows],))
        await connection.execute(_EMPTY_THREADS, ([row[1] for row in rows],))
    operators = (await connection.execute(_OPERATORS, values)).rowcount
    return max(len(rows), operators)


async def _roll_up(connection: Connection, values: dict[str, Any]) -> int:
    row = await (await connection.execute(_CALLS, values)).fetchone()
    return int(row[0]) if row else 0


def _plain(*statements: str) -> Callable[[Connection, dict[str, Any]], Awaitable[int]]:
    async def delete(connection: Connection, values: dict[str, Any]) -> int:
        """The most that one of them did: it may have more."""
        return max([(await connection.execute(statement.encode(), values)).rowcount for statement in statements])

    return delete
