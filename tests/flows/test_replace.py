"""Another machine for an agent: same name, same address; or all is as it was before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.flows.boxes import boxes, made, nothing_left, whole
from tests.flows.crashing import through_crashes
from tests.flows.small_world import PlainSteps, SmallWorld, mail, small_world
from tests.running import until
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.turns import TurnOutcome
from tinyfat.drivers.machines.memory import Lies
from tinyfat.flows import addressing, first_words, provision, replace, server_making, watch
from tinyfat.flows.orders import machine_id_of
from tinyfat.store.database import Database

STEPS = 12  # of the flow: begin, eight parts, two endings; and none


async def ada(world: SmallWorld) -> Agent:
    return await made(world, await world.new_agent("ada", "cloud"))


async def replaced(world: SmallWorld, agent: Agent, generation: int = 2) -> Agent:
    assert await world.servers.begin_replacing(agent.id, generation)
    async with boxes(world, RuntimeState.READY):
        await world.replace.run(PlainSteps(), f"{agent.id}:{generation}")
    return await world.agents.get(agent.id)


async def as_before(world: SmallWorld, agent: Agent, machine_id: str, *words: str) -> None:
    now = await world.agents.get(agent.id)
    assert now.state is AgentState.READY and not now.moving
    assert all(word in now.reason for word in ("was not replaced", *words)), now.reason
    await whole(world, now)
    [machine] = await world.records.all_of_agent(agent.id)
    assert machine.id == machine_id and machine.current and machine.wanted


async def test_another_machine_with_the_same_name_and_address(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        [old] = await world.records.all_of_agent(agent.id)
        names = dict(world.dns.records)
        now = await replaced(world, agent)
        await whole(world, now)
        [new] = await world.records.all_of_agent(agent.id)
        assert new.id == machine_id_of(agent.id, 2) != old.id
        assert (new.ipv4, new.hostname, new.location) == (old.ipv4, old.hostname, old.location)
        assert world.dns.records == names and not now.moving and now.reason == ""
        assert len(world.move_files.removed) == 1
        steps = [step for step in await world.agents.steps(agent.id) if step.flow == "replace"]
        assert len(steps) == 10 and all(step.ended_at and not step.detail for step in steps)
        again = await replaced(world, now, 3)
        await whole(world, again)
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        await nothing_left(world, agent)


async def test_one_replacement_at_a_time(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        asked = await asyncio.gather(*(world.servers.begin_replacing(agent.id, 2) for _ in range(5)))
        assert sum(asked) == 1


async def test_mail_that_comes_meanwhile_waits_and_is_answered_by_the_new_machine(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        [old] = await world.records.all_of_agent(agent.id)
        await world.servers.hold_turns(agent.id)
        before = len(world.box.asked)
        await world.send(agent, mail("Are you there?"))

        async def offered() -> bool:
            return bool(await world.rows("select 1 from turns where state = 'running' and message_row is not null"))

        await until(offered, 5.0, "the turn is offered")
        assert await world.turns.open_for(old.id) == [] and len(world.box.asked) == before
        await replaced(world, agent)

        async def answered() -> bool:
            rows = await world.rows("select outcome from turns where message_row is not null")
            return rows == [("answered",)]

        await until(answered, 5.0, "the turn is answered")
        await world.flows.all_ended()
        assert [mail.recipient for mail in world.out.sent] == ["owner@example.org"] * 2  # the welcome, the answer


async def test_a_deadline_does_not_run_while_a_turn_waits(database: Database) -> None:
    async with small_world(database, deadline_seconds=0.5) as world:
        agent = await ada(world)
        await world.servers.hold_turns(agent.id)
        await world.send(agent, mail("Are you there?"))

        async def offered() -> bool:
            return bool(await world.rows("select 1 from turns where state = 'running' and message_row is not null"))

        await until(offered, 5.0, "the turn is offered")
        await world.rows("update agents set moving_at = now() - interval '10 s' returning 1")
        await world.rows(
            "update turns set offered_at = now() - interval '10 s', deadline_at = now() - interval '9.5 s' "
            "where message_row is not null returning 1"
        )
        await world.servers.go_on(agent.id)
        await world.flows.all_ended()
        assert await world.rows("select outcome from turns where message_row is not null") == [("answered",)]


@pytest.mark.parametrize(
    "lies",
    [
        {"create_unheard": 1},
        {"looks_late": 3},
        {"stop_nothing": 3},
        {"delete_nothing": 3},
        {"attach_nothing": 3},
        {"release_nothing": 3},
        {"address_unheard": 1},
        {"unreachable": 5},
        {"unreachable_share": 0.3},
    ],
    ids=str,
)
async def test_each_lie_alone(database: Database, lies: dict[str, Any]) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.cloud.lies = Lies(**lies)
        now = await replaced(world, agent)
        world.cloud.lies = Lies()
        assert now.reason == ""
        await whole(world, now)


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("done", [False, True])
async def test_it_goes_on_after_a_crash_at_any_step(database: Database, step: int, done: bool) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        assert await world.servers.begin_replacing(agent.id, 2)
        async with boxes(world, RuntimeState.READY):
            await through_crashes(world.replace.run, f"{agent.id}:2", [(step, done)])
        now = await world.agents.get(agent.id)
        assert now.reason == "" and not now.moving
        await whole(world, now)
        [new] = await world.records.all_of_agent(agent.id)
        assert new.id == machine_id_of(agent.id, 2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (watch, "GONE_SECONDS_MAX"),
        (addressing, "GONE_SECONDS_MAX"),
        (server_making, "ORDER_SECONDS_MAX"),
        (provision, "ENROLLED_SECONDS_MAX"),
        (replace, "ENROLLED_SECONDS_MAX"),
        (replace, "HAND_OVER_SECONDS_MAX"),
        (replace, "TAKE_SECONDS_MAX"),
        (addressing, "ATTACH_SECONDS_MAX"),
        (first_words, "PROBE_SECONDS_MAX"),
    ):
        monkeypatch.setattr(module, name, 0.4)


async def test_no_room_for_another_machine(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.cloud.lies = Lies(refuse_starts=1)
        await replaced(world, agent)
        await as_before(world, agent, machine_id_of(agent.id), "no room left")


async def test_a_box_that_hands_nothing_over(database: Database, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with small_world(database) as world:
        agent = await ada(world)

        async def silent(*_: object) -> None:
            pass

        monkeypatch.setattr("tests.flows.boxes._move", silent)
        await replaced(world, agent)
        await as_before(world, agent, machine_id_of(agent.id), "no word of its box")
        move = await world.moves.latest_of(machine_id_of(agent.id))
        assert move is not None and move.phase == "failed"


@pytest.mark.parametrize(("detail", "words"), [("no space left on device", "no space left"), ("", "no reason given")])
async def test_a_state_that_cannot_be_taken_in(
    database: Database, short: None, monkeypatch: pytest.MonkeyPatch, detail: str, words: str
) -> None:
    for patience in ("ENROLLED_SECONDS_MAX", "HAND_OVER_SECONDS_MAX", "TAKE_SECONDS_MAX"):
        monkeypatch.setattr(replace, patience, 30.0)  # its box answers, on a busy host later
    async with small_world(database) as world:
        agent = await ada(world)

        async def refuses(world: SmallWorld, machine_id: str) -> None:
            if move := await world.moves.latest_of(machine_id):
                await (
                    world.moves.kept(move.id, "0" * 64, 1)
                    if move.phase == "asked"
                    else world.moves.failed(move.id, detail)
                )

        monkeypatch.setattr("tests.flows.boxes._move", refuses)
        await replaced(world, agent)
        await as_before(world, agent, machine_id_of(agent.id), "could not be taken along", words)
        assert "--without-state" not in (await world.agents.get(agent.id)).reason


async def test_an_address_that_does_not_move(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.cloud.lies = Lies(attach_nothing=100_000)
        await replaced(world, agent)
        world.cloud.lies = Lies()
        await as_before(world, agent, machine_id_of(agent.id), "does not move")


async def test_a_new_machine_that_does_not_answer_gives_the_address_back(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.box.outcome = TurnOutcome.FAILED
        await replaced(world, agent)
        world.box.outcome = TurnOutcome.ANSWERED
        await as_before(world, agent, machine_id_of(agent.id), "could not answer")
        await whole(world, await replaced(world, agent, 3))


async def test_an_old_machine_that_does_not_go_is_told_and_goes_later(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.cloud.lies = Lies(delete_nothing=100_000)
        now = await replaced(world, agent)
        assert now.state is AgentState.READY and not now.moving
        ended = (await world.agents.steps(agent.id))[-1]
        assert ended.name == "the old machine ended" and "still there" in ended.detail
        assert [alarm.kind for alarm in await world.reconcile.run()] == ["stuck"]
        world.cloud.lies = Lies()
        for _ in range(3):
            alarms = await world.reconcile.run()
        assert alarms == []
        await whole(world, now)


async def test_destroyed_while_it_is_replaced(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        assert await world.servers.begin_replacing(agent.id, 2)
        replacing = asyncio.create_task(world.replace.run(PlainSteps(), f"{agent.id}:2"))

        async def two_run() -> bool:
            return len(world.cloud.running()) == 2

        await until(two_run, 5.0, "both run")
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await asyncio.gather(replacing, world.retire.run(PlainSteps(), agent.id))
        await world.retire.run(PlainSteps(), agent.id)
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        await nothing_left(world, agent)
