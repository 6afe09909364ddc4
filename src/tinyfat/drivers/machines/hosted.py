"""Servers that a machine host of this very computer makes: thin over machine_hosts, for every kind of it.

It keeps nothing in mind that matters: machines, addresses and images are found on disk by whoever looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from tinyfat.domain.machines import Address, Billed, BilledKind, Image, MachineOrder, MachineSeen, MachineState
from tinyfat.machine_hosts.machine_host import (
    HostAddress,
    HostFailed,
    HostFull,
    HostMachine,
    HostOrder,
    HostRefused,
    MachineHost,
)
from tinyfat.machine_hosts.rootfs import BASE_PREFIX
from tinyfat.ports.machines import MachineRefused, MachinesFull, MachinesUnreachable

FORCE_SECONDS = 30.0  # asked to stop this long ago and still running: its power is cut
MEMORY_BYTES = 4 * 1024**3
INSTALLATION = "installation"  # the label that makes a machine ours
_ADDRESS = "address/"  # of the names of leases
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class HostedServers:
    """Implements ports/machines Servers."""

    def __init__(
        self,
        host: MachineHost,
        installation: str,
        user_data: Callable[[MachineOrder], str],
        monotonic: Callable[[], float],
        *,
        plain_image: str,
        memory_bytes: int = MEMORY_BYTES,
        month_price: int = 0,
    ) -> None:
        """`installation` tells ours from another's; `plain_image`: what an order without an image is made from;
        `month_price`: nano-dollars that one machine is said to cost."""
        self._host, self._installation, self._user_data, self._monotonic = host, installation, user_data, monotonic
        self._plain_image, self._memory_bytes = plain_image, memory_bytes
        self.month_price = month_price
        self._asked_to_stop: dict[str, float] = {}

    async def start(self, order: MachineOrder) -> None:
        """A machine once made stays as it was ordered. Raises MachineRefused, MachinesFull, MachinesUnreachable."""
        server = order.server
        if server is None:
            raise MachineRefused(f"The order of machine {order.id} does not say what server it is to be.")
        with _told(order.id):
            self._asked_to_stop.pop(order.id, None)
            if (await self._host.look(order.id)).created_at is not None:
                await self._host.start(order.id)
                return
            address = await self._leased(server.address) if server.address else None
            image, labels = server.image or self._plain_image, {INSTALLATION: self._installation}
            text = self._user_data(order)
            published = server.published
            await self._host.create(
                HostOrder(order.id, image, text, server.hostname, self._memory_bytes, address, labels, published)
            )

    async def look(self, machine_id: str) -> MachineSeen:
        with _told(machine_id):
            seen = await self._host.look(machine_id)
        if seen.state is MachineState.GONE:
            self._asked_to_stop.pop(machine_id, None)
        address = seen.address or HostAddress("")
        return MachineSeen(seen.state, seen.detail, address.ipv4, address.ipv6)

    async def stop(self, machine_id: str) -> None:
        """As with the power button; when that was FORCE_SECONDS ago, the power is cut."""
        with _told(machine_id):
            if (await self._host.look(machine_id)).state is not MachineState.GONE:
                first = self._asked_to_stop.setdefault(machine_id, self._monotonic())
                await self._host.stop(machine_id, force=self._monotonic() - first > FORCE_SECONDS)

    async def delete(self, machine_id: str) -> None:
        with _told(machine_id):
            await self._host.destroy(machine_id)

    # The ability.

    async def room(self, location: str, size: str) -> None:
        """It is found out by ordering."""

    async def address(self, address_id: str, location: str = "") -> Address:
        with _told(address_id):
            given = await self._host.lease(_ADDRESS + address_id)
            holders = await self._holders(given)
        return Address(address_id, given.ipv4, given.ipv6, holders[0].name if holders else "")

    async def attach(self, address_id: str, machine_id: str) -> bool:
        with _told(machine_id):
            address = await self._leased(address_id)
            machine = await self._host.look(machine_id)
            if machine.state is MachineState.GONE:
                raise MachineRefused(f"There is no machine {machine_id} to give the address {address_id} to.")
            for other in await self._holders(address):
                if other.name != machine_id and not await self._readdress(other, None):
                    return False
            if machine.address != address and not await self._readdress(machine, address):
                return False
            if machine.state is not MachineState.RUNNING:
                self._asked_to_stop.pop(machine_id, None)
                await self._host.start(machine_id)
            return (await self._host.look(machine_id)).state is MachineState.RUNNING

    async def opens(self, machine_id: str, ssh_networks: Sequence[str], published: bool) -> bool:
        """Where SSH may come from is for the machine's own firewall alone."""
        with _told(machine_id):
            await self._host.let_in(machine_id, published)
        return True

    async def release(self, address_id: str) -> bool:
        with _told(address_id):
            given = (await self._host.leases()).get(_ADDRESS + address_id)
            if given is not None and await self._holders(given):
                return False  # what a machine uses is not taken from it
            await self._host.release(_ADDRESS + address_id)
            return True

    async def billed(self) -> Sequence[Billed]:
        with _told("all"):
            machines, leases, images = await self._host.machines(), await self._host.leases(), await self.images()
        servers = [
            Billed(
                BilledKind.SERVER, one.name, one.name, one.labels.get(INSTALLATION) == self._installation, one.name,
                one.created_at or _BEGINNING, str(one.state), self.month_price,
            )
            for one in machines
        ]  # fmt: skip
        addresses = [
            Billed(
                BilledKind.ADDRESS, name, given.ipv4, True, name.removeprefix(_ADDRESS), given.leased_at or _BEGINNING
            )
            for name, given in leases.items()
            if name.startswith(_ADDRESS)
        ]
        kept = [Billed(BilledKind.IMAGE, image.name, image.name, True, "", image.created_at) for image in images]
        return [*servers, *addresses, *kept]

    async def remove(self, billed: Billed) -> None:
        if not billed.ours:
            raise MachineRefused(f"{billed.kind} {billed.name} is not of this installation: it stays.")
        if billed.kind is BilledKind.SERVER:
            await self.delete(billed.provider_id)
        elif billed.kind is BilledKind.ADDRESS:
            await self.release(billed.owner_id)
        elif billed.kind is BilledKind.IMAGE:
            await self.remove_image(billed.provider_id)
        else:
            raise MachineRefused(f"There is no {billed.kind} on this host.")

    async def snapshot(self, machine_id: str, image: str) -> bool:
        with _told(machine_id):
            await self._host.snapshot(machine_id, image)
        return True

    async def images(self) -> Sequence[Image]:
        with _told("images"):
            found = await self._host.images()
        return [Image(one.name, one.created_at, one.bytes) for one in found if not one.name.startswith(BASE_PREFIX)]

    async def remove_image(self, image: str) -> bool:
        with _told(image):
            await self._host.remove_image(image)
        return True

    async def monthly_nanodollars(self, machine_id: str) -> int:
        return self.month_price

    async def _leased(self, address_id: str) -> HostAddress:
        given = (await self._host.leases()).get(_ADDRESS + address_id)
        if given is None:
            raise MachineRefused(f"There is no address {address_id} on this host: it is made before its machine.")
        return given

    async def _holders(self, address: HostAddress) -> list[HostMachine]:
        return [one for one in await self._host.machines() if one.address == address]

    async def _readdress(self, machine: HostMachine, address: HostAddress | None) -> bool:
        """False: not yet, it must stop first."""
        if machine.state is MachineState.STOPPED or self._host.moves_addresses_live:
            await self._host.set_address(machine.name, address)
            return True
        await self.stop(machine.name)
        return False


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The host's errors in the words of the port."""
    try:
        yield
    except HostFull as error:
        raise MachinesFull(f"{what}: {error}") from error
    except HostRefused as error:
        raise MachineRefused(f"{what}: {error}") from error
    except (HostFailed, OSError) as error:
        raise MachinesUnreachable(f"{what}: {error}") from error
