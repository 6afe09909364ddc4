"""The warm pool: filled in the background, claimed once, never taken back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.flows.boxes import boxes, made, nothing_left, whole
from tests.flows.small_world import PlainSteps, SmallWorld, small_world
from tests.running import until
from tinyfat.domain.agents import AgentState, Place
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import PoolState
from tinyfat.flows import pool as pool_flow
from tinyfat.flows import provision
from tinyfat.store.database import Database


async def filled(world: SmallWorld, **wanted: int) -> None:
    """Until so many wait."""
    pool = world.pool(**wanted)

    async def waits() -> bool:
        await pool.sweep()
        return len(await ready(world)) == sum(wanted.values())

    async with boxes(world, RuntimeState.READY):
        await until(waits, 10.0, f"{wanted} wait")
        await world.flows.all_ended()


async def ready(world: SmallWorld) -> list[str]:
    return [machine.id for machine in await world.servers.waiting("cloud") if machine.pool is PoolState.READY]


async def test_it_is_filled_and_no_further(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=2, nbg1=1)
        for _ in range(3):
            await world.pool(fsn1=2, nbg1=1).sweep()
        await world.flows.all_ended()
        assert len(world.cloud.began) == 3 and len(await ready(world)) == 3
        assert sorted(m.location for m in await world.servers.waiting("cloud")) == ["fsn1", "fsn1", "nbg1"]


async def test_two_control_planes_order_no_more_than_one(database: Database) -> None:
    async with small_world(database) as world:
        for wanted in range(1, 9):  # each time one more is missing, and all ask at once
            pools = [world.pool(fsn1=wanted) for _ in range(4)]
            async with boxes(world, RuntimeState.READY):
                await asyncio.gather(*(pool.sweep() for pool in pools))
                await world.flows.all_ended()
            assert len(world.cloud.began) == wanted
            assert len(await world.servers.waiting("cloud")) == wanted


async def test_a_claim_takes_the_machine_with_its_address_and_gives_it_a_name(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=1)
        [waiting] = await world.servers.waiting("cloud")
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await whole(world, agent)
        [machine] = await world.records.all_of_agent(agent.id)
        assert machine.id == waiting.id and machine.claimed and machine.ipv4 == waiting.ipv4
        assert machine.identity_serial == waiting.identity_serial + 1 and agent.address_id == machine.id
        assert len(world.cloud.began) == 1
        # What was claimed never goes back, and its place is filled again.
        assert await ready(world) == []
        await filled(world, fsn1=1)
        assert waiting.id not in await ready(world)
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        assert world.cloud.running() == await ready(world) and waiting.id not in world.cloud.addresses


async def test_many_claims_at_once_get_a_machine_each(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=3)
        agents = [await world.new_agent(f"a{number}", "cloud") for number in range(5)]
        async with boxes(world, RuntimeState.READY):
            await asyncio.gather(*(world.provision.run(PlainSteps(), agent.id) for agent in agents))
        machines = [await world.records.all_of_agent(agent.id) for agent in agents]
        assert all(len(each) == 1 for each in machines)
        assert len({each[0].id for each in machines}) == 5
        assert sum(each[0].claimed for each in machines) == 3
        assert [(await world.agents.get(agent.id)).state for agent in agents] == [AgentState.READY] * 5


async def test_a_machine_whose_box_says_a_word_at_that_moment_is_claimed_all_the_same(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=1)
        agent = await world.new_agent("ada", "cloud")

        async def waits() -> bool:
            locked = "datname = current_database() and wait_event_type = 'Lock'"
            [[count]] = await world.rows(f"select count(*) from pg_stat_activity where {locked}")
            return claiming.done() or bool(count)

        async with database.transaction() as word:
            await word.execute("update machines set seen_at = now()")
            claiming = asyncio.create_task(world.making.claim(agent))
            await until(waits, 10.0, "the claim waits")
        await claiming
        machine = await world.records.of_agent(agent.id)
        assert machine is not None and machine.claimed


async def test_a_claim_asked_again_after_a_crash_is_the_same(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=2)
        agent = await world.new_agent("ada", "cloud")
        first = await world.making.claim(agent) or await world.records.of_agent(agent.id)
        again = await world.making.claim(agent) or await world.records.of_agent(agent.id)
        assert first == again and len(await ready(world)) == 1


@pytest.mark.parametrize("place", [Place(location="hel1"), Place(image="other-1"), Place(size="cx52")], ids=str)
async def test_what_is_not_like_it_is_not_claimed(database: Database, place: Place) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=1)
        agent = await made(world, await world.new_agent("ada", "cloud", place))
        assert agent.state is AgentState.READY and len(await ready(world)) == 1


async def test_a_machine_that_fell_silent_is_not_given_away_and_ends(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=1)
        [silent] = await ready(world)
        await world.servers._set("seen_at = now() - interval '1 hour'", silent)
        agent = await world.new_agent("ada", "cloud")
        await world.making.claim(agent)
        assert await world.records.of_agent(agent.id) is None
        await world.pool(fsn1=0).sweep()
        await world.pool(fsn1=0).sweep()
        await world.flows.all_ended()
        assert await world.servers.waiting("cloud") == []
        await nothing_left(world, agent)


async def test_another_image_and_too_many_end(database: Database) -> None:
    async with small_world(database) as world:
        await filled(world, fsn1=2)
        await filled(world, fsn1=1)
        for _ in range(2):
            await world.pool(fsn1=1).sweep()
        await world.flows.all_ended()
        assert len(world.cloud.running()) == 1
        old = await ready(world)
        world.orders._terms = replace(world.orders.terms, image="openclaw-2")
        world.clock_ahead = timedelta(minutes=2)
        pool = world.pool(fsn1=1)

        async def renewed() -> bool:
            await pool.sweep()
            return len(world.cloud.running()) == 1 and await ready(world) not in ([], old)

        async with boxes(world, RuntimeState.READY):
            await until(renewed, 10.0, "one of the new image waits")


async def test_a_provider_that_refuses_is_left_in_peace_for_a_while(database: Database) -> None:
    async with small_world(database) as world:
        world.cloud.lies.no_room_in = ("fsn1",)
        pool = world.pool(fsn1=3)
        for _ in range(4):
            await pool.sweep()
            await world.flows.all_ended()
        [alarm] = await world.alarms.open()
        assert alarm.kind == "pool" and "fsn1" in alarm.detail
        assert len(world.flows.begun) <= pool_flow.BOOTING_MAX * 2  # each made, and ended
        assert await world.servers.waiting("cloud") == [] and await world.cloud.billed() == []
        world.cloud.lies.no_room_in = ()
        world.clock_ahead = timedelta(seconds=pool_flow.PAUSE_SECONDS + 1)
        await filled(world, fsn1=1)
        assert await world.alarms.open() == []


async def test_one_whose_box_never_calls_ends(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_flow, "ENROLLED_SECONDS_MAX", 0.3)
    assert provision.ENROLLED_SECONDS_MAX > 600
    async with small_world(database) as world:
        await world.pool(fsn1=1).sweep()
        await world.flows.all_ended()
        assert await world.cloud.billed() == [] and await world.servers.waiting("cloud") == []


async def test_where_none_is_wanted_any_more_the_alarm_ends(database: Database) -> None:
    async with small_world(database) as world:
        world.cloud.lies.no_room_in = ("fsn1", "nbg1")
        await world.pool(fsn1=1, nbg1=1).sweep()
        await world.flows.all_ended()
        assert len(await world.alarms.open()) == 2
        await world.pool(fsn1=0, nbg1=1).sweep()
        [alarm] = await world.alarms.open()
        assert "nbg1" in alarm.subject
        await world.pool().sweep()
        assert await world.alarms.open() == []
