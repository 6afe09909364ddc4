"""The owners' own keys, sealed. In the clear they are only on their way to the vendor."""

from __future__ import annotations

from typing import Any

from tinyfat.domain.byok import KnownVendorKey, Sealed, VendorKey, hint
from tinyfat.ports.ledger import NotFound
from tinyfat.ports.secrets import Envelopes
from tinyfat.store.database import Connection, Database

REWRAPPED_AT_ONCE = 500  # rows a transaction

_VENDORS = (
    "update budgets set byok_vendors = coalesce((select array_agg(vendor order by created_at desc, vendor) "
    "from byok_keys where agent_id = %(agent)s), '{}') where agent_id = %(agent)s"
)


class ByokStore:
    def __init__(self, database: Database, envelopes: Envelopes) -> None:
        self._database = database
        self._envelopes = envelopes

    async def put(self, agent_id: str, vendor: str, key: VendorKey) -> KnownVendorKey:
        """Instead of the one that was there. Raises NotFound where the agent has no budget, or is at its end."""
        sealed = self._envelopes.seal(key.value.encode(), agent_id, vendor)
        async with self._database.transaction() as connection:
            await _lock(connection, agent_id)
            await _see_alive(connection, agent_id)
            cursor = await connection.execute(
                "insert into byok_keys (agent_id, vendor, key_version, wrapped_key, ciphertext, hint) "
                "values (%s, %s, %s, %s, %s, %s) on conflict (agent_id, vendor) do update set "
                "key_version = excluded.key_version, wrapped_key = excluded.wrapped_key, "
                "ciphertext = excluded.ciphertext, hint = excluded.hint, created_at = now(), wrapped_at = now() "
                "returning vendor, hint, key_version, created_at",
                (agent_id, vendor, sealed.key_version, sealed.wrapped_key, sealed.ciphertext, hint(key)),
            )
            row = await cursor.fetchone()
            await connection.execute(_VENDORS, {"agent": agent_id})
        assert row is not None
        return KnownVendorKey(*row)

    async def clear(self, agent_id: str, vendor: str) -> bool:
        """False where there was none."""
        async with self._database.transaction() as connection:
            await _lock(connection, agent_id)
            cursor = await connection.execute(
                "delete from byok_keys where agent_id = %s and vendor = %s", (agent_id, vendor)
            )
            await connection.execute(_VENDORS, {"agent": agent_id})
            return cursor.rowcount > 0

    async def list(self, agent_id: str) -> list[KnownVendorKey]:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select vendor, hint, key_version, created_at from byok_keys where agent_id = %s order by vendor",
                (agent_id,),
            )
            return [KnownVendorKey(*row) for row in await cursor.fetchall()]

    async def open(self, agent_id: str, vendor: str) -> VendorKey:
        """In the clear. Raises NotFound, Unopenable."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select key_version, wrapped_key, ciphertext from byok_keys where agent_id = %s and vendor = %s",
                (agent_id, vendor),
            )
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"This agent has no key of {vendor}; `tinyfat byok set NAME --vendor {vendor}` takes one.")
        return VendorKey(self._envelopes.open(_sealed(row), agent_id, vendor).decode())

    async def key(self, agent_id: str, vendor: str) -> str | None:
        """ports.inference.OwnerKeys: for the relay, on the way to the vendor. None where there is none."""
        try:
            return (await self.open(agent_id, vendor)).value
        except NotFound:
            return None

    async def rewrap(self) -> int:
        """After the master key was rotated: every row under the newest one. Returns how many were not; safe to repeat
        and to interrupt. Raises Unopenable where an old version is missing, and leaves that batch as it was."""
        done = 0
        while count := await self._rewrap_some():
            done += count
        return done

    async def _rewrap_some(self) -> int:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "select key_version, wrapped_key, ciphertext, agent_id, vendor from byok_keys where key_version < %s "
                "order by agent_id, vendor limit %s for update",
                (self._envelopes.version, REWRAPPED_AT_ONCE),
            )
            rows = await cursor.fetchall()
            for row in rows:
                sealed = self._envelopes.rewrap(_sealed(row), str(row[3]), row[4])
                await connection.execute(
                    "update byok_keys set key_version = %s, wrapped_key = %s, wrapped_at = now() "
                    "where agent_id = %s and vendor = %s",
                    (sealed.key_version, sealed.wrapped_key, row[3], row[4]),
                )
            return len(rows)


async def _lock(connection: Connection, agent_id: str) -> None:
    """The budget row, first: whose key pays changes between two calls, never during the judging of one."""
    cursor = await connection.execute("select from budgets where agent_id = %s for no key update", (agent_id,))
    if await cursor.fetchone() is None:
        raise NotFound(f"The agent {agent_id} has no budget; `tinyfat agent list` shows the agents there are.")


async def _see_alive(connection: Connection, agent_id: str) -> None:
    """Its end deletes its keys under the same lock, once: a key that came later would stay for ever."""
    cursor = await connection.execute("select state from agents where id = %s", (agent_id,))
    row = await cursor.fetchone()
    if row is None or row[0] in ("destroying", "destroyed"):
        raise NotFound("This agent is being destroyed: it takes no key any more.")


def _sealed(row: tuple[Any, ...]) -> Sealed:
    return Sealed(row[0], bytes(row[1]), bytes(row[2]))
