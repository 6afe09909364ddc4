"""An agent's row: its budget in the same commit, its name kept for its owner when it is gone."""

from __future__ import annotations

import asyncio

import pytest

from tinyfat.domain.agents import AgentState, RuntimeKind
from tinyfat.ports.ledger import Conflict, OthersThere
from tinyfat.store import agents as module
from tinyfat.store.agents import AgentStore
from tinyfat.store.budgets import BudgetStore
from tinyfat.store.database import Database

DAYS = 86_400.0
ADA, EVE = "ada@example.org", "eve@example.org"


async def _new(database: Database, name: str, owner: str = ADA, kept_seconds: float = 90 * DAYS) -> str:
    agent = await AgentStore(database).create(name, owner, RuntimeKind.ECHO, "process", kept_seconds=kept_seconds)
    return agent.id


async def _gone(database: Database, agent_id: str, days: float = 0.0) -> None:
    store = AgentStore(database)
    await store.become(agent_id, AgentState.DESTROYING)
    await store.become(agent_id, AgentState.DESTROYED)
    async with database.connection() as connection:
        await connection.execute(
            "update agents set state_since = state_since - make_interval(secs => %s) where id = %s",
            (days * DAYS, agent_id),
        )


async def test_killed_before_its_budget_was_opened_there_is_no_agent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "open_budget", killed)
        with pytest.raises(Killed):
            await _new(database, "half-made")
    assert "half-made" not in {agent.name for agent in await AgentStore(database).all()}
    agent_id = await _new(database, "half-made")
    assert await BudgetStore(database).caps(agent_id)


async def test_a_name_is_kept_for_its_last_owner(database: Database) -> None:
    await _gone(database, await _new(database, "kept"))
    with pytest.raises(Conflict, match=r"kept for that owner until \d{4}-\d\d-\d\d .*--take-name"):
        await _new(database, "kept", EVE)
    assert "kept" not in {agent.name for agent in await AgentStore(database).all()}
    again = await _new(database, "kept")
    with pytest.raises(Conflict, match="already"):
        await _new(database, "kept", EVE, kept_seconds=0)
    await _gone(database, again)
    with pytest.raises(Conflict):
        await _new(database, "kept", EVE)


async def test_the_operator_may_give_it_away_and_then_it_is_the_new_owners(database: Database) -> None:
    await _gone(database, await _new(database, "given"))
    await _gone(database, await _new(database, "given", EVE, kept_seconds=0))
    with pytest.raises(Conflict):
        await _new(database, "given", ADA)
    assert await _new(database, "given", EVE)


async def test_it_is_free_when_the_time_is_over(database: Database) -> None:
    await _gone(database, await _new(database, "old"), days=89.9)
    with pytest.raises(Conflict):
        await _new(database, "old", EVE)
    await _gone(database, await _new(database, "older"), days=90.1)
    assert await _new(database, "older", EVE)


async def test_while_it_is_being_ended_the_name_is_taken(database: Database) -> None:
    agent_id = await _new(database, "ending")
    await AgentStore(database).become(agent_id, AgentState.DESTROYING)
    for owner in (ADA, EVE):
        with pytest.raises(Conflict, match="already"):
            await _new(database, "ending", owner, kept_seconds=0)


async def test_of_two_owners_at_once_one_has_the_machines_that_are_for_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first is written and not committed yet."""
    store, second = AgentStore(database), asyncio.Event()
    opens = module.open_budget
    begun: list[asyncio.Task[object]] = []

    async def create(name: str, owner: str) -> object:
        return await store.create(name, owner, RuntimeKind.ECHO, "process", one_owner=True)

    async def slowly(*arguments: object) -> None:
        await opens(*arguments)  # type: ignore[arg-type]
        if not second.is_set():
            second.set()
            while not begun:
                await asyncio.sleep(0)
            (later,) = begun
            await _waits_or_is_done(database, later)

    monkeypatch.setattr(module, "open_budget", slowly)
    first = asyncio.create_task(create("ada", ADA))
    await second.wait()
    later = asyncio.create_task(create("eve", EVE))
    begun.append(later)
    await first
    with pytest.raises(OthersThere, match=ADA):
        await later
    await create("ann", ADA)  # of the one owner as many as wanted
    monkeypatch.setattr(module, "open_budget", opens)
    await store.create("bob", EVE, RuntimeKind.ECHO, "cloud", one_owner=True)  # another kind is another question
    await store.create("cy", EVE, RuntimeKind.ECHO, "process")  # where nobody asks
    with pytest.raises(OthersThere, match=EVE):
        await create("dan", ADA)


async def test_a_destroyed_agents_machine_is_nobodys(database: Database) -> None:
    store = AgentStore(database)
    await _gone(database, await _new(database, "ada"))
    assert (await store.create("eve", EVE, RuntimeKind.ECHO, "process", one_owner=True)).owner == EVE


async def _waits_or_is_done(database: Database, other: asyncio.Task[object]) -> None:
    while not other.done():
        async with database.connection() as connection:
            cursor = await connection.execute(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            )
            row = await cursor.fetchone()
        if row and row[0]:
            return
