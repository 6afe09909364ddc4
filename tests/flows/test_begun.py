"""Killed between an agent's row and its flow, or in its end: another process goes on, and no key stays behind."""

from __future__ import annotations

import uuid

import pytest

from tests.flows.crashing import Crashed, RememberedSteps, through_crashes
from tests.flows.small_world import SmallWorld, small_world
from tinyfat.domain.agents import AgentState
from tinyfat.domain.byok import vendor_key
from tinyfat.domain.relay_keys import key_from
from tinyfat.drivers.secrets.envelope import EnvelopeSecrets, new_master_keys
from tinyfat.flows import provision, retire
from tinyfat.flows.begun import END_AGAIN_SECONDS, UNBEGUN_SECONDS, Begun
from tinyfat.ports.ledger import NotFound
from tinyfat.store.byok import ByokStore
from tinyfat.store.database import Database
from tinyfat.store.ended_keys import EndedKeys
from tinyfat.store.keys import KeyStore

OPENAI = vendor_key("openai", "sk-owner-PLANTED-000000000000")


class Starts:
    """Implements engine FlowStatus: what was begun, and of one id once."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[str, str]] = {}

    async def start(self, flow: str, flow_id: str, subject: str) -> None:
        self.begun.setdefault(flow_id, (flow, subject))

    async def broken(self, flow_id: str) -> bool:
        return False


async def with_keys(world: SmallWorld) -> tuple[str, ByokStore, KeyStore]:
    agent = await world.ready_agent()
    byok = ByokStore(world.database, EnvelopeSecrets(new_master_keys("")))
    await byok.put(agent.id, "openai", OPENAI)
    keys = KeyStore(world.database)
    await keys.add(agent.id, key_from(uuid.UUID(agent.id).bytes * 2))
    return agent.id, byok, keys


async def older(world: SmallWorld, agent_id: str, seconds: float) -> None:
    """That long has passed since its state and its steps were written."""
    for statement in (
        "update agents set (state_since, created_at) = (select state_since - age, created_at - age from "
        "make_interval(secs => %s) age) where id = %s",
        "update agent_steps set started_at = started_at - make_interval(secs => %s) where agent_id = %s",
        "update agent_steps set ended_at = ended_at - make_interval(secs => %s) where agent_id = %s",
    ):
        async with world.database.connection() as connection:
            await connection.execute(statement.encode(), (seconds, agent_id))


async def no_keys(agent_id: str, byok: ByokStore, keys: KeyStore) -> None:
    assert await byok.list(agent_id) == []
    assert all(key.revoked_at is not None for key in await keys.list(agent_id))


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("done", [False, True])
async def test_killed_anywhere_in_its_end_no_key_stays(database: Database, step: int, done: bool) -> None:
    async with small_world(database) as world:
        agent_id, byok, keys = await with_keys(world)
        await world.agents.become(agent_id, AgentState.DESTROYING)
        await through_crashes(world.retire.run, agent_id, [(step, done)])
        assert (await world.agents.get(agent_id)).state is AgentState.DESTROYED
        await no_keys(agent_id, byok, keys)


async def test_killed_before_its_end_began_another_process_begins_it(database: Database) -> None:
    async with small_world(database) as world:
        agent_id, byok, keys = await with_keys(world)
        await world.agents.become(agent_id, AgentState.DESTROYING)  # and here the process dies
        one, two = Starts(), Starts()
        await Begun(world.agents, one, lambda: 0.0).sweep()
        assert one.begun == {}  # it may be about to begin
        await older(world, agent_id, UNBEGUN_SECONDS + 1)
        for starts in (one, two):
            await Begun(world.agents, starts, lambda: 0.0).sweep()
        assert one.begun == two.begun and list(one.begun.values()) == [(retire.FLOW, agent_id)]
        await through_crashes(world.retire.run, agent_id, [])
        await no_keys(agent_id, byok, keys)
        after = Starts()
        await Begun(world.agents, after, lambda: END_AGAIN_SECONDS * 9).sweep()
        assert after.begun == {}


async def test_killed_before_its_making_began_another_process_begins_it(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.new_agent()
        starts = Starts()
        await older(world, agent.id, UNBEGUN_SECONDS + 1)
        await Begun(world.agents, starts, lambda: 0.0).sweep()
        assert starts.begun == {f"{provision.FLOW}:{agent.id}": (provision.FLOW, agent.id)}
        await world.agents.step_begun(agent.id, provision.FLOW, "order a machine")
        later = Starts()
        await Begun(world.agents, later, lambda: 0.0).sweep()
        assert later.begun == {}


async def test_an_end_that_failed_is_tried_again_in_time(database: Database) -> None:
    async with small_world(database) as world:
        agent = await world.ready_agent()
        await world.agents.become(agent.id, AgentState.DESTROYING)
        await world.agents.step_begun(agent.id, retire.FLOW, "end the machine")
        await world.agents.step_ended(agent.id, retire.FLOW, "end the machine", "it runs on")
        await world.agents.become(agent.id, AgentState.DESTROYING, "it runs on")
        soon = Starts()
        await older(world, agent.id, UNBEGUN_SECONDS + 1)
        await Begun(world.agents, soon, lambda: 0.0).sweep()
        assert soon.begun == {}
        await older(world, agent.id, END_AGAIN_SECONDS)
        await Begun(world.agents, soon, lambda: 0.0).sweep()
        assert list(soon.begun.values()) == [(retire.FLOW, agent.id)]
        await world.agents.step_begun(agent.id, retire.FLOW, "another part")  # it is under way
        under_way = Starts()
        await Begun(world.agents, under_way, lambda: 0.0).sweep()
        assert under_way.begun == {}


async def test_what_an_older_version_left_is_swept(database: Database) -> None:
    async with small_world(database) as world:
        agent_id, byok, keys = await with_keys(world)
        ended = EndedKeys(world.database)
        assert await ended.sweep() == 0 and len(await byok.list(agent_id)) == 1
        await world.agents.become(agent_id, AgentState.DESTROYED)
        assert await ended.sweep() == 1 and await ended.sweep() == 0
        await no_keys(agent_id, byok, keys)


async def test_a_key_that_is_brought_during_the_end_is_refused(database: Database) -> None:
    async with small_world(database) as world:
        agent_id, byok, keys = await with_keys(world)
        await world.agents.become(agent_id, AgentState.DESTROYING)
        steps = RememberedSteps()
        steps.dies_at = (0, True)
        with pytest.raises(Crashed):
            await world.retire.run(steps, agent_id)
        with pytest.raises(NotFound, match="being destroyed"):
            await byok.put(agent_id, "openai", OPENAI)
        await no_keys(agent_id, byok, keys)
