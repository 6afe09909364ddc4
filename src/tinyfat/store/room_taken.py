"""What takes room in the database."""

from __future__ import annotations

import psycopg

from tinyfat.domain.disks import Taken
from tinyfat.store.database import Database

_KIND = (
    "case when direction = 'out' then 'replies' "
    "when turn_id is null and state in ('quarantined', 'ignored', 'bounce') then 'quarantine' else 'mail' end as kind"
)
# A shared body counts once, with the first that has it.
_MAILS = f"""
select kind, sum(size)::bigint, count(*) from (
    select {_KIND}, size from messages where body_gone_at is null and body_id is null
    union all
    (select distinct on (body_id) {_KIND}, size from messages where body_gone_at is null and body_id is not null
        order by body_id, position)
) bodies group by kind
"""  # noqa: S608
_SETTINGS = {
    "mail": "TINYFAT_KEEP_BODIES, TINYFAT_CONVERSATIONS_BYTES",
    "replies": "TINYFAT_KEEP_BODIES, TINYFAT_CONVERSATIONS_BYTES",
    "quarantine": "TINYFAT_KEEP_QUARANTINE, TINYFAT_QUARANTINE_BYTES",
}
# With its indexes and what was moved out of line. How many rows is Postgres' own estimate.
_TABLES = """
select case when n.nspname = 'dbos' then 'flows' when c.relname in ('calls', 'logs', 'turn_attachments', 'turns',
        'messages', 'message_bodies', 'ssh_sessions') then c.relname else 'other tables' end,
    sum(pg_total_relation_size(c.oid))::bigint, sum(greatest(c.reltuples, 0))::bigint
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname in ('public', 'dbos') group by 1 order by 2 desc
"""
_TABLES_OF = {
    "calls": "TINYFAT_KEEP_CALLS",
    "logs": "TINYFAT_KEEP_LOGS",
    "flows": "TINYFAT_KEEP_FLOWS",
    "message_bodies": "TINYFAT_KEEP_BODIES, TINYFAT_KEEP_QUARANTINE",
    "turns": "TINYFAT_KEEP_BODIES, TINYFAT_KEEP_ENDED",
    "messages": "TINYFAT_KEEP_QUARANTINE, TINYFAT_KEEP_ENDED",
    "ssh_sessions": "TINYFAT_KEEP_AUDIT",
}


async def database_taken(database: Database) -> list[Taken]:
    """The whole database, its tables, and of the mails in them what is whose."""
    async with database.connection() as connection:
        row = await (await connection.execute("select pg_database_size(current_database())")).fetchone()
        found = [Taken("database", "", int(row[0]) if row else 0, 1)]
        for name, size, count in await (await connection.execute(_TABLES)).fetchall():
            found.append(Taken(f"table {name}", "", size, count, _TABLES_OF.get(name, ""), inside="database"))
        for name, size, count in await (await connection.execute(_MAILS)).fetchall():
            found.append(Taken(f"bodies: {name}", "", size, count, _SETTINGS[name], inside="table message_bodies"))
        try:
            row = await (await connection.execute("select sum(size), count(*) from pg_ls_waldir()")).fetchone()
        except psycopg.errors.InsufficientPrivilege:
            return found  # a database of the operator's own may not tell
        if row:
            found.append(Taken("write-ahead log", "", int(row[0] or 0), row[1], "max_wal_size of Postgres"))
    return found


async def machines_agents(database: Database) -> dict[str, str]:
    """Machine's id -> its agent's name."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            "select m.id::text, a.name from machines m join agents a on a.id = m.agent_id"
        )
        return dict(await cursor.fetchall())
