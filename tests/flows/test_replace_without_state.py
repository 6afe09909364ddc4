"""Another machine where the old one is dead: same name, same address, a memory that starts anew; its owner is told."""

from __future__ import annotations

import pytest

from tests.flows import test_replace
from tests.flows.boxes import boxes, nothing_left, whole
from tests.flows.crashing import through_crashes
from tests.flows.small_world import PlainSteps, SmallWorld, mail, small_world
from tests.flows.test_replace import ada, as_before, short
from tests.running import until
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import Machine
from tinyfat.domain.mail.message import read_mail
from tinyfat.domain.turns import TurnOutcome, TurnResult
from tinyfat.drivers.machines.memory import Lies
from tinyfat.flows import replace
from tinyfat.flows.orders import machine_id_of
from tinyfat.flows.replace import Replacement, replacement_of
from tinyfat.store.database import Database

__all__ = ["short"]

STEPS = 12  # of the flow: begin, seven parts, three endings; and none
NEXT_STEP = "tinyfat agent replace ada --without-state"


async def dead(world: SmallWorld, agent: Agent, gone: bool = True) -> Machine:
    """Its machine, of which nobody hears any more. `gone`: at the provider too."""
    [machine] = await world.records.all_of_agent(agent.id)
    if gone:
        await world.cloud.delete(machine.id)
    else:
        world.cloud.crash(machine.id)
    await world.servers._set("seen_at = now() - interval '1 hour'", machine.id)
    return machine


async def replaced(world: SmallWorld, agent: Agent, generation: int = 2) -> Agent:
    assert await world.servers.begin_replacing(agent.id, generation)
    async with boxes(world, RuntimeState.READY):
        await world.replace.run(PlainSteps(), Replacement(agent.id, generation, without_state=True).subject)
    return await world.agents.get(agent.id)


async def received_and_not_answered(world: SmallWorld, agent: Agent, machine: Machine, text: str) -> str:
    """A turn that the machine's box holds."""
    world.box.silent = True
    await world.send(agent, mail(text))
    turn_id = ""

    async def offered() -> bool:
        nonlocal turn_id
        rows = await world.rows("select id::text from turns where state = 'running' and message_row is not null")
        turn_id = rows[0][0] if rows else ""
        return bool(rows)

    await until(offered, 5.0, "the turn is offered")
    await world.turns.received(turn_id, machine.id)
    world.box.silent = False
    return turn_id


def to_owner(world: SmallWorld) -> list[tuple[str, str]]:
    """Subject and text of what was sent, the welcome apart."""
    read = [read_mail(sent.raw) for sent in world.out.sent]
    return [(one.subject, one.text) for one in read if one.subject != "ada is ready"]


def test_a_subject_says_what_it_is_about() -> None:
    for one in (Replacement("a", 2), Replacement("a", 17, True)):
        assert replacement_of(one.subject) == one
    assert Replacement("a", 2).subject == "a:2"


@pytest.mark.parametrize("gone", [True, False])
async def test_same_name_and_address_and_the_owner_is_told(database: Database, gone: bool) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        names = dict(world.dns.records)
        old = await dead(world, agent, gone)
        now = await replaced(world, agent)
        assert now.reason == "" and not now.moving
        await whole(world, now)
        [new] = await world.records.all_of_agent(agent.id)
        assert new.id == machine_id_of(agent.id, 2) != old.id
        assert (new.ipv4, new.hostname, world.dns.records) == (old.ipv4, old.hostname, names)
        [(subject, text)] = to_owner(world)
        assert subject == "ada has another server, and its memory starts anew"
        assert "ada@tinyfat.localhost" in text and "say again" in text
        assert await world.moves.latest_of(new.id) is None  # nothing was asked of the old box
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        await nothing_left(world, agent)


