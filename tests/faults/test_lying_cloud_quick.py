"""A lying provider in every flow, a few runs; and the judge is no friend of ours.

`make faults-cloud` and `make faults-cloud-long` do it at length (python -m tests.faults.lying_cloud).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.faults.lying_cloud import FLOWS, LIES, PAST, one, plan
from tests.faults.lying_cloud_verdict import disagreements, leftovers, two
from tests.faults.lying_cloud_world import KIND, LyingWorld, lying_world
from tests.postgres import database, server
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import MachineState
from tinyfat.store.database import Database

__all__ = ["database", "server"]

pytestmark = pytest.mark.slow

SEEDS = range(7)  # each flow once
Harm = Callable[[LyingWorld, Agent], Awaitable[None]]


def test_every_lie_is_told_in_every_flow() -> None:
    plans = [plan(seed) for seed in range(len(FLOWS) * len(LIES))]
    assert {(flow, lies[0].partition("=")[0].partition(":")[0]) for flow, lies in plans} == {
        (flow, lie) for flow in FLOWS for lie in LIES
    }
    assert sum(len(lies) == 2 for _, lies in plans) > len(plans) / 4


@pytest.mark.parametrize("seed", SEEDS)
async def test_it_agrees_in_the_end(database: Database, seed: int) -> None:
    told = await one(database, seed)
    assert told.complaints == [], f"python -m tests.faults.lying_cloud --runs 1 --seed {seed}"


async def _stop(world: LyingWorld, agent: Agent) -> None:
    [name] = world.hosted()
    await world.provider.cloud.machines.stop(name)


async def _lose(world: LyingWorld, agent: Agent) -> None:
    [name] = world.hosted()
    await world.provider.cloud.machines.destroy(name)


async def _forget_machine(world: LyingWorld, agent: Agent) -> None:
    [machine] = await world.records.all_of_agent(agent.id)
    await world.records.forget(machine.id)


async def _forget_address(world: LyingWorld, agent: Agent) -> None:
    await world.addresses.forget(agent.address_id)


async def _mislead(world: LyingWorld, agent: Agent) -> None:
    for rrset in world.provider.cloud.rrsets.values():
        if rrset.type == "A":
            rrset.records = [{"value": "192.0.2.99"}]


async def _forget_name(world: LyingWorld, agent: Agent) -> None:
    for name in await world.names.of_agent(agent.id):
        await world.names.forget(name, agent.id)


async def _fail_without_a_word(world: LyingWorld, agent: Agent) -> None:
    await world.agents.become(agent.id, AgentState.FAILED, "no reason that names the machine")


async def _never_end(world: LyingWorld, agent: Agent) -> None:
    await world.agents.become(agent.id, AgentState.CREATING)


async def _take_half_its_address(world: LyingWorld, agent: Agent) -> None:
    [server] = world.provider.cloud.servers.values()
    [one] = [one for one in world.provider.cloud.primary_ips.values() if one.type == "ipv6"]
    server.ipv6 = one.assignee = None


HARMS: tuple[Harm, ...] = (
    _stop, _lose, _forget_machine, _forget_address, _mislead, _forget_name, _fail_without_a_word, _never_end,
    _take_half_its_address,
)  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
async def test_the_judge_sees_each_disagreement(database: Database, harm: Harm) -> None:
    async with lying_world(database, 0) as world:
        agent = await world.new_agent("ada", KIND)
        await world.honest(world.provision.run, agent.id)
        assert await disagreements(world) == []
        await harm(world, await world.agents.get(agent.id))
        assert await disagreements(world) != []
        assert await leftovers(world) != []


async def test_half_an_address_is_made_whole(database: Database) -> None:
    async with lying_world(database, 0) as world:
        agent = await world.new_agent("ada", KIND)
        await world.honest(world.provision.run, agent.id)
        await _take_half_its_address(world, agent)
        await world.compare()
        assert await disagreements(world) == [] and await world.alarms.open() == []


async def test_the_judge_sees_two_machines_of_one_agent(database: Database) -> None:
    async with lying_world(database, 0) as world:
        agent = await world.new_agent("ada", KIND)
        await world.honest(world.provision.run, agent.id)
        agent = await world.agents.get(agent.id)
        passing = "0f9e8d7c-0000-4000-8000-000000000002"
        await world.making.make(world.orders.new_server(agent, 2, passing, current=False), agent.name)
        assert sorted(world.hosted().values()) == [MachineState.RUNNING] * 2
        [words] = await two(world)
        assert "2 machines that run" in words


async def test_hours_pass_in_a_moment(database: Database) -> None:
    async with lying_world(database, 0) as world:
        before = world.clock()
        assert not await world.until(_never, PAST)
        assert (world.clock() - before).total_seconds() >= PAST


async def _never() -> bool:
    return False
