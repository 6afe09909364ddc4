"""Machines as we know them, and the lines their boxes send."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tinyfat.domain.link import LogLine, Status
from tinyfat.domain.machines import Machine, PoolState
from tinyfat.store.database import Database, storable
from tinyfat.store.signals import Signals, Words

LOG_LINES_KEPT = 20_000  # for each agent
LOG_TRIM_EVERY = 500  # lines written between two looks at the oldest
MACHINES = "tinyfat_machines"  # payload: "<machine id>"; its box said something new, or it fetched its identity

COLUMNS = (
    "id, agent_id, kind, wanted, link_state, link_detail, seen_at, version, memory_bytes, restarts, runtime, "
    "generation, current, pool, address_id, image, size, location, hostname, ipv4, ipv6, monthly_nanodollars, "
    "created_at, ordered_at, enrolled_at, identity_serial, identity_fetched, "
    "identity_in_force, identity_complaint"
)


_NAMES = COLUMNS.split(", ")

# A heartbeat that says the same as the last one wakes nobody.
_HEARD = f"""
with before as (select link_state, seen_at from machines where id = %(machine)s), said as (
    update machines set link_state = %(state)s, link_detail = %(detail)s, version = %(version)s,
        memory_bytes = %(memory)s, restarts = %(restarts)s, seen_at = now()
    where id = %(machine)s returning id
)
select pg_notify('{MACHINES}', said.id::text) from said, before
where before.seen_at is null or before.link_state <> %(state)s
"""  # noqa: S608


class MachineStore:
    def __init__(self, database: Database, signals: Signals) -> None:
        self._database = database
        self._words = Words(signals, MACHINES)
        self._since_trim: dict[str, int] = {}

    async def create(self, machine_id: str, agent_id: str, kind: str, host: str, token_hash: bytes) -> None:
        """Twice with the same id: once."""
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into machines (id, agent_id, kind, host, token_hash) values (%s, %s, %s, %s, %s) "
                "on conflict (id) do update set host = excluded.host, token_hash = excluded.token_hash",
                (machine_id, agent_id, kind, host, token_hash),
            )

    async def of_agent(self, agent_id: str) -> Machine | None:
        """The one that answers, or is to."""
        return await self._one("agent_id = %s and current", agent_id)

    async def all_of_agent(self, agent_id: str) -> list[Machine]:
        """More than one while it moves."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {COLUMNS} from machines where agent_id = %s order by generation".encode(),  # noqa: S608
                (agent_id,),
            )
            return [machine_of(row) for row in await cursor.fetchall()]

    async def get(self, machine_id: str) -> Machine | None:
        return await self._one("id = %s", machine_id)

    async def by_token(self, token_hash: bytes) -> Machine | None:
        return await self._one("token_hash = %s", token_hash)

    async def _one(self, where: str, value: object) -> Machine | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute(f"select {COLUMNS} from machines where {where}".encode(), (value,))  # noqa: S608
            row = await cursor.fetchone()
        return machine_of(row) if row else None

    async def wanted(self, host: str) -> list[Machine]:
        """The machines this host should keep running."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {COLUMNS} from machines where host = %s and wanted order by created_at".encode(),  # noqa: S608
                (host,),
            )
            return [machine_of(row) for row in await cursor.fetchall()]

    async def unwanted(self, machine_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("update machines set wanted = false where id = %s", (machine_id,))

    async def forget(self, machine_id: str) -> None:
        """Only once it has been seen to be gone. Its key of the relay opens nothing any more."""
        async with self._database.transaction() as connection:
            await connection.execute("delete from machines where id = %s", (machine_id,))
            await connection.execute(
                "update relay_keys set revoked_at = now() where machine_id = %s and revoked_at is null", (machine_id,)
            )

    async def heard(self, machine_id: str, status: Status) -> None:
        said = {
            "machine": machine_id, "state": status.state, "detail": storable(status.detail),
            "version": storable(status.version), "memory": status.memory_bytes, "restarts": status.restarts,
        }  # fmt: skip
        async with self._database.connection() as connection:
            await connection.execute(_HEARD.encode(), said)

    async def word(self, machine_id: str, seconds: float) -> None:
        """Returns when this machine said something new, and after so many seconds at the latest: it is looked at."""
        await self._words.next(machine_id, seconds)

    async def add_log(self, agent_id: str, lines: Sequence[LogLine]) -> None:
        """`agent_id` "": of a machine that waits in the warm pool; nobody reads them."""
        if not agent_id:
            return
        rows = [(agent_id, _time(line.at), line.source, storable(line.text)) for line in lines]
        async with self._database.transaction() as connection:
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "insert into logs (agent_id, at, source, line) values (%s, least(%s, now()), %s, %s)", rows
                )
            if self._trim_is_due(agent_id, len(rows)):
                await connection.execute(
                    "delete from logs where agent_id = %(agent)s and id < (select id from logs "
                    "where agent_id = %(agent)s order by id desc offset %(kept)s limit 1)",
                    {"agent": agent_id, "kept": LOG_LINES_KEPT},
                )

    def _trim_is_due(self, agent_id: str, added: int) -> bool:
        total = self._since_trim.get(agent_id, 0) + added
        self._since_trim[agent_id] = 0 if total >= LOG_TRIM_EVERY else total
        return total >= LOG_TRIM_EVERY

    async def log(self, agent_id: str, after: int, limit: int) -> list[tuple[int, LogLine]]:
        """The newest `limit` lines with an id over `after`, oldest first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select * from (select id, at, source, line from logs where agent_id = %s and id > %s "
                "order by id desc limit %s) newest order by id",
                (agent_id, after, limit),
            )
            return [(row[0], LogLine(row[1].timestamp(), row[2], row[3])) for row in await cursor.fetchall()]


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)  # a box's clock may say anything


def machine_of(row: tuple[Any, ...]) -> Machine:
    """From COLUMNS."""
    known = dict(zip(_NAMES, row, strict=True))
    for name in ("id", "agent_id", "address_id"):
        known[name] = "" if known[name] is None else str(known[name])
    return Machine(**(known | {"pool": PoolState(known["pool"])}))
