"""An agent's site is shown to the world, or no longer: the provider's firewall, the machine, a look from outside.

What is wanted is put into the agent's row first, and every part reads it anew: of two flows that run at once, one to
publish and one to end it, both bring about what was said last. A machine made meanwhile is made so by its order.
"""

from __future__ import annotations

from tinyfat.domain.agents import Agent
from tinyfat.domain.machines import Machine
from tinyfat.engine.steps import Steps
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.orders import Orders
from tinyfat.flows.progress import Progress
from tinyfat.flows.watch import until
from tinyfat.ports.ledger import Agents, MachineRecords
from tinyfat.ports.machines import MachinesUnreachable
from tinyfat.ports.requests import RequestsShort
from tinyfat.ports.server_ledger import ServerRecords
from tinyfat.ports.sites import Sites

FLOW = "publish"
PUBLISH, UNPUBLISH = "publish", "unpublish"
FIREWALL_SECONDS_MAX = 300.0
FIRST_WORD_SECONDS_MAX = 30.0  # a machine that was ready just now may still be about to say what it has become
MACHINE_SECONDS_MAX = 900.0  # the first time it may have to install Caddy, and to try that again
OUTSIDE_SECONDS_MAX = 120.0  # a certificate by ACME takes seconds, and after a failure a minute more


class Publish:
    def __init__(
        self,
        agents: Agents,
        kinds: MachineKinds,
        records: MachineRecords,
        servers: ServerRecords,
        orders: Orders,
        sites: Sites,
    ) -> None:
        self._agents = agents
        self._servers = servers
        self._kinds = kinds
        self._records = records
        self._orders = orders
        self._sites = sites
        self._progress = Progress(agents, FLOW)

    async def run(self, steps: Steps, subject: str) -> None:
        """`subject`: the agent's id, what is wanted, and what tells this run from others, "ID:publish:RUN"."""
        agent_id, wanted, _ = subject.split(":", 2)
        speaks = await steps.run("begin", lambda: self._begin(agent_id, wanted == PUBLISH))
        for name, part in (
            ("the provider's firewall", self._firewall),
            ("the machine", self._machine if speaks else self._too_old),
            ("seen from outside", self._outside),
        ):
            if await self._progress.part(steps, agent_id, name, part):
                return

    async def _begin(self, agent_id: str, published: bool) -> bool:
        """Does its machine say what becomes of an identity? One that was made before there were sites does not, and
        has nothing that could serve one."""

        async def has_spoken() -> bool:
            machine = await self._records.of_agent(agent_id)
            return machine is None or machine.identity_in_force > 0 or machine.identity_complaint != ""

        speaks = await until(has_spoken, FIRST_WORD_SECONDS_MAX)
        await self._servers.publish(agent_id, published)
        return speaks

    async def _too_old(self, agent: Agent) -> str:
        if not agent.published:
            return ""  # nor could it ever
        return (
            f"The machine of {agent.name} was made by a TinyFat that could not publish yet. "
            f"`tinyfat agent replace {agent.name}` gives it a newer one, which shows its site at once; its name, its "
            "address and its memory stay the same."
        )

    async def _firewall(self, agent: Agent) -> str:
        """Of each machine it has: while it is replaced there are two."""
        words = "no reason given"

        async def all_open() -> bool:
            nonlocal words
            now = await self._agents.get(agent.id)
            try:
                for machine in await self._records.all_of_agent(agent.id):
                    if machine.wanted and not await self._opens(machine, now.published):
                        return False
            except RequestsShort:
                raise
            except MachinesUnreachable as error:
                words = str(error)
                return False
            return True

        if await until(all_open, FIREWALL_SECONDS_MAX):
            return ""
        return f"The provider's firewall of {agent.name} is not as it should be: {words}"

    async def _opens(self, machine: Machine, published: bool) -> bool:
        networks = self._orders.terms.ssh_networks
        return await self._kinds.servers(machine.kind).opens(machine.id, networks, published)

    async def _machine(self, agent: Agent) -> str:
        """It has become what it is to be by now, by its own word."""
        last: Machine | None = None

        async def has_become() -> bool:
            nonlocal last
            last = await self._records.of_agent(agent.id)
            return last is None or last.identity_in_force >= last.identity_serial

        if await until(has_become, MACHINE_SECONDS_MAX):
            return "" if last else f"{agent.name} has no machine any more."
        said = last.identity_complaint if last else ""
        return f"The machine of {agent.name} did not do it within {MACHINE_SECONDS_MAX / 60:.0f} min: " + (
            said or f"it said nothing; `tinyfat ssh {agent.name} -- sudo journalctl -u 'tinyfat-*'` tells more."
        )

    async def _outside(self, agent: Agent) -> str:
        """By its name and certificate where it is published; where not, nobody answers."""
        wanted, complaint = agent.published, ""

        async def as_wanted() -> bool:
            nonlocal wanted, complaint
            wanted = (await self._agents.get(agent.id)).published
            machine = await self._records.of_agent(agent.id)
            if machine is None:
                return True  # its end is under way
            complaint = (await self._sites.look(machine.hostname, machine.ipv4 or machine.ipv6)).complaint
            return wanted is (complaint == "")

        if await until(as_wanted, OUTSIDE_SECONDS_MAX):
            return ""
        if not wanted:
            return f"{agent.name} publishes nothing any more, and yet somebody answers at its address on port 443."
        return (
            f"The site of {agent.name} does not come: {complaint}. "
            f"`tinyfat ssh {agent.name} -- sudo journalctl -u tinyfat-site` tells what Caddy says; it goes on trying."
        )
