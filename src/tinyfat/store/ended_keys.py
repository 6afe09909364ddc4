"""The end of an agent's keys: those of the relay open nothing more, its owner's own are deleted. One commit."""

from __future__ import annotations

from tinyfat.store.database import Connection, Database

_SWEPT_AT_ONCE = 200  # agents in one go


class EndedKeys:
    """Implements ports/ledger KeysEnd."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget(self, agent_id: str) -> None:
        async with self._database.transaction() as connection:
            await _forget(connection, agent_id)

    async def sweep(self) -> int:
        """Those of agents that are gone, whatever left them behind. Returns of how many agents there were any."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id::text from agents where state = 'destroyed' and (exists (select from byok_keys "
                "where agent_id = agents.id) or exists (select from relay_keys where agent_id = agents.id "
                "and revoked_at is null)) limit %s",
                (_SWEPT_AT_ONCE,),
            )
            left = [row[0] for row in await cursor.fetchall()]
        for agent_id in left:
            await self.forget(agent_id)
        return len(left)


async def _forget(connection: Connection, agent_id: str) -> None:
    """The budget row first, as whoever brings a key does: of the two, one sees what the other did."""
    await connection.execute("select from budgets where agent_id = %s for no key update", (agent_id,))
    await connection.execute(
        "update relay_keys set revoked_at = now() where agent_id = %s and revoked_at is null", (agent_id,)
    )
    await connection.execute("delete from byok_keys where agent_id = %s", (agent_id,))
    await connection.execute("update budgets set byok_vendors = '{}' where agent_id = %s", (agent_id,))
