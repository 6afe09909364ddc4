"""An agent on a server of its own: it comes to be, or nothing of it is left, whatever the provider says meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from email import message_from_bytes
from typing import Any

import pytest

from tests.flows.boxes import boxes, made, nothing_left, whole
from tests.flows.crashing import through_crashes
from tests.flows.small_world import DOMAIN, OWNER, PlainSteps, SmallWorld, small_world
from tests.running import until
from tinyfat.domain.agents import Agent, AgentState, Place
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.drivers.dns.memory import DnsLies
from tinyfat.drivers.machines.memory import Lies
from tinyfat.flows import addressing, provision, server_making, watch
from tinyfat.flows.orders import machine_id_of
from tinyfat.store.database import Database

Short = Callable[[], None]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Short:
    """What is to be waited for in vain is waited for a moment only."""

    def set_short() -> None:
        for module, name in (
            (watch, "GONE_SECONDS_MAX"),
            (addressing, "GONE_SECONDS_MAX"),
            (addressing, "ADDRESS_SECONDS_MAX"),
            (addressing, "NAME_SECONDS_MAX"),
            (server_making, "ORDER_SECONDS_MAX"),
            (provision, "ENROLLED_SECONDS_MAX"),
        ):
            monkeypatch.setattr(module, name, 0.4)

    return set_short


def welcomes(world: SmallWorld) -> list[str]:
    mails = [message_from_bytes(mail.raw) for mail in world.out.sent]
    return [str(mail["Subject"]) for mail in mails]


async def test_a_server_from_order_to_the_owners_welcome(database: Database) -> None:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await whole(world, agent)
        assert welcomes(world) == ["ada is ready"]
        text = str(message_from_bytes(world.out.sent[0].raw).get_payload(decode=True), "utf-8")
        assert f"ssh owner@ada.{DOMAIN}" in text and "SHA256:" in text and world.out.sent[0].recipient == OWNER
        steps = await world.agents.steps(agent.id)
        assert [step.name for step in steps] == [
            "look in the warm pool",
            "order a machine",
            "name in the DNS",
            "first word of the box",
            "runtime ready",
            "a real question answered",
            "welcome mail",
        ]
        assert all(step.ended_at and not step.detail for step in steps)
        [machine] = await world.records.all_of_agent(agent.id)
        assert machine.monthly_nanodollars > 0 and await world.servers.price_of(agent.id) == machine.monthly_nanodollars


async def test_what_a_server_is_ordered_with(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud", Place("fat", "nbg1", "openclaw-1", "cx33"))
        await world.keys.add(agent.id, "SHA256:x", "ssh-ed25519 AAAA", "laptop")
        await made(world, agent)
        machine_id = machine_id_of(agent.id)
        order = world.cloud._machines[machine_id].order
        assert order.server is not None and order.agent_name == "ada"
        server = order.server
        assert (server.hostname, server.address, server.image) == (f"ada.{DOMAIN}", agent.id, "openclaw-1")
        assert (server.size, server.locations, server.owner_keys) == ("cx33", ("nbg1",), ("ssh-ed25519 AAAA",))
        assert server.enrolment_token != order.link_token
        machine = await world.records.get(machine_id)
        assert machine is not None and world.orders.for_server(machine, "ada", server.owner_keys) == order


@pytest.mark.parametrize(
    "lies",
    [
        {"create_unheard": 1},
        {"start_nothing": 1},
        {"looks_late": 3},
        {"hangs": 3},
        {"unreachable": 4},
        {"unreachable_share": 0.3},
        {"address_unheard": 1},
    ],
    ids=str,
)
async def test_each_lie_alone_and_it_is_made_all_the_same(database: Database, lies: dict[str, Any]) -> None:
    async with small_world(database) as world:
        world.cloud.lies = Lies(**lies)
        agent = await made(world, await world.new_agent("ada", "cloud"))
        world.cloud.lies = Lies()
        await whole(world, agent)
        assert world.cloud.began == [machine_id_of(agent.id)]


@pytest.mark.parametrize("lies", [{"put_nothing": 2}, {"unreachable": 3}, {"put_unanswered": 2}], ids=str)
async def test_each_lie_of_the_dns_alone(database: Database, lies: dict[str, int]) -> None:
    async with small_world(database) as world:
        world.dns.lies = DnsLies(**lies)
        await whole(world, await made(world, await world.new_agent("ada", "cloud")))


async def test_one_location_full_the_next_is_taken(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with small_world(database) as world:
        from dataclasses import replace

        world.orders._terms = replace(world.orders.terms, locations=("fsn1", "nbg1", "hel1"))
        world.cloud.lies.no_room_in = ("fsn1", "nbg1")
        agent = await made(world, await world.new_agent("ada", "cloud"))
        await whole(world, agent)
        [machine] = await world.records.all_of_agent(agent.id)
        assert machine.location == "hel1"


@pytest.mark.parametrize(
    ("lies", "words"),
    [
        ({"refuse_starts": 5}, "no room left"),
        ({"start_nothing": 100_000}, "does not list"),
        ({"hangs": 8}, "does not list"),
    ],
    ids=str,
)
async def test_a_failure_for_good_leaves_nothing(
    database: Database, short: Short, lies: dict[str, Any], words: str
) -> None:
    short()
    async with small_world(database) as world:
        world.cloud.lies = Lies(**lies)
        agent = await made(world, await world.new_agent("ada", "cloud"))
        assert agent.state is AgentState.FAILED and words in agent.reason, agent.reason
        await nothing_left(world, agent)
        assert welcomes(world) == []


@pytest.mark.parametrize("state", [None, RuntimeState.CRASH_LOOP])
async def test_a_box_that_fails_leaves_nothing(database: Database, short: Short, state: RuntimeState | None) -> None:
    short()
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud")
        world.cloud.lies = Lies(stop_nothing=2, delete_nothing=2, release_nothing=2)
        world.dns.lies = DnsLies(remove_nothing=2)
        async with boxes(world, *([state] if state else [])):
            await world.provision.run(PlainSteps(), agent.id) if state else await _mute(world, agent)
        assert (await world.agents.get(agent.id)).state is AgentState.FAILED
        world.cloud.lies = Lies()
        await nothing_left(world, agent)


async def _mute(world: SmallWorld, agent: Agent) -> None:
    await world.provision.run(PlainSteps(), agent.id)


async def test_what_cannot_be_undone_is_said_and_destroy_goes_on_with_it(database: Database, short: Short) -> None:
    short()
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud")
        world.cloud.lies = Lies(delete_nothing=100_000)
        async with boxes(world, RuntimeState.CRASH_LOOP):
            await world.provision.run(PlainSteps(), agent.id)
        failed = await world.agents.get(agent.id)
        assert failed.state is AgentState.FAILED and "still there" in failed.reason
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        stuck = await world.agents.get(agent.id)
        assert stuck.state is AgentState.DESTROYING and "still there" in stuck.reason
        world.cloud.lies = Lies()
        await world.retire.run(PlainSteps(), agent.id)
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        await nothing_left(world, agent)


@pytest.mark.parametrize("step", range(9))
@pytest.mark.parametrize("done", [False, True])
async def test_it_goes_on_after_a_crash_at_any_step(database: Database, step: int, done: bool) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud")
        async with boxes(world, RuntimeState.READY):
            await through_crashes(world.provision.run, agent.id, [(step, done)])
        await whole(world, await world.agents.get(agent.id))
        assert welcomes(world) == ["ada is ready"] and len(world.cloud.began) == 1
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await through_crashes(world.retire.run, agent.id, [(step, done)])
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        await nothing_left(world, agent)


@pytest.mark.parametrize(
    ("lies", "names"),
    [
        ({"stop_nothing": 3}, {}),
        ({"delete_nothing": 3}, {}),
        ({"release_nothing": 3}, {}),
        ({"unreachable": 5}, {}),
        ({"unreachable_share": 0.3}, {}),
        ({"hangs": 3}, {}),
        ({}, {"remove_nothing": 3}),
        ({}, {"unreachable": 3}),
    ],
    ids=str,
)
async def test_each_lie_alone_and_it_is_gone_all_the_same(
    database: Database, lies: dict[str, Any], names: dict[str, int]
) -> None:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        world.cloud.lies, world.dns.lies = Lies(**lies), DnsLies(**names)
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        world.cloud.lies = Lies()
        await nothing_left(world, agent)
        steps = [step.name for step in await world.agents.steps(agent.id) if step.flow == "retire"]
        assert steps == ["end the machine", "name out of the DNS", "let the address go"]


async def test_what_belongs_to_others_stays(database: Database) -> None:
    async with small_world(database) as world:
        other = RecordSet(f"other.{DOMAIN}", RecordType.A, ("203.0.113.9",))
        await world.dns.put(other)
        bob = await made(world, await world.new_agent("bob", "cloud"))
        ada = await made(world, await world.new_agent("ada", "cloud"))
        await world.agents.become(ada.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), ada.id)
        assert set(world.dns.records) == {
            (f"other.{DOMAIN}", RecordType.A),
            (f"bob.{DOMAIN}", RecordType.A),
            (f"bob.{DOMAIN}", RecordType.AAAA),
        }
        assert len(world.cloud.running()) == 1 and list(world.cloud.addresses) == [bob.id]


async def test_destroyed_while_its_server_is_ordered_nothing_comes_back(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent("ada", "cloud")
        making = asyncio.create_task(world.provision.run(PlainSteps(), agent.id))

        async def runs() -> bool:
            return bool(world.cloud.running())

        await until(runs, 5.0, "the server runs")
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await asyncio.gather(making, world.retire.run(PlainSteps(), agent.id))
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        await nothing_left(world, agent)


async def test_the_name_of_an_earlier_agent_that_is_not_gone_is_not_taken_over(
    database: Database, short: Short
) -> None:
    short()
    async with small_world(database) as world:
        earlier = await world.new_agent("ada", "cloud")
        await world.names.write_down(f"ada.{DOMAIN}", earlier.id)
        await world.agents.become(earlier.id, AgentState.DESTROYED)
        agent = await made(world, await world.new_agent("ada", "cloud"))
        assert agent.state is AgentState.FAILED and "tinyfat fleet" in agent.reason
        assert await world.cloud.billed() == []
        assert str(uuid.UUID(agent.id)) == agent.id
