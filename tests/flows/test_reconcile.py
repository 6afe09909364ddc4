"""What the provider bills against what we know: told at once, removed late, and never what is not ours."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from tests.flows.boxes import boxes, made, whole
from tests.flows.small_world import DOMAIN, PlainSteps, SmallWorld, small_world
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import Address, Billed, BilledKind, MachineOrder, ServerOrder
from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.drivers.dns.memory import DnsLies
from tinyfat.drivers.machines.memory import Lies
from tinyfat.drivers.machines.memory_servers import PRICE
from tinyfat.flows import reconcile
from tinyfat.flows.orders import machine_id_of
from tinyfat.ports.server_ledger import AlarmKind
from tinyfat.store.database import Database

LATER = timedelta(seconds=reconcile.ORPHAN_SECONDS + 60)


async def order_unknown(world: SmallWorld, machine_id: str, makes: str = "") -> None:
    server = ServerOrder("x", "https://x", "", "t", "0" * 64, "k", makes=makes)
    await world.cloud.start(MachineOrder(machine_id, "ada", "echo", "wss://x", "t", server))


async def kinds(world: SmallWorld) -> list[AlarmKind]:
    return [alarm.kind for alarm in await world.reconcile.run()]


async def ada(world: SmallWorld) -> Agent:
    return await made(world, await world.new_agent("ada", "cloud"))


async def test_where_all_agrees_there_is_no_alarm(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.clock_ahead = LATER
        assert await world.reconcile.run() == []
        await whole(world, agent)


async def test_an_orphan_is_told_at_once_and_removed_when_it_is_old(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        orphan = str(uuid.uuid4())
        await order_unknown(world, orphan)
        world.cloud.addresses["a9"] = Address("a9", "192.0.2.250")
        world.cloud._made_at["a9"] = datetime.now(UTC)
        assert await kinds(world) == [AlarmKind.ORPHAN, AlarmKind.ORPHAN]
        assert orphan in world.cloud.running()
        world.clock_ahead = LATER
        assert await kinds(world) == [AlarmKind.ORPHAN, AlarmKind.ORPHAN]
        assert await kinds(world) == []
        await whole(world, agent)


async def test_an_orphan_that_does_not_go_stays_an_alarm(database: Database) -> None:
    async with small_world(database) as world:
        await order_unknown(world, str(uuid.uuid4()))
        world.cloud.lies = Lies(delete_nothing=3)
        world.clock_ahead = LATER
        assert [await kinds(world) for _ in range(5)] == [[AlarmKind.ORPHAN]] * 4 + [[]]


async def test_what_is_not_ours_is_never_touched(database: Database) -> None:
    async with small_world(database) as world:
        old = datetime(2020, 1, 1, tzinfo=UTC)
        world.cloud.foreign = [Billed(kind, "7", "theirs", False, "", old) for kind in BilledKind]
        await world.dns.put(RecordSet(f"www2.{DOMAIN}", RecordType.A, ("203.0.113.9",)))
        world.clock_ahead = LATER
        assert await world.reconcile.run() == []
        assert len(world.cloud.foreign) == len(BilledKind) and len(world.dns.records) == 1


async def test_what_a_flow_is_about_to_know_is_not_removed(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud")
        await order_unknown(world, machine_id_of(agent.id))
        world.clock_ahead = LATER
        [alarm] = await world.reconcile.run()
        assert alarm.kind is AlarmKind.ORPHAN and "under way" in alarm.detail and len(world.cloud.running()) == 1


async def test_what_an_image_is_made_of_is_noted_and_an_orphan_only_when_its_command_must_be_dead(
    database: Database,
) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        builder = str(uuid.uuid4())
        await order_unknown(world, builder, makes="openclaw-1")
        firewall = Billed(BilledKind.FIREWALL, "8", "its firewall", True, builder, datetime.now(UTC))
        idle = Billed(BilledKind.FIREWALL, "9", "of one that went", True, "", datetime.now(UTC))
        world.cloud.foreign = [firewall, idle]
        for _ in range(2):
            assert await world.reconcile.run() == []
            [noted] = await world.image_machines.all()
            assert (noted.kind, noted.provider_id, noted.image) == ("cloud", f"s-{builder}", "openclaw-1")
            assert noted.monthly_nanodollars == PRICE and noted.since == world.cloud._made_at[builder]
        world.cloud.foreign = []
        world.cloud.lies = Lies(delete_nothing=1)
        world.clock_ahead = LATER
        [alarm] = await world.reconcile.run()
        assert alarm.kind is AlarmKind.ORPHAN and "image openclaw-1" in alarm.detail
        assert await world.image_machines.all() == []
        assert await kinds(world) == [AlarmKind.ORPHAN]
        assert await world.reconcile.run() == [] and builder not in world.cloud.running()
        await whole(world, agent)


async def test_what_an_image_was_made_of_is_noted_no_longer_than_it_is_there(database: Database) -> None:
    async with small_world(database) as world:
        builder, trial = str(uuid.uuid4()), str(uuid.uuid4())
        await order_unknown(world, builder, makes="openclaw-1")
        await world.reconcile.run()
        await world.cloud.delete(builder)
        await order_unknown(world, trial, makes="openclaw-1")
        world.cloud.lies = Lies(unreachable=1)
        await world.reconcile.run()
        assert [one.provider_id for one in await world.image_machines.all()] == [f"s-{builder}"]  # nothing is known
        await world.reconcile.run()
        assert [one.provider_id for one in await world.image_machines.all()] == [f"s-{trial}"]
        await world.cloud.delete(trial)
        assert await world.reconcile.run() == [] and await world.image_machines.all() == []


async def test_a_ghost_is_told_and_nothing_is_forgotten(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        [machine] = await world.records.all_of_agent(agent.id)
        await world.cloud.delete(machine.id)
        assert await world.reconcile.run() == []  # lists may be late
        world.clock_ahead = timedelta(seconds=reconcile.GHOST_SECONDS + 60)
        [alarm] = await world.reconcile.run()
        assert alarm.kind is AlarmKind.GHOST and "ada" in alarm.detail and alarm.agent_id == agent.id
        assert await world.records.of_agent(agent.id) is not None


async def test_a_server_that_stopped_runs_again_with_its_own_address(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        [machine] = await world.records.all_of_agent(agent.id)
        world.cloud.crash(machine.id)
        world.cloud.lies = Lies(ip_changes=1)
        assert await world.reconcile.run() == []
        assert world.cloud.running() == [machine.id]
        assert (await world.cloud.look(machine.id)).ipv4 != machine.ipv4
        await world.reconcile.run()
        assert await world.reconcile.run() == []
        assert (await world.cloud.look(machine.id)).ipv4 == machine.ipv4
        await whole(world, agent)


async def test_a_provider_that_does_not_answer_ends_no_alarm(database: Database) -> None:
    async with small_world(database) as world:
        await order_unknown(world, str(uuid.uuid4()))
        assert await kinds(world) == [AlarmKind.ORPHAN]
        world.cloud.lies = Lies(unreachable=1)
        assert await kinds(world) == [AlarmKind.ORPHAN]
        assert await kinds(world) == [AlarmKind.ORPHAN]


async def test_a_list_that_cannot_be_read_for_long_is_an_alarm_until_it_can(database: Database) -> None:
    async with small_world(database) as world:
        await order_unknown(world, str(uuid.uuid4()))
        assert await kinds(world) == [AlarmKind.ORPHAN]
        world.cloud.lies = Lies(unreachable=100_000)
        assert await kinds(world) == [AlarmKind.ORPHAN]
        world.clock_ahead = timedelta(seconds=reconcile.UNREAD_SECONDS - 60)
        assert await kinds(world) == [AlarmKind.ORPHAN]
        world.clock_ahead = timedelta(seconds=reconcile.UNREAD_SECONDS + 60)
        assert await kinds(world) == [AlarmKind.ORPHAN, AlarmKind.UNREAD]
        [unread] = await world.alarms.open(f"{reconcile.LIST_SCOPE} cloud")
        assert "does not answer" in unread.detail
        assert [alarm.since for alarm in await world.reconcile.run()][1] == unread.since  # one, not one more
        world.cloud.lies = Lies()
        assert await kinds(world) == [AlarmKind.ORPHAN]
        world.cloud.lies = Lies(unreachable=1)  # now and then is nothing
        assert await kinds(world) == [AlarmKind.ORPHAN]


async def test_a_kind_that_is_not_in_use_is_not_asked(database: Database) -> None:
    """A `tinyfat up` without root has no containers of systemd, and no alarm for it."""
    async with small_world(database) as world:
        world.reconcile._always = frozenset()
        world.cloud.lies = Lies(unreachable=100_000)
        world.clock_ahead = LATER
        for _ in range(2):
            assert await world.reconcile.run() == []
            world.clock_ahead += LATER
        assert world.cloud.lies.unreachable == 100_000
        world.cloud.lies = Lies()
        agent = await ada(world)
        [machine] = await world.records.all_of_agent(agent.id)
        world.cloud.crash(machine.id)
        assert await world.reconcile.run() == []
        assert world.cloud.running() == [machine.id]  # somebody lives there: it is looked after


async def test_names_that_cannot_be_compared_for_long_are_an_alarm(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        await world.agents.become(agent.id, AgentState.DESTROYED)
        world.clock_ahead = LATER
        world.dns.lies = DnsLies(refuse=100_000)
        assert AlarmKind.UNREAD not in await kinds(world)
        world.clock_ahead = LATER + timedelta(seconds=reconcile.UNREAD_SECONDS)
        [unread] = [alarm for alarm in await world.reconcile.run() if alarm.kind is AlarmKind.UNREAD]
        assert unread.subject.startswith("list dns ") and "refused" in unread.detail
        world.dns.lies = DnsLies()
        assert AlarmKind.UNREAD not in await kinds(world)


async def test_a_name_without_an_agent_is_told_and_removed_when_it_is_old(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        await world.agents.become(agent.id, AgentState.DESTROYED)
        assert AlarmKind.STRAY_NAME in await kinds(world)
        assert len(world.dns.records) == 2
        world.clock_ahead = LATER
        await world.reconcile.run()
        assert world.dns.records == {} and await world.names.all() == []


async def test_the_price_is_what_the_list_says_today(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        before = await world.servers.price_of(agent.id)
        monkeypatch.setattr("tinyfat.drivers.machines.memory_servers.PRICE", 7_000_000_000)
        await world.reconcile.run()
        assert await world.servers.price_of(agent.id) == before + 2_000_000_000


async def test_an_agent_that_is_retired_right_then_raises_no_alarm(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        await world.agents.become(agent.id, AgentState.DESTROYING)
        async with boxes(world, RuntimeState.READY):
            await world.retire.run(PlainSteps(), agent.id)
        world.clock_ahead = LATER
        assert await world.reconcile.run() == []
