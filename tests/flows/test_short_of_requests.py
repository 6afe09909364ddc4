"""A vendor's limit of requests is used up: a flow waits, says why, and its own time does not run meanwhile."""

from __future__ import annotations

import pytest

from tests.flows.boxes import made
from tests.flows.small_world import small_world
from tinyfat.domain.agents import AgentState
from tinyfat.domain.machines import Address
from tinyfat.flows import addressing, watch
from tinyfat.ports.requests import RequestsShort
from tinyfat.store.database import Database

WORDS = "The provider was not asked: its limit of requests is nearly used up."


async def test_ordering_waits_in_its_flow_and_the_step_says_why(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SHORT_SECONDS_FIRST", 0.01)
    monkeypatch.setattr(addressing, "ADDRESS_SECONDS_MAX", 0.0)  # no time of its own: what it waited does not count
    async with small_world(database) as world:
        said: list[str] = []
        real = world.cloud.address

        async def short(address_id: str, location: str = "") -> Address:
            steps = await world.agents.steps(agent.id)
            said.append(next(step.detail for step in steps if step.name == "order a machine"))
            if len(said) < 4:
                raise RequestsShort(WORDS, 0.01)
            return await real(address_id, location)

        monkeypatch.setattr(type(world.cloud), "address", lambda self, *arguments: short(*arguments))
        agent = await world.new_agent("ada", "cloud")
        ready = await made(world, agent)
        assert ready.state is AgentState.READY, ready.reason
        assert said == ["", WORDS, WORDS, WORDS]
        assert all(step.detail == "" for step in await world.agents.steps(agent.id))


async def test_the_wait_has_an_end_and_then_it_is_a_reason(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SHORT_SECONDS_FIRST", 0.01)
    monkeypatch.setattr(watch, "SHORT_SECONDS_MAX", 0.02)
    async with small_world(database) as world:

        async def short(self: object, *_: object) -> Address:
            raise RequestsShort(WORDS, 0.01)

        monkeypatch.setattr(type(world.cloud), "address", short)
        agent = await made(world, await world.new_agent("ada", "cloud"))
        assert agent.state is AgentState.FAILED and WORDS in agent.reason
