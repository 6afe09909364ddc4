"""Servers that are entries of a dictionary, with addresses, images and a bill; and the lies about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tinyfat.domain.machines import Address, Billed, BilledKind, Image, MachineOrder, MachineSeen, MachineState
from tinyfat.drivers.machines.memory import MemoryMachines
from tinyfat.ports.machines import MachineRefused, MachinesFull, MachinesUnreachable

PRICE = 5_000_000_000  # nano-dollars a month: five dollars
ADDRESS_PRICE = 600_000_000
PREFIX = "tinyfat-"


@dataclass(slots=True)
class MemoryServers(MemoryMachines):
    """Implements ports/machines Servers."""

    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    addresses: dict[str, Address] = field(default_factory=dict)
    opened: dict[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict)  # by machine: see `opens`
    foreign: list[Billed] = field(default_factory=list)  # of this account, and not of ours
    _made_at: dict[str, datetime] = field(default_factory=dict)
    _own: dict[str, str] = field(default_factory=dict)  # of machines without an address of ours
    _images: dict[str, Image] = field(default_factory=dict)
    _next: int = 1

    async def start(self, order: MachineOrder) -> None:
        """Raises MachineRefused, MachinesUnreachable."""
        server = order.server
        if server is None:
            raise MachineRefused("An order for a server says what server.")
        known = self._machines.get(order.id)
        if known is None and server.locations and set(server.locations) <= set(self.lies.no_room_in):
            raise MachinesFull(f"There is no room left in {', '.join(server.locations)}.")
        if known is not None:  # a server once made stays as it was ordered
            order = known.order
            if not known.running and self.lies.told("ip_changes"):
                self._own[order.id] = self._fresh()
        if known is None and server.address and server.address not in self.addresses:
            raise MachineRefused(f"There is no address {server.address}.")
        self._made_at.setdefault(order.id, self.now())
        try:
            await MemoryMachines.start(self, order)
        finally:
            if known is None and order.id in self._machines and server.address:
                self._give(server.address, order.id)

    async def look(self, machine_id: str) -> MachineSeen:
        seen = await MemoryMachines.look(self, machine_id)
        if seen.state is not MachineState.RUNNING:
            return seen
        ipv4, ipv6 = self._reached_at(machine_id)
        return replace(seen, ipv4=ipv4, ipv6=ipv6)

    async def delete(self, machine_id: str) -> None:
        await MemoryMachines.delete(self, machine_id)
        if machine_id not in self._machines:
            for address in list(self.addresses.values()):
                if address.machine_id == machine_id:
                    self.addresses[address.id] = replace(address, machine_id="")

    async def room(self, location: str, size: str) -> None:
        """It is found out by ordering."""

    async def address(self, address_id: str, location: str = "") -> Address:
        self._reach()
        if location in self.lies.no_room_in:
            raise MachinesFull(f"There is no address left in {location}.")
        if address_id not in self.addresses:
            ipv4 = self._fresh()
            self.addresses[address_id] = Address(address_id, ipv4, f"2001:db8::{ipv4.rpartition('.')[2]}", "", location)
            self._made_at[address_id] = self.now()
            if self.lies.told("address_unheard"):
                raise MachinesUnreachable("504 Gateway Timeout")
        return self.addresses[address_id]

    async def attach(self, address_id: str, machine_id: str) -> bool:
        self._reach()
        if address_id not in self.addresses:
            raise MachineRefused(f"There is no address {address_id}.")
        if machine_id not in self._machines:
            raise MachineRefused(f"There is no machine {machine_id}.")
        has = self.addresses[address_id].machine_id == machine_id and machine_id not in self._own
        if has and self._machines[machine_id].running:
            return True
        if not self.lies.told("attach_nothing"):
            self._give(address_id, machine_id)
            self._machines[machine_id].running = True
        return False  # in effect from the next look on

    async def opens(self, machine_id: str, ssh_networks: Sequence[str], published: bool) -> bool:
        self._reach()
        if machine_id not in self._machines:
            raise MachineRefused(f"There is no machine {machine_id}.")
        wanted = (tuple(ssh_networks), published)
        if self.opened.get(machine_id) == wanted:
            return True
        self.opened[machine_id] = wanted
        return False  # in effect from the next look on

    async def release(self, address_id: str) -> bool:
        self._reach()
        address = self.addresses.get(address_id)
        if address is None:
            return True
        if address.machine_id in self._machines:
            return False  # a provider does not take back what a machine still uses
        if not self.lies.told("release_nothing"):
            del self.addresses[address_id]
        return False

    async def billed(self) -> Sequence[Billed]:
        self._reach()
        servers = [
            Billed(
                BilledKind.SERVER,
                f"s-{one}",
                PREFIX + one,
                True,
                one,
                self._made_at[one],
                "",
                PRICE,
                known.order.server.makes if known.order.server else "",
            )
            for one, known in self._machines.items()
        ]
        addresses = [
            Billed(BilledKind.ADDRESS, f"a-{one}", PREFIX + one, True, one, self._made_at[one], "", ADDRESS_PRICE)
            for one in self.addresses
        ]
        images = [
            Billed(BilledKind.IMAGE, f"i-{one.name}", one.name, True, "", one.created_at, "", 0)
            for one in self._images.values()
        ]
        return [*servers, *addresses, *images, *self.foreign]

    async def remove(self, billed: Billed) -> None:
        self._reach()
        if not billed.ours:
            raise MachineRefused(f"{billed.kind} {billed.name} is not ours.")
        match billed.kind:
            case BilledKind.SERVER:
                await self.delete(billed.owner_id)
            case BilledKind.ADDRESS:
                await self.release(billed.owner_id)
            case BilledKind.IMAGE:
                self._images.pop(billed.name, None)
            case _:
                raise MachineRefused(f"There is no {billed.kind} here.")

    async def snapshot(self, machine_id: str, image: str) -> bool:
        self._reach()
        known = self._machines.get(machine_id)
        if known is None or known.running:
            raise MachineRefused(f"Only a stopped machine makes an image; {machine_id} is none.")
        self._images.setdefault(image, Image(image, self.now(), 2**30))
        return True

    async def images(self) -> Sequence[Image]:
        self._reach()
        return sorted(self._images.values(), key=lambda image: image.created_at, reverse=True)

    async def remove_image(self, image: str) -> bool:
        self._reach()
        self._images.pop(image, None)
        return True

    async def monthly_nanodollars(self, machine_id: str) -> int:
        self._reach()
        return PRICE + ADDRESS_PRICE

    def _reached_at(self, machine_id: str) -> tuple[str, str]:
        for address in self.addresses.values():
            if address.machine_id == machine_id and machine_id not in self._own:
                return address.ipv4, address.ipv6
        return self._own.setdefault(machine_id, self._fresh()), ""

    def _give(self, address_id: str, machine_id: str) -> None:
        for address in list(self.addresses.values()):
            if address.machine_id == machine_id:
                self.addresses[address.id] = replace(address, machine_id="")
        self.addresses[address_id] = replace(self.addresses[address_id], machine_id=machine_id)
        self._own.pop(machine_id, None)

    def _fresh(self) -> str:
        self._next += 1
        return f"192.0.2.{self._next % 250 + 1}"
