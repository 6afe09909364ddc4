"""Whether the sites of agents are seen from outside, with certificates that are renewed in time. Run every few minutes.

Whoever gives the certificates, they are replaced with a third of their life left or more: ours by the machine's asking
for its identity, those by ACME by Caddy. What has less than a sixth was not, and there is still time to see why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import Machine
from tinyfat.ports.ledger import Agents, MachineRecords
from tinyfat.ports.server_ledger import Alarm, AlarmKind, Alarms
from tinyfat.ports.sites import Sites, SiteSeen

SCOPE = "site"
SILENT_SECONDS = 900.0  # a restart, a replacement, the first certificate by ACME take less
LEFT_MIN = 1 / 6  # of a certificate's life
LOOKS_AT_ONCE = 20

log = logging.getLogger(__name__)


class SiteWatch:
    def __init__(
        self, agents: Agents, records: MachineRecords, sites: Sites, alarms: Alarms, clock: Callable[[], datetime]
    ) -> None:
        self._agents = agents
        self._records = records
        self._sites = sites
        self._alarms = alarms
        self._clock = clock
        self._since: dict[str, datetime] = {}  # by agent: not as it should be, as this process saw it

    async def run(self) -> None:
        shown = [agent for agent in await self._agents.all() if agent.published and agent.state is AgentState.READY]
        known = {agent.id for agent in shown}
        self._since = {agent_id: since for agent_id, since in self._since.items() if agent_id in known}
        turn = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def look(agent: Agent) -> Alarm | None:
            async with turn:
                return await self._look(agent)

        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(look(agent)) for agent in shown]
        for alarm in await self._alarms.now(SCOPE, [alarm for each in looks if (alarm := each.result())]):
            log.error("%s: %s: %s", alarm.kind, alarm.subject, alarm.detail)

    async def _look(self, agent: Agent) -> Alarm | None:
        machine = await self._records.of_agent(agent.id)
        if machine is None or not machine.hostname:
            return None
        seen, now = await self._sites.look(machine.hostname, machine.ipv4 or machine.ipv6), self._clock()
        if seen.complaint:
            since = self._since.setdefault(agent.id, now)
            words = f"Its site is not seen since {since:%Y-%m-%d %H:%M} UTC: {seen.complaint}."
        elif _ends_soon(seen, now):
            since = self._since.setdefault(agent.id, now - timedelta(seconds=SILENT_SECONDS))
            words = f"The certificate of its site ends {seen.certificate_until:%Y-%m-%d %H:%M} UTC and was not renewed."
        else:
            self._since.pop(agent.id, None)
            return None
        if now - since < timedelta(seconds=SILENT_SECONDS):
            return None
        return Alarm(AlarmKind.SITE, f"{SCOPE} https://{machine.hostname}/", _told(agent, machine, words), agent.id)


def _ends_soon(seen: SiteSeen, now: datetime) -> bool:
    begins, ends = seen.certificate_from, seen.certificate_until
    return begins is not None and ends is not None and ends - now < (ends - begins) * LEFT_MIN


def _told(agent: Agent, machine: Machine, words: str) -> str:
    says = f" Its machine says: {machine.identity_complaint}." if machine.identity_complaint else ""
    journal = f"`tinyfat ssh {agent.name} -- sudo journalctl -u tinyfat-site -u tinyfat-identity`"
    return f"{words}{says} {journal} tells more."
