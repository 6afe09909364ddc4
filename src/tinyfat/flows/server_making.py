"""What making and replacing have in common: a server is claimed or ordered, with an address and a name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tinyfat.domain.agents import Agent
from tinyfat.domain.machines import Machine, MachineState
from tinyfat.domain.shortages import PROBE_SECONDS
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.orders import Orders
from tinyfat.flows.watch import looked_again, until
from tinyfat.ports.ledger import Agents, MachineRecords
from tinyfat.ports.machines import MachineRefused, MachinesFull, MachinesUnreachable
from tinyfat.ports.requests import RequestsShort
from tinyfat.ports.server_ledger import AgentKeys, NewServer, ServerRecords, Wish

ORDER_SECONDS_MAX = 300.0  # until the provider lists it as running
ROOM_SECONDS_MAX = 60.0  # for what another order is told of the room in a location
POOL_SEEN_SECONDS_MAX = 30.0  # a machine of the pool was heard of that lately, or it is not given away


class ServerMaking:
    def __init__(
        self,
        agents: Agents,
        kinds: MachineKinds,
        records: MachineRecords,
        servers: ServerRecords,
        keys: AgentKeys,
        orders: Orders,
        addressing: Addressing,
    ) -> None:
        self._agents = agents
        self.kinds = kinds
        self._records = records
        self._servers = servers
        self._keys = keys
        self._orders = orders
        self._addressing = addressing

    async def claim(self, agent: Agent) -> str:
        """A machine that waits, where there is one like it; its box is told who it is now."""
        wish = Wish(agent.machine_kind, agent.runtime, agent.location, agent.image, agent.size)
        await self._servers.claim(agent.id, wish, self._orders.hostname(agent), POOL_SEEN_SECONDS_MAX)
        return ""

    async def order(self, agent: Agent) -> str:
        """A new one, unless one of the pool was claimed. Raises MachinesError."""
        claimed = await self._records.of_agent(agent.id)
        if claimed is not None and claimed.claimed:
            return ""
        await self.make(self._orders.new_server(agent), agent.name)
        return ""

    async def make(self, wanted: NewServer, agent_name: str) -> None:
        """The address, then the machine, in the first location that has both. Raises MachinesError."""
        machine = await self._servers.write_down(wanted)
        wished = (wanted.location,) if wanted.location else self._orders.terms.locations or ("",)
        # Where it was tried last, before a crash perhaps, comes first.
        locations = sorted(wished, key=lambda location: location != machine.location)
        for location in locations:
            try:
                await self._see_room(machine, location)
                await self._make_in(machine, agent_name, location)
                return
            except MachinesFull as error:
                if location == locations[-1]:
                    raise
                if error.again_seconds is None:
                    await self._addressing.release(machine.kind, machine.address_id)

    async def _see_room(self, machine: Machine, location: str) -> None:
        """Where another order is just asking whether there is room again, that is waited for. Raises MachinesFull,
        MachineRefused."""
        driver = self.kinds.servers(machine.kind)
        full: MachinesFull | None = None

        async def known() -> bool:
            nonlocal full
            full = None
            try:
                with looked_again():
                    await driver.room(location, machine.size)
            except MachinesFull as error:
                full = error
                return error.again_seconds is None or error.again_seconds > PROBE_SECONDS
            return True

        await until(known, ROOM_SECONDS_MAX)
        if full is not None:
            raise full

    async def _make_in(self, machine: Machine, agent_name: str, location: str) -> None:
        address = await self._addressing.make(
            machine.address_id, machine.agent_id, machine.kind, location, passing=not machine.current
        )
        await self._servers.placed(machine.id, address.ipv4, address.ipv6, address.location or location)
        await self.start(machine.id, agent_name, machine.agent_id)

    async def start(self, machine_id: str, agent_name: str, agent_id: str) -> None:
        """Ordered, and seen to run; ordered again where the provider lost the first word. Raises MachinesError."""
        machine = await self._wanted(machine_id)
        keys = [key.public_key for key in await self._keys.list(agent_id)] if agent_id else []
        published = (await self._agents.get(agent_id)).published if agent_id else False
        order = self._orders.for_server(machine, agent_name, keys, published)
        driver = self.kinds.servers(machine.kind)
        await self._servers.ordered(machine_id)
        unreachable = MachinesUnreachable(f"The provider does not list {machine_id} as running after it was ordered.")

        async def runs() -> bool:
            nonlocal unreachable
            try:
                seen = await driver.look(machine_id)
                if seen.state is MachineState.RUNNING:
                    return True
                if seen.state is not MachineState.UNKNOWN:
                    await self._wanted(machine_id)
                    await driver.start(order)
            except RequestsShort:
                raise
            except MachinesUnreachable as error:
                unreachable = error
            return False

        if not await until(runs, ORDER_SECONDS_MAX):
            raise unreachable
        await self._servers.priced(machine_id, await self._price(machine))

    async def _wanted(self, machine_id: str) -> Machine:
        """Raises MachineRefused where its end was asked for meanwhile."""
        machine = await self._records.get(machine_id)
        if machine is None or not machine.wanted:
            raise MachineRefused(f"The machine {machine_id} is no longer wanted.")
        return machine

    async def _price(self, machine: Machine) -> int:
        """What cannot be told now, the reconciliation tells later."""
        try:
            return await self.kinds.servers(machine.kind).monthly_nanodollars(machine.id)
        except MachinesUnreachable:
            return machine.monthly_nanodollars

    async def point(self, agent: Agent) -> str:
        return await self._addressing.point(agent)

    def unmaking(self, agent: Agent) -> Sequence[Callable[[], Awaitable[None]]]:
        """What is left once its machines are gone. Each raises StillThere, DnsError, MachinesError."""
        return (lambda: self._addressing.unpoint(agent), lambda: self._addressing.release_all(agent))
