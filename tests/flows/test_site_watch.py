"""What an operator hears of a site that is not seen, or whose certificate is not renewed: late enough, and in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from tests.flows.boxes import made
from tests.flows.small_world import small_world
from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import Outcome
from tinyfat.domain.machines import Machine
from tinyfat.drivers.sites.memory import MemorySites
from tinyfat.flows.site_watch import SCOPE, SILENT_SECONDS, SiteWatch
from tinyfat.ports.server_ledger import Alarm, AlarmKind
from tinyfat.ports.sites import SiteSeen
from tinyfat.store.alarms import AlarmStore
from tinyfat.store.database import Database
from tinyfat.store.enrolments import EnrolmentStore
from tinyfat.store.servers import ServerStore

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIFE = timedelta(days=90)


class Stage:
    def __init__(self, database: Database, records: object, agents: object, agent: Agent, machine: Machine) -> None:
        self.database, self.agent, self.machine = database, agent, machine
        self.sites = MemorySites()
        self.now = NOW
        self.watch = SiteWatch(agents, records, self.sites, AlarmStore(database), lambda: self.now)  # type: ignore[arg-type]

    def shows(self, left: timedelta = LIFE) -> None:
        ends = self.now + left
        self.sites.shown = {(self.machine.hostname, self.machine.ipv4): SiteSeen("", ends - LIFE, ends)}

    async def publish(self, wanted: bool = True) -> None:
        await ServerStore(self.database).publish(self.agent.id, wanted)

    async def alarms(self) -> list[Alarm]:
        await self.watch.run()
        return await AlarmStore(self.database).open(SCOPE)


@asynccontextmanager
async def stage(database: Database) -> AsyncIterator[Stage]:
    async with small_world(database) as world:
        agent = await made(world, await world.new_agent("ada", "cloud"))
        machine = await world.records.of_agent(agent.id)
        assert machine is not None
        yield Stage(database, world.records, world.agents, agent, machine)


async def test_of_what_is_seen_or_not_published_there_is_no_alarm(database: Database) -> None:
    async with stage(database) as here:
        assert await here.alarms() == []
        await here.publish()
        here.shows()
        assert await here.alarms() == []


async def test_a_site_that_is_away_for_long_is_an_alarm_until_it_is_back(database: Database) -> None:
    async with stage(database) as here:
        await here.publish()
        assert await here.alarms() == []  # a server that starts again is no news
        here.now += timedelta(seconds=SILENT_SECONDS - 1)
        assert await here.alarms() == []
        here.now += timedelta(seconds=1)
        (alarm,) = await here.alarms()
        assert (alarm.kind, alarm.subject) == (AlarmKind.SITE, f"site https://{here.machine.hostname}/")
        assert alarm.agent_id == here.agent.id
        assert "2026-11-23 12:00 UTC" in alarm.detail and "does not answer on port 443" in alarm.detail
        assert "tinyfat ssh ada" in alarm.detail
        here.shows()
        assert await here.alarms() == []
        here.sites.shown = {}
        assert await here.alarms() == []  # its time begins anew


async def test_a_certificate_that_is_not_renewed_is_an_alarm_while_it_is_still_valid(database: Database) -> None:
    async with stage(database) as here:
        await here.publish()
        here.shows(LIFE / 6)
        assert await here.alarms() == []
        here.now += timedelta(hours=1)
        (alarm,) = await here.alarms()
        assert "ends 2026-12-08 12:00 UTC and was not renewed" in alarm.detail
        here.sites.shown = {}  # it has ended, say: no quarter of an hour without an alarm
        (alarm,) = await here.alarms()
        assert "does not answer" in alarm.detail
        here.shows()
        assert await here.alarms() == []


async def test_what_its_machine_says_is_told_too(database: Database) -> None:
    async with stage(database) as here:
        await here.publish()
        enrolments = EnrolmentStore(database)
        await enrolments.fetched(here.machine.id, 2)
        await enrolments.became(here.machine.id, Outcome(2, "its site could not be set (no Caddy)"))
        here.shows(LIFE / 9)
        (alarm,) = await here.alarms()
        assert "Its machine says: its site could not be set (no Caddy)." in alarm.detail


async def test_what_is_not_published_any_more_is_no_alarm(database: Database) -> None:
    async with stage(database) as here:
        await here.publish()
        here.shows(LIFE / 9)
        assert len(await here.alarms()) == 1
        await here.publish(False)
        assert await here.alarms() == []
