"""Agents, who may write to them, and how far their flows have come."""

from __future__ import annotations

from dataclasses import astuple
from datetime import timedelta
from typing import Any, LiteralString

import psycopg

from tinyfat.domain.agents import ANYWHERE, Agent, AgentState, Place, RuntimeKind
from tinyfat.domain.usage import MANAGED_CAPS
from tinyfat.ports.ledger import Conflict, NotFound, OthersThere, Step
from tinyfat.store import advisory_locks
from tinyfat.store.budgets import open_budget
from tinyfat.store.by_name import ByName
from tinyfat.store.database import PLANNED_ONCE, Connection, Database

_COLUMNS = (
    "id, name, owner, runtime, machine_kind, state, reason, created_at, state_since, plan, location, image, size, "
    "address_id, moving_at is not null, replacing, published"
)


_ADDRESSEES: LiteralString = (
    "select name, array(select pattern from agent_senders where agent_id = agents.id), "  # noqa: S608
    f"{_COLUMNS} from agents where name = any(%s) and state <> 'destroyed'"
)


class AgentStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._addressees = ByName(database.one_connection(PLANNED_ONCE), _ADDRESSEES, _addressee)

    async def create(
        self,
        name: str,
        owner: str,
        runtime: RuntimeKind,
        machine_kind: str,
        place: Place = ANYWHERE,
        kept_seconds: float = 0.0,
        one_owner: bool = False,
    ) -> Agent:
        """`one_owner`: only where no machine of that kind is another's. Raises Conflict, OthersThere."""
        try:
            async with self._database.transaction() as connection:
                if one_owner:
                    await _nobody_else(connection, machine_kind, owner)
                cursor = await connection.execute(
                    "insert into agents (name, owner, runtime, machine_kind, state, plan, location, image, size) "
                    "values (%s, %s, %s, %s, %s, %s, %s, %s, %s) returning id",
                    (name, owner, runtime, machine_kind, AgentState.CREATING, *astuple(place)),
                )
                row = await cursor.fetchone()
                assert row is not None
                # After the insert, which waits for an end of that name that is just being committed.
                await _not_anothers(connection, name, owner, kept_seconds)
                await open_budget(connection, str(row[0]), MANAGED_CAPS)
        except psycopg.errors.UniqueViolation:
            raise Conflict(f"There is an agent {name!r} already; choose another name.") from None
        return await self.get(str(row[0]))

    async def find(self, name: str) -> Agent:
        return await self._one("name = %s and state <> 'destroyed'", name, f"There is no agent {name!r}.")

    async def get(self, agent_id: str) -> Agent:
        return await self._one("id = %s", agent_id, f"There is no agent with the id {agent_id}.")

    async def _one(self, where: str, value: str, complaint: str) -> Agent:
        async with self._database.connection() as connection:
            cursor = await connection.execute(f"select {_COLUMNS} from agents where {where}".encode(), (value,))  # noqa: S608
            row = await cursor.fetchone()
        if row is None:
            raise NotFound(complaint + " `tinyfat agent list` shows those there are.")
        return _agent(row)

    async def addressee(self, name: str) -> tuple[Agent, list[str]]:
        """The agent, and who may write to it: its owner first."""
        found = await self._addressees.get(name)
        if found is None:
            raise NotFound(f"There is no agent {name!r}.")
        return found

    async def all(self) -> list[Agent]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS} from agents where state <> 'destroyed' order by name".encode()  # noqa: S608
            )
            return [_agent(row) for row in await cursor.fetchall()]

    async def become(
        self, agent_id: str, state: AgentState, reason: str = "", only_from: AgentState | None = None
    ) -> None:
        """`only_from`: nothing happens where the agent is in another state by now."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update agents set state_since = case when state = %(state)s then state_since else now() end, "
                "state = %(state)s, reason = %(reason)s where id = %(id)s and state = coalesce(%(only)s, state)",
                {"state": state, "reason": reason, "id": agent_id, "only": only_from},
            )

    async def placed(self, agent_id: str, image: str, size: str) -> None:
        """What its next machine is made from; "": as before."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update agents set image = coalesce(nullif(%s, ''), image), size = coalesce(nullif(%s, ''), size) "
                "where id = %s",
                (image, size, agent_id),
            )

    async def senders(self, agent_id: str) -> list[str]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select pattern from agent_senders where agent_id = %s order by pattern", (agent_id,)
            )
            return [row[0] for row in await cursor.fetchall()]

    async def allow(self, agent_id: str, pattern: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into agent_senders (agent_id, pattern) values (%s, %s) on conflict do nothing",
                (agent_id, pattern),
            )

    async def deny(self, agent_id: str, pattern: str) -> bool:
        """False where it was not on the list."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "delete from agent_senders where agent_id = %s and pattern = %s", (agent_id, pattern)
            )
            return cursor.rowcount > 0

    async def steps_again(self, agent_id: str, flow: str) -> None:
        """A flow that runs for the second time: its steps begin anew."""
        async with self._database.connection() as connection:
            await connection.execute("delete from agent_steps where agent_id = %s and flow = %s", (agent_id, flow))

    async def steps(self, agent_id: str) -> list[Step]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select flow, name, started_at, ended_at, detail from agent_steps where agent_id = %s "
                "order by started_at",
                (agent_id,),
            )
            return [Step(*row) for row in await cursor.fetchall()]

    async def step_begun(self, agent_id: str, flow: str, name: str) -> None:
        """Begun again after a crash, it keeps its first start."""
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into agent_steps (agent_id, flow, name) values (%s, %s, %s) on conflict do nothing",
                (agent_id, flow, name),
            )

    async def step_says(self, agent_id: str, flow: str, name: str, detail: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update agent_steps set detail = %s where agent_id = %s and flow = %s and name = %s "
                "and ended_at is null and detail <> %s",
                (detail, agent_id, flow, name, detail),
            )

    async def unbegun(self, flow: str, state: AgentState, seconds: float) -> list[str]:
        """With a reason, its flow ended before."""
        return await self._ids(
            "state = %s and reason = '' and state_since < now() - make_interval(secs => %s) "
            "and not exists (select from agent_steps where agent_id = agents.id and flow = %s)",
            (state, seconds, flow),
        )

    async def unended(self, seconds: float) -> list[str]:
        return await self._ids(
            "state = 'destroying' and reason <> '' and (select bool_and(coalesce(ended_at < now() - "
            "make_interval(secs => %s), false)) from agent_steps where agent_id = agents.id and flow = 'retire')",
            (seconds,),
        )

    async def _ids(self, where: str, values: tuple[object, ...]) -> list[str]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"select id::text from agents where {where} order by created_at".encode(),  # noqa: S608
                values,
            )
            return [row[0] for row in await cursor.fetchall()]

    async def step_ended(self, agent_id: str, flow: str, name: str, detail: str = "") -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update agent_steps set ended_at = coalesce(ended_at, now()), detail = %s "
                "where agent_id = %s and flow = %s and name = %s",
                (detail, agent_id, flow, name),
            )


async def _nobody_else(connection: Connection, machine_kind: str, owner: str) -> None:
    """Held until the commit: of two owners who come at once, the second sees the first. Raises OthersThere."""
    await connection.execute("select pg_advisory_xact_lock(%s)", (advisory_locks.OWNERS,))
    cursor = await connection.execute(
        "select distinct owner from agents where machine_kind = %s and owner <> %s and state <> 'destroyed' "
        "order by owner",
        (machine_kind, owner),
    )
    if owners := [row[0] for row in await cursor.fetchall()]:
        raise OthersThere(owners)


async def _not_anothers(connection: Connection, name: str, owner: str, kept_seconds: float) -> None:
    """People go on writing to an agent that is gone: its next owner would get the former's mail. Raises Conflict."""
    cursor = await connection.execute(
        "select owner, state_since from agents where name = %s and state = 'destroyed' "
        "order by state_since desc limit 1",
        (name,),
    )
    row = await cursor.fetchone()
    if row is None or row[0] == owner:
        return
    cursor = await connection.execute("select now()")
    now = await cursor.fetchone()
    assert now is not None
    until = row[1] + timedelta(seconds=kept_seconds)
    if until > now[0]:
        raise Conflict(
            f"The name {name!r} was another owner's agent's, and is kept for that owner until {until:%Y-%m-%d %H:%M} "
            "UTC: people may still write to it. Choose another name, or take it with --take-name."
        )


def _addressee(row: tuple[Any, ...]) -> tuple[Agent, list[str]]:
    agent = _agent(row[2:])
    return agent, [agent.owner, *row[1]]


def _agent(row: tuple[Any, ...]) -> Agent:
    identity, name, owner, runtime, machine_kind, state, reason, created_at, since, plan, location, image, size = row[
        :13
    ]
    return Agent(
        str(identity),
        name,
        owner,
        RuntimeKind(runtime),
        machine_kind,
        AgentState(state),
        reason,
        created_at,
        since,
        plan,
        location,
        image,
        size,
        str(row[13] or identity),
        *row[14:],
    )
