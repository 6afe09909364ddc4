"""The control plane's processes, by their heartbeats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tinyfat.store import advisory_locks
from tinyfat.store.database import Database

# A relay that holds money for calls is judged by the sweep of holds alone: it is more patient, and takes a relay
# whose row is missing for dead.
_FIND_DEAD = (
    "select id from executors where id <> %s and heartbeat_at < now() - make_interval(secs => %s) "
    "and not exists (select from holds where executor = executors.id)"
)
_FORGET_DEAD = (
    "delete from executors where id = any(%s) and heartbeat_at < now() - make_interval(secs => %s) "
    "and not exists (select from holds where executor = executors.id)"
)


class ExecutorStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, executor_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into executors (id) values (%s) on conflict (id) do update set heartbeat_at = now()",
                (executor_id,),
            )

    @asynccontextmanager
    async def dead(self, own_id: str, stale_seconds: float) -> AsyncIterator[list[str]]:
        """The executors whose heartbeat stopped, while nobody else may look; forgotten when the block ends well, but
        for one that beat again meanwhile.

        A taker that dies in the block leaves them to the next one. Their delivery leases end with them.
        """
        async with self._database.connection() as connection:
            # Nearly always nobody is dead: one round trip, and no lock.
            looked = await (await connection.execute(_FIND_DEAD, (own_id, stale_seconds))).fetchone()
        if looked is None:
            yield []
            return
        async with self._database.transaction() as connection:
            await connection.execute("select pg_advisory_xact_lock(%s)", (advisory_locks.RECOVERY,))
            cursor = await connection.execute(_FIND_DEAD, (own_id, stale_seconds))
            dead = [str(row[0]) for row in await cursor.fetchall()]
            yield dead
            if dead:
                await connection.execute("update messages set leased_until = null where leased_by = any(%s)", (dead,))
                await connection.execute(_FORGET_DEAD, (dead, stale_seconds))
