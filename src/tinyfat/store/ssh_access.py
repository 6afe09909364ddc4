"""Who may log in to an agent's server, and which operator did."""

from __future__ import annotations

from tinyfat.domain.ssh_keys import KEYS_MAX
from tinyfat.ports.ledger import Conflict, NotFound
from tinyfat.ports.server_ledger import OwnerKey, SshSession
from tinyfat.store.database import Database, lock_agent, storable

_KEY = "fingerprint, public_key, name, added_at"
_SESSION = (
    "serial, (select name from agents where agents.id = agent_id), address, who, why, command, fingerprint, "
    "started_at, valid_until, ended_at, exit_code"
)


class AgentKeyStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, agent_id: str, fingerprint: str, public_key: str, name: str) -> OwnerKey:
        """Added again: as it was. Raises Conflict where there are too many."""
        async with self._database.transaction() as connection:
            await lock_agent(connection, agent_id)
            cursor = await connection.execute(
                "insert into agent_keys (agent_id, fingerprint, public_key, name) "  # noqa: S608
                "select %(agent)s, %(print)s, %(key)s, %(name)s "
                "where (select count(*) from agent_keys where agent_id = %(agent)s) < %(most)s "
                f"on conflict (agent_id, fingerprint) do update set name = excluded.name returning {_KEY}",
                {"agent": agent_id, "print": fingerprint, "key": public_key, "name": name, "most": KEYS_MAX},
            )
            row = await cursor.fetchone()
        if row is None:
            raise Conflict(f"This agent has {KEYS_MAX} keys already; remove one: `tinyfat agent keys list NAME`.")
        return OwnerKey(*row)

    async def remove(self, agent_id: str, key: str) -> OwnerKey:
        found = [one for one in await self.list(agent_id) if key in (one.name, one.fingerprint) and key]
        if len(found) > 1:
            raise Conflict(f"Several keys are called {key!r}; name one by its fingerprint.")
        if not found:
            raise NotFound(f"There is no key {key!r}; `tinyfat agent keys list NAME` shows those there are.")
        async with self._database.connection() as connection:
            await connection.execute(
                "delete from agent_keys where agent_id = %s and fingerprint = %s", (agent_id, found[0].fingerprint)
            )
        return found[0]

    async def list(self, agent_id: str) -> list[OwnerKey]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_KEY} from agent_keys where agent_id = %s order by added_at, fingerprint".encode(),  # noqa: S608
                (agent_id,),
            )
            return [OwnerKey(*row) for row in await cursor.fetchall()]


class SshSessionStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, agent_id: str, machine_id: str, address: str, who: str, why: str, command: str, fingerprint: str,
        seconds: float,
    ) -> SshSession:  # fmt: skip
        """Written down before there is a certificate: its serial is the row's."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "insert into ssh_sessions "  # noqa: S608
                "(agent_id, machine_id, address, who, why, command, fingerprint, valid_until) "
                f"values (%s, %s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s)) returning {_SESSION}",
                (
                    agent_id,
                    machine_id,
                    address,
                    storable(who),
                    storable(why),
                    storable(command),
                    fingerprint,
                    seconds,
                ),
            )
            row = await cursor.fetchone()
        assert row is not None
        return SshSession(*row)

    async def end(self, serial: int, exit_code: int) -> None:
        """The first word counts."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update ssh_sessions set ended_at = now(), exit_code = %s where serial = %s and ended_at is null",
                (exit_code, serial),
            )

    async def list(self, agent_id: str | None, limit: int) -> list[SshSession]:
        """The newest first. `agent_id` None: of every agent."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_SESSION} from ssh_sessions where agent_id = coalesce(%s, agent_id) "  # noqa: S608
                "order by serial desc limit %s",
                (agent_id, limit),
            )
            return [SshSession(*row) for row in await cursor.fetchall()]
