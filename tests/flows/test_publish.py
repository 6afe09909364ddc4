"""An agent's site is shown, and ended: as the provider, the machine and the world outside come to agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.flows.boxes import boxes, made
from tests.flows.crashing import through_crashes
from tests.flows.small_world import DOMAIN, TERMS, PlainSteps, SmallWorld, small_world
from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import Outcome
from tinyfat.domain.machines import Machine
from tinyfat.drivers.machines.memory import Lies
from tinyfat.drivers.sites.memory import MemorySites
from tinyfat.flows import publish
from tinyfat.flows.publish import Publish
from tinyfat.ports.sites import SiteSeen
from tinyfat.store.database import Database
from tinyfat.store.enrolments import EnrolmentStore

NAME = f"ada.{DOMAIN}"


class Stage:
    """An agent whose machine becomes what it is told, and whose site then answers; or complains."""

    def __init__(self, world: SmallWorld, agent: Agent) -> None:
        self.world, self.agent = world, agent
        self.sites = MemorySites()
        self.complaint = ""
        self.flow = Publish(world.agents, world.kinds, world.records, world.servers, world.orders, self.sites)

    async def run(self, which: str) -> dict[str, str]:
        """What became of each step."""
        await self.world.agents.steps_again(self.agent.id, publish.FLOW)
        await self.flow.run(PlainSteps(), f"{self.agent.id}:{which}:1")
        steps = await self.world.agents.steps(self.agent.id)
        return {step.name: step.detail for step in steps if step.flow == publish.FLOW}

    async def machine(self) -> Machine:
        found = await self.world.records.of_agent(self.agent.id)
        assert found is not None
        return found

    @asynccontextmanager
    async def follows(self) -> AsyncIterator[None]:
        enrolments = EnrolmentStore(self.world.database)

        async def follow() -> None:
            while True:
                machine = await self.machine()
                if machine.identity_in_force < machine.identity_serial:
                    await self._become(enrolments, machine)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(follow())
        try:
            async with boxes(self.world):
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _become(self, enrolments: EnrolmentStore, machine: Machine) -> None:
        published = (await self.world.agents.get(self.agent.id)).published
        await enrolments.became(machine.id, Outcome(machine.identity_serial, self.complaint))
        if not self.complaint and published:
            self.sites.shown[(machine.hostname, machine.ipv4)] = SiteSeen()
        elif not self.complaint:
            self.sites.shown.clear()


@asynccontextmanager
async def stage(database: Database) -> AsyncIterator[Stage]:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        yield Stage(world, agent)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_WORD_SECONDS_MAX", "FIREWALL_SECONDS_MAX", "MACHINE_SECONDS_MAX", "OUTSIDE_SECONDS_MAX"):
        monkeypatch.setattr(publish, name, 0.3)


async def test_a_site_is_shown_and_ended(database: Database) -> None:
    async with stage(database) as here, here.follows():
        before = await here.machine()
        said = await here.run(publish.PUBLISH)
        assert said == {"the provider's firewall": "", "the machine": "", "seen from outside": ""}
        now = await here.machine()
        assert now.identity_in_force == now.identity_serial > before.identity_serial
        assert (await here.world.agents.get(here.agent.id)).published
        assert here.world.cloud.opened == {now.id: (TERMS.ssh_networks, True)}
        assert set(here.sites.shown) == {(NAME, now.ipv4)}

        said = await here.run(publish.UNPUBLISH)
        assert set(said.values()) == {""}
        assert not (await here.world.agents.get(here.agent.id)).published
        assert here.world.cloud.opened == {now.id: (TERMS.ssh_networks, False)}


async def test_what_the_machine_could_not_do_is_told_and_the_rest_left_alone(database: Database, short: None) -> None:
    async with stage(database) as here, here.follows():
        here.complaint = "its site could not be set (apt-get found no caddy)"
        said = await here.run(publish.PUBLISH)
        assert "apt-get found no caddy" in said["the machine"]
        assert "seen from outside" not in said
        assert (await here.machine()).identity_complaint == here.complaint

        here.complaint = ""
        assert set((await here.run(publish.PUBLISH)).values()) == {""}
        assert (await here.machine()).identity_complaint == ""


async def test_a_machine_that_says_nothing_is_told_with_the_next_step(database: Database, short: None) -> None:
    async with stage(database) as here:
        await EnrolmentStore(here.world.database).became((await here.machine()).id, Outcome(1))
        said = await here.run(publish.PUBLISH)
        assert "tinyfat ssh ada" in said["the machine"]


async def test_a_machine_from_before_there_were_sites_is_told_so_at_once(database: Database, short: None) -> None:
    """It becomes what it is told, and never says so."""
    async with stage(database) as here:
        said = await here.run(publish.PUBLISH)
        assert "`tinyfat agent replace ada`" in said["the machine"]
        assert "seen from outside" not in said
        assert (await here.world.agents.get(here.agent.id)).published  # the machine that replaces it shows the site
        said = await here.run(publish.UNPUBLISH)
        assert set(said.values()) == {""}


async def test_a_site_that_does_not_come_is_told(database: Database, short: None) -> None:
    async with stage(database) as here, here.follows():
        here.sites = MemorySites()  # another one than the flow looks at: nobody answers there
        said = await here.run(publish.PUBLISH)
        assert "does not answer on port 443" in said["seen from outside"]


async def test_a_provider_that_does_not_answer_is_asked_again(database: Database) -> None:
    async with stage(database) as here, here.follows():
        here.world.cloud.lies = Lies(unreachable=3)
        assert set((await here.run(publish.PUBLISH)).values()) == {""}


async def test_a_new_machine_of_a_published_agent_is_ordered_so(database: Database) -> None:
    async with stage(database) as here:
        await here.world.servers.publish(here.agent.id, True)
        machine = await here.machine()
        await here.world.cloud.stop(machine.id)
        await here.world.cloud.delete(machine.id)
        async with boxes(here.world):
            await here.world.making.start(machine.id, "ada", here.agent.id)
        order = here.world.cloud._machines[machine.id].order
        assert order.server is not None and order.server.published


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("step", range(4))
async def test_killed_at_any_step_it_goes_on(database: Database, step: int, done: bool) -> None:
    async with stage(database) as here, here.follows():
        await through_crashes(here.flow.run, f"{here.agent.id}:{publish.PUBLISH}:1", [(step, done)])
        assert (await here.world.agents.get(here.agent.id)).published
        assert here.world.cloud.opened == {(await here.machine()).id: (TERMS.ssh_networks, True)}
        assert here.sites.shown
