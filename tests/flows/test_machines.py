"""Retiring and reviving machines, over a real ledger and a provider that lies."""

from __future__ import annotations

import pytest

from tests.flows.small_world import HOST, PlainSteps, SmallWorld, small_world
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import MachineOrder
from tinyfat.drivers.machines.memory import Lies, MemoryMachines
from tinyfat.flows import watch
from tinyfat.flows.watch import MachineRuns
from tinyfat.store.database import Database


async def retired(world: SmallWorld, agent: Agent) -> Agent:
    await world.agents.become(agent.id, AgentState.DESTROYING)
    await world.retire.run(PlainSteps(), agent.id)
    return await world.agents.get(agent.id)


async def test_a_machine_is_stopped_deleted_and_seen_to_be_gone(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        assert (await retired(world, agent)).state is AgentState.DESTROYED
        assert world.machines.running() == [] and await world.records.of_agent(agent.id) is None


@pytest.mark.parametrize(
    "lies",
    [{"stop_nothing": 3}, {"delete_nothing": 3}, {"unreachable": 3}, {"stop_nothing": 2, "delete_nothing": 2}],
    ids=str,
)
async def test_what_was_acknowledged_and_not_done_is_asked_for_again(database: Database, lies: dict[str, int]) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        world.machines.lies = Lies(**lies)
        assert (await retired(world, agent)).state is AgentState.DESTROYED
        assert world.machines.running() == []


@pytest.mark.parametrize(
    ("lies", "words"),
    [
        (Lies(stop_nothing=100_000), "was told to stop and runs on"),
        (Lies(delete_nothing=100_000), "still there after it was deleted"),
        (Lies(unreachable=100_000), "does not answer"),
    ],
    ids=["stop", "delete", "unreachable"],
)
async def test_what_does_not_end_is_said_and_can_be_tried_again(
    database: Database, lies: Lies, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GONE_SECONDS_MAX", 0.3)
    async with small_world(database) as world:
        agent = await world.ready_agent()
        world.machines.lies = lies
        still = await retired(world, agent)
        assert still.state is AgentState.DESTROYING and words in still.reason
        machine = await world.records.of_agent(agent.id)
        assert machine is not None and not machine.wanted, "it is not forgotten"
        world.machines.lies = Lies()
        monkeypatch.undo()
        assert (await retired(world, agent)).state is AgentState.DESTROYED
        assert (await world.agents.get(agent.id)).reason == ""


async def test_an_agent_without_a_machine_can_be_retired(database: Database) -> None:
    async with small_world(database) as world:
        assert (await retired(world, await world.new_agent())).state is AgentState.DESTROYED


async def revive(world: SmallWorld) -> None:
    async def to_run(agent_id: str) -> Agent | None:
        agent = await world.agents.get(agent_id)
        return agent if agent.state is AgentState.READY else None

    await world.runs.revive(HOST, to_run, world.orders.of)


async def test_a_machine_that_stopped_by_itself_is_started_again_once(database: Database) -> None:
    async with small_world(database) as world:
        agents = [await world.ready_agent() for _ in range(3)]
        crashed = world.orders.of(agents[1]).id
        world.machines.crash(crashed)
        await revive(world)
        await revive(world)
        assert world.machines.began.count(crashed) == 2 and len(world.machines.running()) == 3


async def test_what_is_not_wanted_or_in_other_hands_is_left_alone(database: Database) -> None:
    async with small_world(database) as world:
        unwanted, making, elsewhere = [await world.ready_agent() for _ in range(3)]
        for agent in (unwanted, making, elsewhere):
            world.machines.crash(world.orders.of(agent).id)
        await world.records.unwanted(world.orders.of(unwanted).id)
        await world.agents.become(making.id, AgentState.CREATING)
        order = world.orders.of(elsewhere)
        await world.records.create(order.id, elsewhere.id, "process", "host-2", world.orders.token_hash(order.id))
        await revive(world)
        assert world.machines.running() == []


async def test_one_that_cannot_be_started_does_not_keep_the_others_down(database: Database) -> None:
    async with small_world(database) as world:
        agents = [await world.ready_agent() for _ in range(3)]
        for agent in agents:
            world.machines.crash(world.orders.of(agent).id)
        world.machines.lies.refuse_starts = 1
        await revive(world)
        assert len(world.machines.running()) == 2
        world.machines.lies.unreachable = 1
        await revive(world)
        assert len(world.machines.running()) == 3 or await _again(world)


async def _again(world: SmallWorld) -> bool:
    await revive(world)
    return len(world.machines.running()) == 3


async def test_what_is_not_listed_yet_is_not_ordered_twice(database: Database) -> None:
    async with small_world(database) as world:
        world.machines.lies.looks_late = 2
        agent = await world.ready_agent()
        for _ in range(4):
            await revive(world)
        assert world.machines.began == [world.orders.of(agent).id]


async def test_one_that_can_never_be_started_fills_no_log(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_world(database) as world:
        stuck, fine = [await world.ready_agent() for _ in range(2)]
        start = MemoryMachines.start

        async def full(machines: MemoryMachines, order: MachineOrder) -> None:
            if order.id == world.orders.of(stuck).id:
                raise OSError(28, "No space left on device")
            await start(machines, order)

        monkeypatch.setattr(MemoryMachines, "start", full)
        now = 0.0
        world.runs = MachineRuns(world.runs._kinds, world.records, lambda: now)
        world.machines.crash(world.orders.of(stuck).id)
        for second in range(3600):
            now = float(second)
            if second % 600 == 0:
                world.machines.crash(world.orders.of(fine).id)
            if second < 120 or second % 100 == 0:
                await revive(world)
        said = [record for record in caplog.records if record.levelname == "ERROR"]
        assert 3 <= len(said) <= 12
        assert len(world.machines.running()) == 1, "the others are started"
        monkeypatch.undo()
        caplog.clear()
        await revive(world)
        await revive(world)
        assert "had failed to start" in caplog.text