async def test_what_the_dead_box_held_is_answered_by_the_new_one_once(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        old = await dead(world, agent)
        turn_id = await received_and_not_answered(world, agent, old, "Are you there?")
        await replaced(world, agent)
        await world.flows.all_ended()
        assert [turn.id for turn in world.box.asked].count(turn_id) == 1
        late = TurnResult(TurnOutcome.ANSWERED, text="I am back.")
        await world.turns.answered(turn_id, old.id, late)
        assert await world.rows("select answer like '%%Are you there?%%' from turns where id = %s", turn_id) == [
            (True,)
        ]
        assert [subject for subject, _ in to_owner(world)].count("Re: Boats") == 1


async def test_an_old_box_that_comes_back_meanwhile_answers_and_the_new_one_is_not_asked(database: Database) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        old = await dead(world, agent, gone=False)
        turn_id = await received_and_not_answered(world, agent, old, "Are you there?")
        await world.servers.hold_turns(agent.id)
        await world.turns.answered(turn_id, old.id, TurnResult(TurnOutcome.ANSWERED, text="I am back."))
        await replaced(world, agent)
        await world.flows.all_ended()
        assert turn_id not in [turn.id for turn in world.box.asked]
        assert sorted(subject for subject, _ in to_owner(world))[0] == "Re: Boats" and len(to_owner(world)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("done", [False, True])
async def test_it_goes_on_after_a_crash_at_any_step(database: Database, step: int, done: bool) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        await dead(world, agent)
        assert await world.servers.begin_replacing(agent.id, 2)
        async with boxes(world, RuntimeState.READY):
            await through_crashes(world.replace.run, Replacement(agent.id, 2, True).subject, [(step, done)])
        now = await world.agents.get(agent.id)
        assert now.reason == "" and not now.moving
        await whole(world, now)
        assert len(to_owner(world)) == 1


async def test_undone_where_the_old_one_is_not_dead_after_all(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        world.box.outcome = TurnOutcome.FAILED
        await replaced(world, agent)
        world.box.outcome = TurnOutcome.ANSWERED
        await as_before(world, agent, machine_id_of(agent.id), "could not answer")
        assert to_owner(world) == []


async def test_undone_where_the_old_one_is_gone_and_then_done(database: Database, short: None) -> None:
    async with small_world(database) as world:
        agent = await ada(world)
        old = await dead(world, agent)
        world.cloud.lies = Lies(refuse_starts=1)
        now = await replaced(world, agent)
        assert "no room left" in now.reason and not now.moving and "And:" not in now.reason
        assert world.cloud.running() == [] and list(world.cloud.addresses) == [agent.address_id]
        now = await replaced(world, agent, 3)
        await world.agents.become(agent.id, AgentState.READY, "", AgentState.READY)  # as the API does when asked
        await whole(world, await world.agents.get(agent.id))
        [new] = await world.records.all_of_agent(agent.id)
        assert new.ipv4 == old.ipv4


async def test_without_that_word_nothing_is_ordered_and_the_next_step_is_named(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "SILENT_SECONDS_MAX", 0.2)
    async with small_world(database) as world:
        agent = await ada(world)
        await dead(world, agent)
        began = len(world.cloud.began)
        now = await test_replace.replaced(world, agent)
        assert NEXT_STEP in now.reason and "was not replaced" in now.reason and not now.moving
        assert len(world.cloud.began) == began and len(await world.records.all_of_agent(agent.id)) == 1


async def test_a_box_that_falls_silent_while_it_hands_over_is_not_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace, "SILENT_SECONDS_MAX", 0.5)
    async with small_world(database) as world:
        agent = await ada(world)
        [old] = await world.records.all_of_agent(agent.id)

        async def dies(world: SmallWorld, machine_id: str) -> None:
            move = await world.moves.latest_of(machine_id)
            if move is not None and machine_id == old.id:
                await dead(world, agent)

        monkeypatch.setattr("tests.flows.boxes._move", dies)
        now = await test_replace.replaced(world, agent)
        assert NEXT_STEP in now.reason and not now.moving
        monkeypatch.undo()
        assert (await replaced(world, agent, 3)).state is AgentState.READY
        [new] = await world.records.all_of_agent(agent.id)
        assert new.id == machine_id_of(agent.id, 3) and world.cloud.running() == [new.id]
