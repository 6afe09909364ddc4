"""What the boxes of servers say, while there is no real one: they fetch their identity, and their runtime is so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.flows.small_world import DOMAIN, PlainSteps, SmallWorld
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeState, Status
from tinyfat.domain.names import RecordType
from tinyfat.ports.server_ledger import MovePhase
from tinyfat.store.enrolments import EnrolmentStore


@asynccontextmanager
async def boxes(world: SmallWorld, *states: RuntimeState) -> AsyncIterator[None]:
    """Every server that runs has a box, which fetches its identity and says that its runtime is in these states."""
    enrolments = EnrolmentStore(world.database)

    async def speak() -> None:
        while True:
            for machine_id in world.cloud.running():
                machine = await world.records.get(machine_id)
                if machine is None or not machine.wanted:
                    continue
                await enrolments.fetched(machine_id, machine.identity_serial)
                for state in states:
                    await world.records.heard(machine_id, Status(state, "its last words"))
                await _move(world, machine_id)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _move(world: SmallWorld, machine_id: str) -> None:
    """The part of its box in a move."""
    move = await world.moves.latest_of(machine_id)
    if move is None:
        return
    if (move.phase, move.from_machine) == (MovePhase.ASKED, machine_id):
        await world.moves.kept(move.id, "0" * 64, 1)
    elif (move.phase, move.to_machine) == (MovePhase.KEPT, machine_id):
        await world.moves.restored(move.id)


async def made(world: SmallWorld, agent: Agent) -> Agent:
    async with boxes(world, RuntimeState.READY):
        await world.provision.run(PlainSteps(), agent.id)
    return await world.agents.get(agent.id)


async def nothing_left(world: SmallWorld, agent: Agent) -> None:
    """At the provider, in the DNS, in the ledger."""
    assert await world.cloud.billed() == []
    assert world.dns.records == {}
    assert await world.records.all_of_agent(agent.id) == []
    assert await world.addresses.of_agent(agent.id) == []
    assert await world.names.of_agent(agent.id) == []


async def whole(world: SmallWorld, agent: Agent) -> None:
    """It agrees with the world: one machine, its address, its name."""
    assert agent.state is AgentState.READY, agent.reason
    [machine] = await world.records.all_of_agent(agent.id)
    [address] = await world.addresses.of_agent(agent.id)
    assert world.cloud.running() == [machine.id] and list(world.cloud.addresses) == [address.id]
    assert world.cloud.addresses[address.id].machine_id == machine.id
    assert machine.current and (machine.ipv4, machine.ipv6) == (address.ipv4, address.ipv6)
    name = f"{agent.name}.{DOMAIN}"
    assert machine.hostname == name
    assert world.dns.records[name, RecordType.A].values == (address.ipv4,)
    assert world.dns.records[name, RecordType.AAAA].values == (address.ipv6,)
