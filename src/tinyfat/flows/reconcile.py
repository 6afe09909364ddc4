"""What the provider bills against what we know, both ways, and our names in the DNS. Run every few minutes.

Orphans (ours by their label, unknown to the ledger) and ghosts (known to the ledger, unknown to the provider) are told
at once. An orphan is removed once it is older than ORPHAN_SECONDS and no flow under way may be about to know it. What
is not labelled ours is never touched. A machine that an image is made of, or tried on, is noted as what it is; when it
is as old as that, its command is dead, and it is an orphan. What can be mended without loss is: a server that stopped
is started again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import Billed, BilledKind, Machine, MachineState
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.orders import machine_id_of
from tinyfat.flows.progress import StillThere
from tinyfat.flows.server_making import ServerMaking
from tinyfat.ports.dns import DnsError
from tinyfat.ports.ledger import Agents, MachineRecords
from tinyfat.ports.machines import MachinesError
from tinyfat.ports.requests import ending
from tinyfat.ports.server_ledger import (
    Addresses,
    Alarm,
    AlarmKind,
    Alarms,
    ImageMachine,
    ImageMachines,
    Names,
    ServerRecords,
)

ORPHAN_SECONDS = 3600.0
GHOST_SECONDS = 600.0  # ordered that long ago, it is on the provider's list
LOOKS_MAX = 50  # machines looked at one by one in one go: a provider counts requests
GENERATIONS_MAX = 100  # replacements of an agent whose machines are known by their ids
UNREAD_SECONDS = 900.0  # a list that could not be read for so long is an alarm of its own: nobody looks meanwhile
DNS_SCOPE = "dns"
LIST_SCOPE = "list"
_KEPT = (BilledKind.IMAGE, BilledKind.SSH_KEY)  # not of one machine: `tinyfat image prune` ends images

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    machines: dict[str, Machine]
    addresses: frozenset[str]

    def has(self, billed: Billed) -> bool:
        return billed.owner_id in (self.addresses if billed.kind is BilledKind.ADDRESS else self.machines)


class Reconcile:
    def __init__(
        self,
        agents: Agents,
        kinds: MachineKinds,
        records: MachineRecords,
        servers: ServerRecords,
        addresses: Addresses,
        names: Names,
        addressing: Addressing,
        making: ServerMaking,
        alarms: Alarms,
        image_machines: ImageMachines,
        clock: Callable[[], datetime],
        always: Collection[str],
    ) -> None:
        """`always`: the kinds that are compared though the ledger knows nothing of theirs. The others are not in use,
        and looking may need what is not there: a program, root."""
        self._agents = agents
        self._kinds = kinds
        self._records = records
        self._servers = servers
        self._addresses = addresses
        self._names = names
        self._addressing = addressing
        self._making = making
        self._alarms = alarms
        self._image_machines = image_machines
        self._clock = clock
        self._always = frozenset(always)
        self._looked = 0
        self._unread_since: dict[str, datetime] = {}  # by scope; as this process saw it

    async def run(self) -> list[Alarm]:
        """Every alarm there is now."""
        for kind in self._kinds.server_kinds:
            if kind in self._always or await self._in_use(kind):
                await self._compare(kind, partial(self._of_kind, kind))
        await self._compare(DNS_SCOPE, self._stray_names)
        return await self._alarms.open()

    async def _compare(self, scope: str, look: Callable[[], Awaitable[Sequence[Alarm]]]) -> None:
        """Where that cannot be done, its alarms stay as they were; and in time there is one more."""
        unread = f"{LIST_SCOPE} {scope}"
        try:
            alarms = await look()
        except (MachinesError, DnsError) as error:
            log.warning("what %s has could not be compared: %s", scope, error)
            since = self._unread_since.setdefault(scope, self._clock())
            if self._clock() - since >= timedelta(seconds=UNREAD_SECONDS):
                words = f"Not compared with the ledger since {since:%Y-%m-%d %H:%M} UTC: {error}"
                await self._tell(unread, [Alarm(AlarmKind.UNREAD, f"{unread} everything", words)])
            return
        self._unread_since.pop(scope, None)
        await self._tell(unread, [])
        await self._tell(scope, alarms)

    async def _in_use(self, kind: str) -> bool:
        known = await self._known(kind)
        return bool(known.machines or known.addresses)

    async def _tell(self, scope: str, alarms: Sequence[Alarm]) -> None:
        for alarm in await self._alarms.now(scope, alarms):
            log.error("%s: %s: %s", alarm.kind, alarm.subject, alarm.detail)

    async def _of_kind(self, kind: str) -> list[Alarm]:
        """The ledger is read before and after the list: what a flow writes down or forgets meanwhile is no orphan."""
        before = await self._known(kind)
        billed = await self._kinds.servers(kind).billed()
        after = await self._known(kind)
        busy = await self._under_way()
        unknown = [
            one for one in billed if one.ours and one.kind not in _KEPT and not before.has(one) and not after.has(one)
        ]
        making = [one for one in unknown if one.makes and one.owner_id and not self._is_old(one)]
        await self._image_machines.now(kind, [_image_machine(kind, one) for one in making])
        theirs = {one.owner_id for one in making}
        orphans = [one for one in unknown if one.owner_id not in theirs and not self._is_idle_firewall(one)]
        alarms = [await self._orphan(kind, one, busy) for one in orphans]
        await self._price(billed, after)
        listed = {one.owner_id for one in billed if one.ours and one.kind is BilledKind.SERVER}
        there = [machine for machine in after.machines.values() if machine.id in before.machines and machine.wanted]
        ghosts = [machine for machine in there if machine.id not in listed and self._ordered_long_ago(machine)]
        alarms += [alarm for machine in ghosts if (alarm := await self._ghost(kind, machine, busy))]
        alarms += await self._stopped(kind, [machine for machine in there if machine.id in listed], busy)
        for machine in after.machines.values():
            if not machine.wanted and machine.agent_id and not machine.current and machine.agent_id not in busy:
                alarms += await self._end_replaced(kind, machine)
        await self._release_passing(kind, after, busy)
        return alarms

    async def _known(self, kind: str) -> _Known:
        machines = {machine.id: machine for machine in await self._servers.all(kind)}
        return _Known(machines, frozenset(address.id for address in await self._addresses.all(kind)))

    async def _under_way(self) -> set[str]:
        """Ids of machines and addresses that a flow may be about to make or to end."""
        busy: set[str] = set()
        for agent in await self._agents.all():
            if agent.state in (AgentState.CREATING, AgentState.DESTROYING) or agent.moving:
                busy |= {agent.id, agent.address_id}
                busy |= {machine_id_of(agent.id, number + 1) for number in range(GENERATIONS_MAX)}
        return busy

    async def _orphan(self, kind: str, billed: Billed, busy: set[str]) -> Alarm:
        age = self._clock() - billed.created_at
        words = f"{billed.name} is billed as ours, and we do not know it"
        if billed.makes:
            words = f"{billed.name} was to make or try the image {billed.makes}, and its command did not end it"
        subject = f"{kind} {billed.kind} {billed.provider_id}"
        if billed.owner_id in busy:
            return Alarm(AlarmKind.ORPHAN, subject, f"{words}; a flow is under way that may.")
        if not self._is_old(billed):
            minutes = (ORPHAN_SECONDS - age.total_seconds()) / 60
            return Alarm(AlarmKind.ORPHAN, subject, f"{words}; it is removed in {minutes:.0f} min.")
        try:
            with ending():
                await self._kinds.servers(kind).remove(billed)
        except MachinesError as error:
            return Alarm(AlarmKind.ORPHAN, subject, f"{words}; it could not be removed: {error}")
        log.warning("removed an orphan: %s", subject)
        return Alarm(AlarmKind.ORPHAN, subject, f"{words}; it was told to go and is looked for again.")

    def _is_old(self, billed: Billed) -> bool:
        return self._clock() - billed.created_at >= timedelta(seconds=ORPHAN_SECONDS)

    def _is_idle_firewall(self, billed: Billed) -> bool:
        """A server is about to use it, or did until now. It costs nothing, and goes when it is old."""
        return billed.kind is BilledKind.FIREWALL and not billed.owner_id and not self._is_old(billed)

    def _ordered_long_ago(self, machine: Machine) -> bool:
        return machine.ordered_at is not None and self._clock() - machine.ordered_at > timedelta(seconds=GHOST_SECONDS)

    async def _ghost(self, kind: str, machine: Machine, busy: set[str]) -> Alarm | None:
        """Lists may be late: only a look of its own tells that it is gone."""
        seen = await self._kinds.of(kind).look(machine.id)
        if seen.state is not MachineState.GONE or machine.id in busy or machine.agent_id in busy:
            return None
        if not machine.agent_id:
            return Alarm(AlarmKind.GHOST, f"{kind} server {machine.id}", "A machine of the warm pool is gone.")
        agent = await self._agents.get(machine.agent_id)
        words = (
            f"The machine of {agent.name} is gone at the provider, its data with it. "
            f"`tinyfat agent replace {agent.name} --without-state` makes another; its memory starts anew."
        )
        return Alarm(AlarmKind.GHOST, f"{kind} server {machine.id}", words, agent.id)

    async def _stopped(self, kind: str, machines: Sequence[Machine], busy: set[str]) -> list[Alarm]:
        """Some of them in each go, all of them in turn."""
        alarms: list[Alarm] = []
        if not machines:
            return alarms
        first = self._looked % len(machines)
        self._looked = first + LOOKS_MAX
        for machine in [*machines[first:], *machines[:first]][:LOOKS_MAX]:
            if machine.agent_id and machine.agent_id not in busy and machine.current:
                agent = await self._agents.get(machine.agent_id)
                if agent.state is AgentState.READY and (alarm := await self._mend(kind, machine, agent)):
                    alarms.append(alarm)
        return alarms

    async def _mend(self, kind: str, machine: Machine, agent: Agent) -> Alarm | None:
        """A server that stopped runs again; an address that changed is what its name leads to."""
        subject = f"{kind} server {machine.id}"
        try:
            seen = await self._kinds.of(kind).look(machine.id)
            if seen.state is MachineState.STOPPED:
                log.warning("the server %s of %s had stopped; it is started again", machine.id, agent.name)
                await self._making.start(machine.id, agent.name, agent.id)
            elif seen.state is MachineState.RUNNING:
                return await self._mend_address(subject, machine, agent, (seen.ipv4, seen.ipv6))
        except MachinesError as error:
            return Alarm(AlarmKind.STUCK, subject, f"The server of {agent.name} does not run: {error}", agent.id)
        return None

    async def _mend_address(self, subject: str, machine: Machine, agent: Agent, seen: tuple[str, str]) -> Alarm | None:
        """Half an address is none: a move that broke off may have brought one family of the two. Whole in one go: a
        provider may need the server off meanwhile, and what is off is started again by the next look."""
        if seen == (machine.ipv4, machine.ipv6):
            return None
        log.warning("the server %s of %s has lost its address for %s; it gets it back", machine.id, agent.name, seen)
        if complaint := await self._addressing.attach(agent, machine.id):
            return Alarm(AlarmKind.STUCK, subject, complaint, agent.id)
        known = await self._addressing.make(agent.address_id, agent.id, machine.kind, machine.location)
        await self._servers.placed(machine.id, known.ipv4, known.ipv6, machine.location)
        complaint = await self._addressing.point(agent)
        return Alarm(AlarmKind.STUCK, subject, complaint, agent.id) if complaint else None

    async def _end_replaced(self, kind: str, machine: Machine) -> list[Alarm]:
        """The other side of a move that was over, and did not end then."""
        driver = self._kinds.of(kind)
        with ending():
            await driver.delete(machine.id)
            seen = await driver.look(machine.id)
        if seen.state is MachineState.GONE:
            await self._records.forget(machine.id)
            return []
        words = "A machine that was replaced is still there; it was told to go and is looked for again."
        return [Alarm(AlarmKind.STUCK, f"{kind} server {machine.id}", words, machine.agent_id)]

    async def _release_passing(self, kind: str, known: _Known, busy: set[str]) -> None:
        used = {machine.address_id for machine in known.machines.values()}
        for address in await self._addresses.all(kind):
            if not address.passing or address.id in used or address.agent_id in busy:
                continue
            with ending():
                gone = await self._kinds.servers(kind).release(address.id)
            if gone:
                await self._addresses.forget(address.id)

    async def _price(self, billed: Sequence[Billed], known: _Known) -> None:
        """With its address, as the provider's list says today."""
        prices: dict[str, int] = {}
        for one in billed:
            if one.ours and one.kind in (BilledKind.SERVER, BilledKind.ADDRESS):
                prices[one.owner_id] = prices.get(one.owner_id, 0) + one.monthly_nanodollars
        for machine in known.machines.values():
            price = prices.get(machine.id, 0)
            if machine.address_id != machine.id:
                price += prices.get(machine.address_id, 0)
            if machine.id in prices and price != machine.monthly_nanodollars:
                await self._servers.priced(machine.id, price)

    async def _stray_names(self) -> list[Alarm]:
        alarms = []
        for known in await self._names.all():
            if not known.agent_gone:
                continue
            words = f"{known.name} leads to an agent that is gone"
            if self._clock() - known.created_at > timedelta(seconds=ORPHAN_SECONDS):
                try:
                    await self._addressing.remove_name(known.name)
                    await self._names.forget(known.name, known.agent_id)
                    log.warning("removed a name without an agent: %s", known.name)
                    continue
                except StillThere as error:
                    words = f"{words}: {error}"
            alarms.append(Alarm(AlarmKind.STRAY_NAME, f"{DNS_SCOPE} {known.name}", words, known.agent_id))
        return alarms


def _image_machine(kind: str, billed: Billed) -> ImageMachine:
    return ImageMachine(
        kind, billed.provider_id, billed.name, billed.makes, billed.created_at, billed.monthly_nanodollars
    )
