"""An agent's row: its budget in the same commit, its name kept for its owner when it is gone."""

from __future__ import annotations

import pytest

from tinyfat.domain.agents import AgentState, RuntimeKind
from tinyfat.ports.ledger import Conflict
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
