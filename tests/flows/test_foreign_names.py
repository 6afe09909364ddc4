"""What stands in the zone and is not written down as ours is somebody else's: never overwritten, never removed."""

from __future__ import annotations

import pytest

from tests.flows.boxes import boxes, made
from tests.flows.small_world import DOMAIN, PlainSteps, SmallWorld, small_world
from tinyfat.domain.agents import AgentState
from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.store.database import Database

NAME = f"ada.{DOMAIN}"
FOREIGN = [
    RecordSet(NAME, RecordType.A, ("192.0.2.77",)),
    RecordSet(NAME, RecordType.AAAA, ("2001:db8::77",)),
    RecordSet(NAME, RecordType.CNAME, ("elsewhere.example.net.",)),
    RecordSet(NAME, RecordType.MX, ("10 mail.example.net.",)),
    RecordSet(NAME, RecordType.TXT, ("v=spf1 -all",)),
    RecordSet(NAME, RecordType.NS, ("ns1.example.net.",)),
]


async def destroyed(world: SmallWorld, agent_id: str) -> None:
    await world.agents.become(agent_id, AgentState.DESTROYING)
    await world.retire.run(PlainSteps(), agent_id)


@pytest.mark.parametrize("record", FOREIGN, ids=lambda one: str(one.kind))
async def test_a_record_of_the_operators_outlives_an_agent_of_its_name(database: Database, record: RecordSet) -> None:
    async with small_world(database) as world:
        await world.dns.put(record)
        assert str(record.kind) in await world.addressing.foreign("ada")
        agent = await made(world, await world.new_agent("ada", "cloud"))
        assert agent.state is AgentState.FAILED and NAME in agent.reason and str(record.kind) in agent.reason
        assert await world.dns.all() == [record]
        await destroyed(world, agent.id)
        assert await world.dns.all() == [record] and await world.names.all() == []


async def test_a_record_that_came_while_no_name_was_ours_is_left_at_the_end(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud")
        await world.dns.put(FOREIGN[0])
        await destroyed(world, agent.id)
        assert await world.dns.all() == [FOREIGN[0]]


async def test_what_stands_elsewhere_or_for_every_name_is_in_nobodys_way(database: Database) -> None:
    async with small_world(database) as world:
        others = [
            RecordSet(f"*.{DOMAIN}", RecordType.A, ("192.0.2.77",)),
            RecordSet(f"x.{NAME}", RecordType.A, ("192.0.2.78",)),
            RecordSet(DOMAIN, RecordType.MX, ("10 mail.example.net.",)),
        ]
        for one in others:
            await world.dns.put(one)
        agent = await made(world, await world.new_agent("ada", "cloud"))
        assert agent.state is AgentState.READY, agent.reason
        await destroyed(world, agent.id)
        assert sorted(await world.dns.all(), key=str) == sorted(others, key=str)


async def test_a_record_of_our_own_is_made_right_and_goes_at_the_end(database: Database) -> None:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await world.dns.put(FOREIGN[0])  # by hand, over what is written down as ours
        assert await world.addressing.point(agent) == ""
        [found] = [one for one in await world.dns.all() if one.kind is RecordType.A]
        assert found.values != FOREIGN[0].values
        await destroyed(world, agent.id)
        assert await world.dns.all() == []


__all__ = ["boxes"]
