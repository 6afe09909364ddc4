"""Who a machine is to be now: what its row, its agent and its owner's keys say, and what is derived from our secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import AGAIN_SECONDS, Identity, SiteTls
from tinyfat.domain.machines import Machine
from tinyfat.drivers.authorities.ssh import SshAuthority
from tinyfat.flows.orders import Orders
from tinyfat.ports.ledger import NotFound
from tinyfat.ports.server_ledger import AgentKeys


class _Machines(Protocol):
    async def get(self, machine_id: str) -> Machine | None: ...


class _Agents(Protocol):
    async def get(self, agent_id: str) -> Agent: ...


class ServerIdentities:
    """Implements ports/enrolments Identities."""

    def __init__(
        self,
        machines: _Machines,
        agents: _Agents,
        keys: AgentKeys,
        orders: Orders,
        ssh: SshAuthority,
        site_tls: Callable[[Agent, Machine], tuple[SiteTls, int]],
    ) -> None:
        """`site_tls`: how an agent's site comes by its certificate on this machine, and in how many seconds it is asked
        for again."""
        self._machines, self._agents, self._keys, self._orders, self._ssh = machines, agents, keys, orders, ssh
        self._site_tls = site_tls

    async def of(self, machine_id: str) -> Identity:
        """The host key is the agent's, whatever machine it is on; a machine that waits in the pool has its own."""
        machine = await self._machines.get(machine_id)
        if machine is None or not machine.wanted:
            raise NotFound(f"The machine {machine_id} is no longer wanted.")
        orders = self._orders
        agent = await self._agents.get(machine.agent_id) if machine.agent_id else None
        keys = await self._keys.list(agent.id) if agent else []
        site, again_seconds = self._site_tls(agent, machine) if agent and agent.published else (None, AGAIN_SECONDS)
        return Identity(
            serial=machine.identity_serial,
            machine_id=machine.id,
            agent_name=agent.name if agent else "",
            runtime=machine.runtime,
            hostname=machine.hostname,
            link_url=orders.terms.link_url,
            link_token=orders.token(machine.id),
            ssh_host_key=self._ssh.host_key(agent.id if agent else machine.id)[0],
            ssh_ca=self._ssh.public_line,
            owner_keys=tuple(key.public_key for key in keys),
            site=site,
            ssh_networks=orders.terms.ssh_networks,
            again_seconds=again_seconds,
        )
