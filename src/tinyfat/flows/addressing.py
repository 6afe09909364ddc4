"""How an agent is reached: its address, which outlives its machines, and the name that leads there."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tinyfat.domain.agents import Agent
from tinyfat.domain.machines import Address
from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.progress import StillThere
from tinyfat.flows.watch import looked_again, until
from tinyfat.ports.dns import Dns, DnsError, DnsUnreachable
from tinyfat.ports.machines import MachinesUnreachable
from tinyfat.ports.requests import RequestsShort, ending
from tinyfat.ports.server_ledger import Addresses, KnownAddress, Names

ADDRESS_SECONDS_MAX = 120.0
ATTACH_SECONDS_MAX = 600.0  # a provider may need both machines off
NAME_SECONDS_MAX = 120.0  # until the provider's own list says what it was told
GONE_SECONDS_MAX = 120.0
_KINDS = (RecordType.A, RecordType.AAAA)


class Addressing:
    def __init__(self, domain: str, kinds: MachineKinds, addresses: Addresses, names: Names, dns: Dns | None) -> None:
        """`dns` None: nobody serves our names, and agents are reached by their addresses."""
        self._domain = domain
        self._kinds = kinds
        self._addresses = addresses
        self._names = names
        self._dns = dns

    def name(self, agent: Agent) -> str:
        return f"{agent.name}.{self._domain}"

    async def make(
        self, address_id: str, agent_id: str, kind: str, location: str = "", passing: bool = False
    ) -> Address:
        """Written down before it is made. Raises MachinesError."""
        await self._addresses.write_down(address_id, agent_id, kind, passing)
        found = Address(address_id)
        unreachable = MachinesUnreachable(f"The provider gave no address within {ADDRESS_SECONDS_MAX:.0f} s.")

        async def made() -> bool:
            nonlocal found, unreachable
            try:
                found = await self._kinds.servers(kind).address(address_id, location)
            except RequestsShort:
                raise
            except MachinesUnreachable as error:
                unreachable = error
                return False
            return bool(found.ipv4 or found.ipv6)

        if not await until(made, ADDRESS_SECONDS_MAX):
            raise unreachable
        await self._addresses.known(found)
        return found

    async def point(self, agent: Agent) -> str:
        """Its name leads to its address, as the provider's own list says afterwards. What is there and not written down
        as ours is somebody else's, and is left as it is. A complaint, or ""."""
        if self._dns is None:
            return ""
        own = await self.of(agent)
        if own is None:
            return f"{agent.name} has no address for its name to lead to."
        name = self.name(agent)
        if complaint := await self._not_ours(name):
            return complaint
        if not await self._names.write_down(name, agent.id):
            return f"The name {name} of an earlier agent is still in the DNS; `tinyfat fleet` tells about it."
        for kind, value in zip(_KINDS, (own.ipv4, own.ipv6), strict=True):
            if not await until(lambda kind=kind, value=value: self._leads(agent, name, kind, value), NAME_SECONDS_MAX):  # type: ignore[misc]
                return f"{name} does not lead to {value or 'nothing'} ({kind}) after {NAME_SECONDS_MAX:.0f} s."
        return ""

    async def foreign(self, agent_name: str) -> str:
        """Why no new agent can have this name, as far as the provider tells now; or ""."""
        try:
            return await self._foreign(f"{agent_name}.{self._domain}")
        except DnsError:
            return ""  # `point` asks again

    async def _not_ours(self, name: str) -> str:
        complaint = ""

        async def told() -> bool:
            nonlocal complaint
            try:
                complaint = await self._foreign(name)
            except RequestsShort:
                raise
            except DnsUnreachable as error:
                complaint = str(error)
                return False
            return True

        await until(told, NAME_SECONDS_MAX)
        return complaint

    async def _foreign(self, name: str) -> str:
        """Raises DnsError."""
        if self._dns is None or await self._names.known(name):
            return ""
        kinds = await self._dns.kinds_at(name)
        if not kinds:
            return ""
        return (
            f"The zone {self._dns.zone} has records at {name} that no agent's are ({', '.join(kinds)}): choose another "
            "name, or remove them where the zone is kept."
        )

    async def attach(self, agent: Agent, machine_id: str) -> str:
        """The agent's address is this machine's, which runs. A complaint, or "". Raises MachinesError."""
        driver = self._kinds.servers(agent.machine_kind)
        last = "no reason given"

        async def has_it() -> bool:
            nonlocal last
            try:
                return await driver.attach(agent.address_id, machine_id)
            except RequestsShort:
                raise
            except MachinesUnreachable as error:
                last = str(error)
                return False

        if await until(has_it, ATTACH_SECONDS_MAX):
            return ""
        return f"The address of {agent.name} does not move to {machine_id}: {last}"

    async def of(self, agent: Agent) -> KnownAddress | None:
        known = await self._addresses.of_agent(agent.id)
        return next((address for address in known if address.id == agent.address_id), None)

    async def reached_at(self, agent: Agent) -> str:
        """What people put after `ssh owner@`."""
        if self._dns is not None:
            return self.name(agent)
        own = await self.of(agent)
        return (own.ipv4 or own.ipv6) if own else ""

    async def unpoint(self, agent: Agent) -> None:
        """The names that are written down as its own are gone from the provider's list. Raises StillThere."""
        if self._dns is None:
            return
        for name in await self._names.of_agent(agent.id):
            await self.remove_name(name)
            await self._names.forget(name, agent.id)

    async def remove_name(self, name: str) -> None:
        """One of ours; each of its records, whatever becomes of the other: an address that is let go may be somebody
        else's soon. Raises StillThere."""
        stayed = []
        for kind in _KINDS if self._dns is not None else ():
            with ending():
                if not await until(lambda kind=kind: self._gone(name, kind), GONE_SECONDS_MAX):  # type: ignore[misc]
                    stayed.append(kind)
        if stayed:
            kinds = ", ".join(stayed)
            raise StillThere(f"{name} ({kinds}) is still in the DNS {GONE_SECONDS_MAX:.0f} s after it was removed.")

    async def release_all(self, agent: Agent) -> None:
        """Every address that is the agent's, and the one that may have been made without our hearing of it. Raises
        StillThere."""
        known = {address.id: address.kind for address in await self._addresses.of_agent(agent.id)}
        for address_id, kind in ({agent.id: agent.machine_kind} | known).items():
            await self.release(kind, address_id)

    async def release(self, kind: str, address_id: str) -> None:
        """Raises StillThere."""

        async def released() -> bool:
            gone = False
            with looked_again():
                gone = await self._kinds.servers(kind).release(address_id)
            return gone  # noqa: RET504 - False where nothing was told

        with ending():
            gone = await until(released, GONE_SECONDS_MAX)
        if not gone:
            raise StillThere(f"The address {address_id} is still there {GONE_SECONDS_MAX:.0f} s after it was let go.")
        await self._addresses.forget(address_id)

    # Each looks, and where it is otherwise says so again: a provider may have lost the first word.

    async def _leads(self, agent: Agent, name: str, kind: RecordType, value: str) -> bool:
        """ "": to nothing."""
        if not value:
            return await self._gone(name, kind)
        assert self._dns is not None
        wanted = RecordSet(name, kind, (value,))
        with looked_again():
            if _values(await self._dns.look(name, kind)) == _values(wanted):
                return True
            # Written down again: an end of the agent may have removed the name, and forgotten it, since `point` began.
            if await self._names.write_down(name, agent.id):
                await self._dns.put(wanted)
        return False

    async def _gone(self, name: str, kind: RecordType) -> bool:
        assert self._dns is not None
        with looked_again():
            if await self._dns.look(name, kind) is None:
                return True
            await self._dns.remove(name, kind)
        return False


def _values(found: RecordSet | None) -> Sequence[str]:
    """Providers write an IPv6 address in their own way (RFC 5952)."""
    return sorted(ipaddress.ip_address(value).compressed for value in found.values) if found else []
