"""A vendor's limit of requests is used up: a flow waits, says why, and its own time does not run meanwhile. What ends
something may go on."""

from __future__ import annotations

import asyncio

import pytest

from tests.drivers.hetzner_project import order
from tests.flows.boxes import boxes, made, nothing_left
from tests.flows.small_world import PlainSteps, small_world
from tests.flows.test_image_making import Said
from tinyfat.domain.agents import AgentState
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import Address, MachineSeen
from tinyfat.domain.names import RecordType
from tinyfat.drivers.dns.memory import MemoryDns
from tinyfat.drivers.machines.memory_servers import MemoryServers
from tinyfat.flows import addressing, watch
from tinyfat.flows.image_making import ImageMaking
from tinyfat.ports.requests import RequestsShort, is_ending
from tinyfat.ports.server_ledger import PoolState
from tinyfat.store.database import Database

WORDS = "The provider was not asked: its limit of requests is nearly used up."


@pytest.fixture
def reserve_alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """From `used_up` on."""
    monkeypatch.setattr(watch, "SHORT_SECONDS_FIRST", 0.01)
    return monkeypatch


def used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendors may be asked by ends alone."""

    def reach(self: object) -> None:
        if not is_ending():
            raise RequestsShort(WORDS, 0.01)

    for vendor in (MemoryServers, MemoryDns):
        monkeypatch.setattr(vendor, "_reach", reach)


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


async def test_an_agent_ends_with_the_reserve_alone(database: Database, reserve_alone: pytest.MonkeyPatch) -> None:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await world.agents.become(agent.id, AgentState.DESTROYING)
        with reserve_alone.context() as patch:
            used_up(patch)
            await world.retire.run(PlainSteps(), agent.id)
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        await nothing_left(world, agent)


async def test_a_machine_of_the_pool_ends_with_the_reserve_alone(
    database: Database, reserve_alone: pytest.MonkeyPatch
) -> None:
    async with small_world(database) as world:
        async with boxes(world, RuntimeState.READY):
            await world.pool(fsn1=1).sweep()
            await world.flows.all_ended()
        [machine] = await world.servers.all("cloud")
        await world.servers.pool_becomes(machine.id, PoolState.ENDING)
        with reserve_alone.context() as patch:
            used_up(patch)
            await world.pool().end(PlainSteps(), machine.id)
        assert await world.servers.all("cloud") == [] and await world.cloud.billed() == []


async def test_a_machine_of_an_image_ends_with_the_reserve_alone(reserve_alone: pytest.MonkeyPatch) -> None:
    """It could not be made to the end; the complaint is that, and not that it is still there."""
    servers, wanted = MemoryServers(), order()

    class Short(Said):
        async def ask(self, turn_id: str, text: str) -> None:
            used_up(reserve_alone)
            raise RequestsShort(WORDS, 0.01)

    with pytest.raises(RequestsShort):
        await ImageMaking(servers, Short(), lambda _: None).make(servers, wanted, "image", sealed=False)
    assert servers.ended == [wanted.id] and servers.running() == []


async def test_that_a_look_has_to_wait_is_no_part_of_an_ends_time(
    database: Database, reserve_alone: pytest.MonkeyPatch
) -> None:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await world.agents.become(agent.id, AgentState.DESTROYING)
        reserve_alone.setattr(watch, "GONE_SECONDS_MAX", 0.0)
        real, left = world.cloud.look, [3]

        async def short(machine_id: str) -> MachineSeen:
            if left[0]:
                left[0] -= 1
                raise RequestsShort(WORDS, 0.01)
            return await real(machine_id)

        world.cloud.crash((await world.records.all_of_agent(agent.id))[0].id)
        reserve_alone.setattr(type(world.cloud), "look", lambda self, *arguments: short(*arguments))
        await world.retire.run(PlainSteps(), agent.id)
        steps = {step.name: step.detail for step in await world.agents.steps(agent.id)}
        assert left == [0] and steps["end the machine"] == ""


async def test_one_record_that_stays_does_not_keep_the_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await world.agents.become(agent.id, AgentState.DESTROYING)
        monkeypatch.setattr(addressing, "GONE_SECONDS_MAX", 0.05)
        real = world.dns.remove

        async def remove(self: object, name: str, kind: RecordType) -> None:
            if kind is not RecordType.A:
                await real(name, kind)

        monkeypatch.setattr(MemoryDns, "remove", remove)
        await world.retire.run(PlainSteps(), agent.id)
        assert [kind for _, kind in world.dns.records] == [RecordType.A]
        ending = await world.agents.get(agent.id)
        assert ending.state is AgentState.DESTROYING and "(A) is still in the DNS" in ending.reason


async def test_what_a_slow_look_asked_for_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [0.0], [0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])

    async def slow() -> bool:
        looks[0] += 1
        now[0] += 500.0
        return looks[0] == 2

    async def wait(seconds: float) -> None:
        now[0] += seconds

    assert await watch.until(slow, 120.0, wait)
    assert not await watch.until(slow, 120.0, wait) and looks == [4]
