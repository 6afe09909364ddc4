"""Agents that were destroyed: what is left of them after a while is a row with its name and owner."""

from __future__ import annotations

from typing import Any

from tinyfat.store.database import Connection

# A reply that has not left yet (five days at most) is under way.
_NEXT = """
select id from agents where state = 'destroyed' and purged_at is null
    and state_since < now() - make_interval(days => %(days)s)
    and not exists (select from messages where agent_id = agents.id and direction = 'out'
        and state in ('queued', 'deferred'))
order by state_since limit 1 for update skip locked
"""
# In this order: each goes before what it points to. The newest mail first, a report before what it reports on.
_LARGE = (
    "delete from turn_attachments where (turn_id, place) in (select turn_id, place from turn_attachments a "
    "join turns t on t.id = a.turn_id where t.agent_id = %(agent)s limit %(limit)s)",
    "delete from turns where id in (select id from turns where agent_id = %(agent)s limit %(limit)s)",
    "delete from usage_alerts where id in (select id from usage_alerts where agent_id = %(agent)s limit %(limit)s)",
    "with gone as (delete from messages where id in (select id from messages where agent_id = %(agent)s "
    "order by position desc limit %(limit)s) returning coalesce(body_id, id) as body) "
    "select body from gone",
    "delete from thread_refs where (agent_id, message_id) in (select agent_id, message_id from thread_refs "
    "where agent_id = %(agent)s limit %(limit)s)",
    "delete from threads where id in (select id from threads where agent_id = %(agent)s limit %(limit)s)",
    "delete from logs where id in (select id from logs where agent_id = %(agent)s limit %(limit)s)",
)
_UNUSED_BODIES = """
delete from message_bodies where message_row = any(%s::uuid[])
    and not exists (select from messages where id = message_row and body_id is null)
    and not exists (select from messages where body_id = message_row and body_gone_at is null)
"""
_SMALL = tuple(
    f"delete from {table} where agent_id = %(agent)s"  # noqa: S608
    for table in ("agent_senders", "agent_steps", "agent_keys", "byok_keys", "turn_sums")
)
_PURGED = "update agents set purged_at = now() where id = %(agent)s"


async def purge_ended(connection: Connection, values: dict[str, Any]) -> int:
    """Some of what one of them left; `limit` where there may be more, of it or of another. What they spent stays in the
    ledger of calls, and who logged in on them in the audit."""
    row = await (await connection.execute(_NEXT, values)).fetchone()
    if row is None:
        return 0
    limit = int(values["limit"])
    values = {"agent": row[0], "limit": limit}
    for statement in _LARGE:
        cursor = await connection.execute(statement.encode(), values)
        if cursor.description is not None:
            bodies = [body for (body,) in await cursor.fetchall()]
            await connection.execute(_UNUSED_BODIES, (bodies,))
        if cursor.rowcount >= limit:
            return limit
    for statement in _SMALL:
        await connection.execute(statement.encode(), values)
    await connection.execute(_PURGED, values)
    return limit
