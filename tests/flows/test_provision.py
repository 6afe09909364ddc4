"""An agent comes to be, or it does not, and then nothing of it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.flows.small_world import PlainSteps, SmallWorld, mail, small_world
from tests.running import until
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.turns import TurnOutcome
from tinyfat.flows import first_words, provision, watch
from tinyfat.ports.mail import RecipientAway
from tinyfat.store.database import Database
from tinyfat.store.turns import MAKING_SECONDS_MAX

Short = Callable[..., None]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Short:
    """`short("HEARTBEAT_SECONDS_MAX")`: what is to be waited for in vain is waited for a moment only."""

    def set_short(*names: str) -> None:
        for name in names:
            for module in (watch, provision, first_words):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, 0.3)

    return set_short


async def made(world: SmallWorld, agent: Agent) -> Agent:
    await world.provision.run(PlainSteps(), agent.id)
    return await world.agents.get(agent.id)


async def call_home(world: SmallWorld, agent: Agent, *states: RuntimeState) -> None:
    """What the box says once its machine runs."""

    async def runs() -> bool:
        return bool(world.machines.running())

    await until(runs, 5.0, "the machine runs")
    for state in states:
        await world.box_says(agent, state, "its last words")


async def failed_for(world: SmallWorld, agent: Agent, *words: str) -> None:
    now = await world.agents.get(agent.id)
    assert now.state is AgentState.FAILED
    assert all(word in now.reason for word in words), now.reason
    assert world.machines.running() == []
    assert await world.records.of_agent(agent.id) is None


async def test_ready_means_it_answered(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()
        ready, _ = await asyncio.gather(
            made(world, agent), call_home(world, agent, RuntimeState.STARTING, RuntimeState.READY)
        )
        assert ready.state is AgentState.READY
        assert [turn.session.partition(":")[0] for turn in world.box.asked] == ["probe"]
        steps = await world.agents.steps(agent.id)
        assert len(steps) == 4 and all(step.ended_at and not step.detail for step in steps)
        assert world.machines.began == [world.orders.of(agent).id]


async def test_a_provider_that_refuses_is_said(database: Database) -> None:
    async with small_world(database) as world:
        world.machines.lies.refuse_starts = 1
        agent = await world.new_agent()
        await made(world, agent)
        await failed_for(world, agent, "no room left")


async def test_a_provider_that_does_not_answer_for_a_while_is_asked_again(database: Database) -> None:
    async with small_world(database) as world:
        world.machines.lies.unreachable = 3
        agent = await world.new_agent()
        ready, _ = await asyncio.gather(made(world, agent), call_home(world, agent, RuntimeState.READY))
        assert ready.state is AgentState.READY


async def test_a_provider_that_never_answers_is_said(database: Database, short: Short) -> None:
    short("ORDER_SECONDS_MAX", "GONE_SECONDS_MAX")
    async with small_world(database) as world:
        world.machines.lies.unreachable = 100_000
        agent = await world.new_agent()
        await made(world, agent)
        now = await world.agents.get(agent.id)
        assert now.state is AgentState.FAILED and "does not answer" in now.reason


async def test_an_order_that_came_to_nothing_is_noticed(database: Database, short: Short) -> None:
    short("HEARTBEAT_SECONDS_MAX")
    async with small_world(database) as world:
        world.machines.lies.start_nothing = 1
        agent = await world.new_agent()
        await made(world, agent)
        await failed_for(world, agent, "did not call home", "tinyfat doctor")


async def test_a_box_that_never_calls_is_undone(database: Database, short: Short) -> None:
    short("HEARTBEAT_SECONDS_MAX")
    async with small_world(database) as world:
        agent = await world.new_agent()
        await made(world, agent)
        await failed_for(world, agent, "did not call home")
        assert world.machines.began and world.machines.ended


@pytest.mark.parametrize("state", [RuntimeState.CRASH_LOOP, RuntimeState.INSTALLING])
async def test_a_runtime_that_does_not_come_up_is_undone_with_its_words(
    database: Database, short: Short, state: RuntimeState
) -> None:
    if state is RuntimeState.INSTALLING:
        short("READY_SECONDS_MAX")
    async with small_world(database) as world:
        agent = await world.new_agent()
        await asyncio.gather(made(world, agent), call_home(world, agent, state))
        await failed_for(world, agent, "did not come up", "its last words")


async def test_one_that_does_not_answer_the_first_question_is_undone(database: Database, short: Short) -> None:
    short("PROBE_SECONDS_MAX")
    async with small_world(database) as world:
        world.box.silent = True
        agent = await world.new_agent()
        await asyncio.gather(made(world, agent), call_home(world, agent, RuntimeState.READY))
        await failed_for(world, agent, "did not answer a first question")


async def test_one_that_answers_with_a_failure_is_undone(database: Database) -> None:
    async with small_world(database) as world:
        world.box.outcome = TurnOutcome.FAILED
        agent = await world.new_agent()
        await asyncio.gather(made(world, agent), call_home(world, agent, RuntimeState.READY))
        await failed_for(world, agent, "the model refused")


async def test_what_cannot_be_undone_is_said_too(database: Database, short: Short) -> None:
    short("HEARTBEAT_SECONDS_MAX", "GONE_SECONDS_MAX")
    async with small_world(database) as world:
        world.machines.lies.stop_nothing = 100_000
        agent = await world.new_agent()
        await made(world, agent)
        now = await world.agents.get(agent.id)
        assert now.state is AgentState.FAILED
        assert "did not call home" in now.reason and "runs on" in now.reason
        machine = await world.records.of_agent(agent.id)
        assert machine is not None and not machine.wanted  # not forgotten: `agent destroy` can try again


async def test_an_agent_destroyed_while_it_is_made_does_not_come_back(database: Database, short: Short) -> None:
    short("HEARTBEAT_SECONDS_MAX")
    async with small_world(database) as world:
        agent = await world.new_agent("dan")
        making = asyncio.create_task(made(world, agent))
        await call_home(world, agent)
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        await world.new_agent("dan")  # its name is free
        await making
        assert (await world.agents.get(agent.id)).state is AgentState.DESTROYED
        assert world.machines.running() == []


async def test_an_agent_destroyed_before_its_machine_was_ordered_gets_none(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.retire.run(PlainSteps(), agent.id)
        assert (await made(world, agent)).state is AgentState.DESTROYED
        assert world.machines.running() == [] and await world.records.of_agent(agent.id) is None


async def test_done_again_after_a_crash_it_makes_one_machine(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()
        for _ in range(2):
            await asyncio.gather(made(world, agent), call_home(world, agent, RuntimeState.READY))
        assert world.machines.began == [world.orders.of(agent).id]
        assert len(world.box.asked) == 1


async def made_anew(world: SmallWorld, agent: Agent) -> Agent:
    await world.agents.steps_again(agent.id, provision.FLOW)
    await world.agents.become(agent.id, AgentState.CREATING, "", AgentState.FAILED)
    return await world.agents.get(agent.id)


async def test_what_failed_is_made_anew_by_another_flow_and_asked_anew(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()
        first = provision.flow_id(agent)
        await asyncio.gather(made(world, agent), call_home(world, agent, RuntimeState.CRASH_LOOP))
        await failed_for(world, agent, "did not come up")
        again = await made_anew(world, agent)
        assert provision.flow_id(again) != first and again.reason == ""
        ready, _ = await asyncio.gather(
            made(world, again), call_home(world, agent, RuntimeState.STARTING, RuntimeState.READY)
        )
        assert ready.state is AgentState.READY
        assert len(await world.agents.steps(agent.id)) == 4


async def test_a_machine_that_did_not_end_is_ended_before_its_agent_is_made_anew(
    database: Database, short: Short
) -> None:
    async with small_world(database) as world:
        short("GONE_SECONDS_MAX")
        world.machines.lies.stop_nothing = 10_000
        agent = await world.new_agent()
        await asyncio.gather(made(world, agent), call_home(world, agent, RuntimeState.CRASH_LOOP))
        assert "runs on" in (await world.agents.get(agent.id)).reason
        world.machines.lies.stop_nothing = 0
        again = await made_anew(world, agent)

        async def anew() -> bool:
            machine = await world.records.of_agent(agent.id)
            return machine is not None and machine.wanted and bool(world.machines.running())

        async def home() -> None:
            await until(anew, 5.0, "another machine runs")
            for state in (RuntimeState.STARTING, RuntimeState.READY):
                await world.box_says(agent, state)

        ready, _ = await asyncio.gather(made(world, again), home())
        assert ready.state is AgentState.READY


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("openclaw 1 could not be installed: the disk is full; make room; tried again in 10 s\nnpm error code ENOSPC",
         "did not come up: openclaw 1 could not be installed: the disk is full; make room. `tinyfat"),
        ("it ended with 1; started again in 0.5 s", "did not come up: it ended with 1. `tinyfat"),
        ("it ended with 1; it keeps dying, so it is tried only every 300 s", "did not come up: it ended with 1. `"),
        ("", "did not come up: no reason given."),
    ],
)  # fmt: skip
async def test_a_reason_is_one_line_and_says_nothing_untrue_of_a_machine_that_is_ended(
    database: Database, said: str, shown: str
) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()

        async def home() -> None:
            async def runs() -> bool:
                return bool(world.machines.running())

            await until(runs, 5.0, "the machine runs")
            await world.box_says(agent, RuntimeState.CRASH_LOOP, said)

        failed, _ = await asyncio.gather(made(world, agent), home())
        assert shown in failed.reason and "\n" not in failed.reason, failed.reason
        assert "tinyfat agent retry" in failed.reason


async def test_mail_to_an_agent_that_is_made_waits_for_that_and_to_one_that_failed_is_deferred(
    database: Database,
) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()
        raw = mail()
        await world.send(agent, raw)
        ((turn_id,),) = await world.rows("select id::text from turns where message_row is not null")
        await world.turns.offer(turn_id, 60.0)
        ((seconds,),) = await world.rows("select extract(epoch from deadline_at - offered_at) from turns")
        assert float(seconds) > MAKING_SECONDS_MAX
        await world.agents.become(agent.id, AgentState.FAILED, "no room left")
        with pytest.raises(RecipientAway, match="could not be made yet"):
            await world.send(agent, raw)
