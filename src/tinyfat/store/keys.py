"""Keys of the relay. Revoking one is effective at once: `usage_reserve` looks at the row in its own statement."""

from __future__ import annotations

from typing import Any

import psycopg

from tinyfat.domain.relay_keys import PREFIX_CHARS, RelayKey, key_hash
from tinyfat.ports.ledger import Conflict, NotFound
from tinyfat.store.database import Database, storable

LABEL_CHARS_MAX = 200
_COLUMNS = "id, agent_id, machine_id, prefix, label, created_at, revoked_at"


class KeyStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, agent_id: str, key: str, label: str = "", machine_id: str | None = None) -> RelayKey:
        """`key` from domain.relay_keys.key_from. The same again for the same agent and machine is one row.

        Raises NotFound where there is no such agent, Conflict where the key is another agent's.
        """
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    "insert into relay_keys (agent_id, machine_id, hash, prefix, label) values (%s, %s, %s, %s, %s) "
                    "on conflict (hash) do nothing",
                    (agent_id, machine_id, key_hash(key), key[:PREFIX_CHARS], storable(label)[:LABEL_CHARS_MAX]),
                )
                cursor = await connection.execute(
                    f"select {_COLUMNS} from relay_keys where hash = %s",  # noqa: S608
                    (key_hash(key),),
                )
                row = await cursor.fetchone()
        except psycopg.errors.ForeignKeyViolation:
            raise NotFound(f"There is no agent with the id {agent_id}.") from None
        assert row is not None
        if str(row[1]) != agent_id:
            raise Conflict("This key is another agent's; make a new one.")
        return _key(row)

    async def list(self, agent_id: str) -> list[RelayKey]:
        """Oldest first, the revoked ones too."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS} from relay_keys where agent_id = %s order by created_at, id",  # noqa: S608
                (agent_id,),
            )
            return [_key(row) for row in await cursor.fetchall()]

    async def revoke(self, agent_id: str, name: str) -> RelayKey:
        """`name`: the key's id or its prefix. Raises NotFound; Conflict where the prefix names several."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"update relay_keys set revoked_at = coalesce(revoked_at, now()) where agent_id = %s "  # noqa: S608
                f"and (id::text = %s or prefix = %s) returning {_COLUMNS}",
                (agent_id, storable(name), storable(name)),
            )
            rows = await cursor.fetchall()
            if len(rows) > 1:
                raise Conflict(f"Several keys begin with {name}: name one by its id.")
        if not rows:
            raise NotFound(f"This agent has no key {name!r}; `tinyfat key list NAME` shows those there are.")
        return _key(rows[0])

    async def revoke_all(self, agent_id: str) -> int:
        """An agent's end. Returns how many were open until now."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "update relay_keys set revoked_at = now() where agent_id = %s and revoked_at is null", (agent_id,)
            )
            return cursor.rowcount


def _key(row: tuple[Any, ...]) -> RelayKey:
    identity, agent_id, machine_id, prefix, label, created_at, revoked_at = row
    machine = str(machine_id) if machine_id else None
    return RelayKey(str(identity), str(agent_id), machine, prefix, label, created_at, revoked_at)
