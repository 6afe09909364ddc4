"""An hour without room at the provider, its limit of requests on: creates in bursts, and an end that has to succeed.

In the provider's time. Every agent is made, or undone in words; nothing of those that are undone is left; of the
requests there are never more than the provider gives, and an end in the midst of it all is not kept waiting.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

from tests.faults.lying_cloud_verdict import disagreements, leftovers
from tests.faults.lying_cloud_world import KIND, LyingWorld
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.standins.lies import read_lie

BURSTS = (6, 6, 6, 8)  # each finds another location full; the last one knows them all
SHORTAGE_SECONDS = 3600.0
REQUESTS_A_CREATE_MAX = 25  # of one that finds no room, what it shares with others counted in
COMPARED = 3
PAST = 3 * 3600.0


@dataclass(slots=True)
class Told:
    requests: list[int] = field(default_factory=list)  # of each burst
    orders: list[int] = field(default_factory=list)  # of them: for a server
    refused: int = 0  # by the provider, for its limit
    seconds: float = 0.0  # of the provider, until all was made
    complaints: list[str] = field(default_factory=list)


async def shortage(world: LyingWorld) -> Told:
    told = Told()
    ended = await _made(world, "unrelated")
    until = world.provider.cloud.clock() + SHORTAGE_SECONDS
    world.provider.cloud.lies.add(read_lie("capacity", "servers"))
    for number, count in enumerate(BURSTS):
        before = len(world.provider.standin.calls)
        agents = [await world.new_agent(f"burst{number}-{n}", KIND) for n in range(count)]
        ends = [ended] if number == 0 else []
        await world.together(*_makes(world, agents), *_ends(world, ends))
        asked = list(world.provider.standin.calls)[before:]
        told.requests.append(len(asked))
        told.orders.append(sum((call["method"], call["path"]) == ("POST", "/v1/servers") for call in asked))
        told.complaints += await _undone(world, agents)
    if (await world.agents.get(ended.id)).state is not AgentState.DESTROYED:
        told.complaints.append(f"the unrelated end: {(await world.agents.get(ended.id)).reason}")
    while world.provider.cloud.clock() < until:
        await world.pass_time(60.0)
    world.provider.cloud.lies.clear()
    await _made(world, "afterwards")
    told.complaints += await _nothing_left(world)
    told.refused = sum(status == 429 for status in world.provider.asked)
    return told


async def used_up(world: LyingWorld, left: float) -> Told:
    """Somebody else used the limit up to `left`: what ends still ends, and what is being made waits and says why."""
    told = Told()
    ended = await _made(world, "unrelated")
    limit = world.provider.standin.limit
    began = world.provider.cloud.clock()
    limit.remaining, limit.refilled_at = left, began
    agents = [await world.new_agent(f"waits{n}", KIND) for n in range(3)]
    await world.together(*_makes(world, agents), _ends_first(world, ended, agents, told))
    told.seconds = world.provider.cloud.clock() - began
    for one in [await world.agents.get(agent.id) for agent in agents]:
        if one.state is not AgentState.READY:
            told.complaints.append(f"{one.name} is {one.state}: {one.reason}")
    if (await world.agents.get(ended.id)).state is not AgentState.DESTROYED:
        told.complaints.append(f"the unrelated end: {(await world.agents.get(ended.id)).reason}")
    told.complaints += await _nothing_left(world)
    told.refused = sum(status == 429 for status in world.provider.asked)
    return told


async def _made(world: LyingWorld, name: str) -> Agent:
    agent = await world.new_agent(name, KIND)
    await world.honest(world.provision.run, agent.id)
    agent = await world.agents.get(agent.id)
    assert agent.state is AgentState.READY, agent.reason
    return agent


def _makes(world: LyingWorld, agents: list[Agent]) -> list[Awaitable[None]]:
    return [world.honest(world.provision.run, agent.id) for agent in agents]


def _ends(world: LyingWorld, agents: list[Agent]) -> list[Awaitable[None]]:
    async def end(agent: Agent) -> None:
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.honest(world.retire.run, agent.id)

    return [end(agent) for agent in agents]


async def _ends_first(world: LyingWorld, ended: Agent, waiting: list[Agent], told: Told) -> None:
    [end] = _ends(world, [ended])
    await end
    states = [(await world.agents.get(agent.id)).state for agent in waiting]
    told.complaints += [f"{state} before the end" for state in states if state is not AgentState.CREATING]


async def _undone(world: LyingWorld, agents: list[Agent]) -> list[str]:
    found = []
    for one in [await world.agents.get(agent.id) for agent in agents]:
        if one.state is not AgentState.FAILED or "no room" not in one.reason or " And: " in one.reason:
            found.append(f"{one.name} is {one.state}: {one.reason}")
    names = {f"{machine.agent_id}" for machine in await world.servers.all(KIND)}
    found += [f"{agent.name} has a machine still" for agent in agents if agent.id in names]
    for agent in agents:
        found += [f"{agent.name} has the address {one.id} still" for one in await world.addresses.of_agent(agent.id)]
    return found


async def _nothing_left(world: LyingWorld) -> list[str]:
    for _ in range(COMPARED):
        await world.pass_time(PAST)
        await world.compare()
    found = await disagreements(world)
    for agent in await world.agents.all():
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.honest(world.retire.run, agent.id)
    for _ in range(COMPARED):
        await world.pass_time(PAST)
        await world.compare()
    return found + await leftovers(world)
