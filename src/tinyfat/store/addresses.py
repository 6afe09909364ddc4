"""Addresses that outlive machines, and the names that lead to them: written down first, forgotten once seen gone."""

from __future__ import annotations

from tinyfat.domain.machines import Address
from tinyfat.ports.server_ledger import KnownAddress, KnownName
from tinyfat.store.database import Database

_ADDRESS = "id::text, coalesce(agent_id::text, ''), kind, passing, ipv4, ipv6, location, created_at"


class AddressStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def write_down(self, address_id: str, agent_id: str, kind: str, passing: bool) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into addresses (id, agent_id, kind, passing) values (%s, %s, %s, %s) on conflict do nothing",
                (address_id, agent_id or None, kind, passing),
            )

    async def known(self, address: Address) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update addresses set ipv4 = %s, ipv6 = %s, location = %s where id = %s",
                (address.ipv4, address.ipv6, address.location, address.id),
            )

    async def of_agent(self, agent_id: str) -> list[KnownAddress]:
        return await self._find("agent_id = %s order by passing, created_at", agent_id)

    async def all(self, kind: str) -> list[KnownAddress]:
        return await self._find("kind = %s order by created_at", kind)

    async def _find(self, where: str, value: str) -> list[KnownAddress]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(f"select {_ADDRESS} from addresses where {where}".encode(), (value,))  # noqa: S608
            return [KnownAddress(*row) for row in await cursor.fetchall()]

    async def forget(self, address_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("delete from addresses where id = %s", (address_id,))


class NameStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def write_down(self, name: str, agent_id: str) -> bool:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "insert into dns_names as known (name, agent_id) values (%s, %s) on conflict (name) "
                "do update set agent_id = excluded.agent_id where known.agent_id = excluded.agent_id returning 1",
                (name, agent_id),
            )
            return await cursor.fetchone() is not None

    async def known(self, name: str) -> bool:
        async with self._database.connection() as connection:
            cursor = await connection.execute("select from dns_names where name = %s", (name,))
            return await cursor.fetchone() is not None

    async def of_agent(self, agent_id: str) -> list[str]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select name from dns_names where agent_id = %s order by name", (agent_id,)
            )
            return [row[0] for row in await cursor.fetchall()]

    async def all(self) -> list[KnownName]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select d.name, agent_id::text, state in ('destroyed', 'failed'), d.created_at from dns_names d "
                "join agents a on a.id = agent_id order by d.name"
            )
            return [KnownName(*row) for row in await cursor.fetchall()]

    async def forget(self, name: str, agent_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("delete from dns_names where name = %s and agent_id = %s", (name, agent_id))
