"""Machines that are whole servers: written down before they are ordered, claimed from the warm pool, switched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from tinyfat.domain.machines import Machine, PoolState
from tinyfat.ports.server_ledger import GoneMachine, NewServer, Wish
from tinyfat.store import advisory_locks
from tinyfat.store.database import Connection, Database
from tinyfat.store.machines import COLUMNS, machine_of
from tinyfat.store.signals import signal

SPECS = "tinyfat_specs"  # payload: "<machine id>"; its box is to be told anew what it runs, is and has to do

# One statement: whoever asks at the same moment gets another machine. The address goes with the machine, for good.
# What is locked is passed by at first, and waited for where there is no other: its box may just be saying a word.
_CLAIM = f"""
with free as (
    select id as machine from machines
    where agent_id is null and pool = 'ready' and wanted and kind = %(kind)s and runtime = %(runtime)s
        and (%(location)s = '' or location = %(location)s) and (%(image)s = '' or image = %(image)s)
        and (%(size)s = '' or size = %(size)s)
        and link_state = 'ready' and seen_at > now() - make_interval(secs => %(seen)s)
        and not exists (select from machines where agent_id = %(agent)s)
    order by created_at limit 1 for update {{locked}}
), claimed as (
    update machines set agent_id = %(agent)s, hostname = %(hostname)s, pool = 'claimed', claimed_at = now(),
        current = true, identity_serial = identity_serial + 1
    from free where id = machine returning {COLUMNS}
), addressed as (
    update addresses set agent_id = %(agent)s where id = (select address_id from claimed)
), owned as (
    update agents set address_id = (select address_id from claimed)
    where id = %(agent)s and exists (select from claimed)
)
select *, pg_notify('{SPECS}', id::text) from claimed
"""  # noqa: S608

# Answers that came meanwhile stand; a turn that waited has its time still before it.
_GO_ON = """
with held as (select id, moving_at from agents where id = %(agent)s and moving_at is not null for update),
freed as (
    update turns set box_received_at = null, deadline_at = deadline_at + (now() - greatest(held.moving_at, offered_at))
    from held where agent_id = held.id and state = 'running' and outcome is null and message_row is not null
    returning turns.id
), told as (
    select pg_notify('tinyfat_offers', m.id || ' ' || freed.id) from freed
    join machines m on m.agent_id = %(agent)s and m.current and m.wanted
)
update agents set moving_at = null from held where agents.id = held.id returning (select count(*) from told)
"""


class ServerStore:
    """Implements ports/server_ledger ServerRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write_down(self, server: NewServer) -> Machine:
        async with self._database.transaction() as connection:
            return await _write_down(connection, server)

    async def all(self, kind: str) -> list[Machine]:
        return await self._find("kind = %s order by created_at, id", kind)

    async def _find(self, where: str, *values: object) -> list[Machine]:
        async with self._database.connection() as connection:
            return await _machines(connection, where, *values)

    async def ordered(self, machine_id: str) -> None:
        await self._set("ordered_at = coalesce(ordered_at, now())", machine_id)

    async def placed(self, machine_id: str, ipv4: str, ipv6: str, location: str) -> None:
        await self._set("ipv4 = %s, ipv6 = %s, location = %s", machine_id, ipv4, ipv6, location)

    async def priced(self, machine_id: str, monthly_nanodollars: int) -> None:
        await self._set("monthly_nanodollars = %s", machine_id, monthly_nanodollars)

    async def _set(self, what: str, machine_id: str, *values: object) -> None:
        async with self._database.connection() as connection:
            await connection.execute(f"update machines set {what} where id = %s".encode(), (*values, machine_id))  # noqa: S608

    async def claim(self, agent_id: str, wish: Wish, hostname: str, seen_seconds: float) -> Machine | None:
        asked = {
            "agent": agent_id, "hostname": hostname, "seen": seen_seconds, "kind": wish.kind, "runtime": wish.runtime,
            "location": wish.location, "image": wish.image, "size": wish.size,
        }  # fmt: skip
        async with self._database.transaction() as connection:
            for locked in ("skip locked", ""):
                claim = _CLAIM.format(locked=locked)
                row = await (await connection.execute(claim.encode(), asked)).fetchone()
                if row is not None:
                    return machine_of(row[:-1])
            earlier = await _machines(connection, "agent_id = %s and current and pool = 'claimed'", agent_id)
            return earlier[0] if earlier else None

    async def fill_pool(self, wish: Wish, wanted: int, booting_max: int, new: Callable[[], NewServer]) -> list[Machine]:
        async with self._database.transaction() as connection:
            # Until the commit: whoever counts next, counts what is written down here.
            await connection.execute("select pg_advisory_xact_lock(%s)", (advisory_locks.POOL,))
            cursor = await connection.execute(
                "select count(*) filter (where pool = 'booting'), count(*) from machines where agent_id is null "
                "and pool in ('booting', 'ready') and (kind, runtime, location) = (%s, %s, %s)",
                (wish.kind, wish.runtime, wish.location),
            )
            row = await cursor.fetchone()
            assert row is not None
            booting, there = int(row[0]), int(row[1])
            missing = max(0, min(wanted - there, booting_max - booting))
            return [await _write_down(connection, new()) for _ in range(missing)]

    async def waiting(self, kind: str) -> list[Machine]:
        return await self._find("agent_id is null and kind = %s order by created_at", kind)

    async def pool_becomes(self, machine_id: str, state: PoolState) -> bool:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update machines set pool = %s, wanted = %s where id = %s and agent_id is null and pool <> 'ending'",
                (state, state is not PoolState.ENDING, machine_id),
            )
            return cursor.rowcount > 0

    async def identity_changed(self, machine_id: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                "update machines set identity_serial = identity_serial + 1 where id = %s", (machine_id,)
            )
            await signal(connection, SPECS, machine_id)

    async def publish(self, agent_id: str, published: bool) -> None:
        async with self._database.transaction() as connection:
            await connection.execute("update agents set published = %s where id = %s", (published, agent_id))
            cursor = await connection.execute(
                "update machines set identity_serial = identity_serial + 1, identity_complaint = '' "
                "where agent_id = %s and hostname <> '' returning id",
                (agent_id,),
            )
            for (machine_id,) in await cursor.fetchall():
                await signal(connection, SPECS, str(machine_id))

    async def switch(self, agent_id: str, machine_id: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                "update machines set current = false where agent_id = %s and id <> %s", (agent_id, machine_id)
            )
            await connection.execute(
                "update machines set current = true where agent_id = %s and id = %s", (agent_id, machine_id)
            )

    async def addressed(self, machine_id: str, address_id: str) -> None:
        await self._set("address_id = %s", machine_id, address_id)

    async def begin_replacing(self, agent_id: str, generation: int) -> bool:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update agents set replacing = %(number)s where id = %(agent)s and state = 'ready' "
                "and replacing < %(number)s and (select count(*) from machines where agent_id = agents.id) = 1",
                {"agent": agent_id, "number": generation},
            )
            return cursor.rowcount == 1

    async def hold_turns(self, agent_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update agents set moving_at = coalesce(moving_at, now()) where id = %s", (agent_id,)
            )

    async def go_on(self, agent_id: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_GO_ON, {"agent": agent_id})

    async def price_of(self, agent_id: str) -> int:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select coalesce(sum(monthly_nanodollars), 0)::bigint from machines where agent_id = %s", (agent_id,)
            )
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def gone(self, first: date) -> list[GoneMachine]:
        """The machines that cost something and ended on that day (UTC) or later."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select coalesce(agent_id::text, ''), monthly_nanodollars, since, ended_at from ended_machines "
                "where ended_at >= %s::date::timestamp at time zone 'UTC'",
                (first,),
            )
            return [GoneMachine(*row) for row in await cursor.fetchall()]


async def _write_down(connection: Connection, server: NewServer) -> Machine:
    await connection.execute(
        "insert into machines (id, agent_id, kind, host, token_hash, runtime, generation, current, pool, "
        "address_id, image, size, location, hostname, enrol_token_hash, enrol_until) values (%s, %s, %s, '', "
        "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s)) on conflict do nothing",
        (
            server.id,
            server.agent_id or None,
            server.kind,
            server.token_hash,
            server.runtime,
            server.generation,
            server.current,
            PoolState.NONE if server.agent_id else PoolState.BOOTING,
            server.address_id,
            server.image,
            server.size,
            server.location,
            server.hostname,
            server.enrol_token_hash,
            server.enrol_seconds,
        ),
    )
    [machine] = await _machines(connection, "id = %s", server.id)
    return machine


async def _machines(connection: Connection, where: str, *values: Any) -> list[Machine]:
    cursor = await connection.execute(f"select {COLUMNS} from machines where {where}".encode(), values)  # noqa: S608
    return [machine_of(row) for row in await cursor.fetchall()]
