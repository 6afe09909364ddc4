"""Machines that are servers at Hetzner.

Nothing here waits for the provider: orders are given, and `look` tells. What makes every call safe to make twice:
names are made from our ids and are unique in a project; everything carries our labels; the lists are asked before
anything is made, and a server that they may not know yet is never called gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial

from hcloud import Client
from hcloud.firewalls import BoundFirewall, Firewall
from hcloud.images import Image as ApiImage
from hcloud.locations import Location
from hcloud.primary_ips import PrimaryIP as ApiPrimaryIp
from hcloud.server_types import ServerType
from hcloud.servers import Server as ApiServer
from hcloud.servers import ServerCreatePublicNetwork

from tinyfat.domain.machines import Address, Billed, Image, MachineOrder, MachineSeen, MachineState, ServerOrder
from tinyfat.drivers.hetzner_cloud import AlreadyThere, HetznerCloud, NoRoom, NotFound, OverLimit, Unreachable
from tinyfat.drivers.machines.hetzner.addresses import KINDS, Addresses
from tinyfat.drivers.machines.hetzner.bill import Bill
from tinyfat.drivers.machines.hetzner.catalogue import Catalogue
from tinyfat.drivers.machines.hetzner.choice import Offer
from tinyfat.drivers.machines.hetzner.firewalls import Firewalls
from tinyfat.drivers.machines.hetzner.fleet import LISTED_SECONDS, LISTING_SECONDS, Fleet, Foreign
from tinyfat.drivers.machines.hetzner.images import Images, Source
from tinyfat.drivers.machines.hetzner.keys import Keys, api_keys
from tinyfat.drivers.machines.hetzner.labels import Labels, server_name
from tinyfat.drivers.machines.hetzner.listing import Answers
from tinyfat.drivers.machines.hetzner.power import Power
from tinyfat.drivers.machines.hetzner.room import Room
from tinyfat.drivers.machines.hetzner.seen import PrimaryIp, Server, the_id
from tinyfat.ports.machines import MachineRefused

ACTIONS_SHOWN = 10
DOINGS_TIMES = 3.0  # as long as a list stands what a server's actions say
MEANS_TIMES = 15.0  # and as long which firewall, image and key servers are made with
USER_DATA_BYTES_MAX = 32 * 1024  # docs.hetzner.cloud, "Create a Server"


class HetznerServers:
    """Implements ports/machines Servers. `month_price` is 0 until the price list has been read once."""

    def __init__(
        self,
        cloud: HetznerCloud,
        installation: str,
        user_data: Callable[[MachineOrder], str],
        *,
        locations: Sequence[str],
        euro: Decimal,
        size: str = "",
        clock: Callable[[], float] = time.monotonic,
        listing_seconds: float = LISTING_SECONDS,
        listed_seconds: float = LISTED_SECONDS,
    ) -> None:
        """`installation` tells ours from other installations' in the same project; `locations` in the order of trying;
        `euro`: dollars for one; `size`: "" for the cheapest type that will do."""
        self._cloud, self._user_data = cloud, user_data
        self._labels = Labels(installation)
        self._labels.all_of()  # refuses an id that cannot be a label
        self._fleet = Fleet(cloud, self._labels, clock, listing_seconds, listed_seconds)
        self._power = Power(cloud, self._fleet, clock)
        self._catalogue = Catalogue(cloud, size, locations, euro, clock)
        self._firewalls = Firewalls(cloud, self._labels)
        self._keys = Keys(cloud, self._labels)
        self._addresses = Addresses(cloud, self._labels, self._fleet, self._power, clock, listing_seconds)
        self._images = Images(cloud, self._labels, self._fleet)
        self._doings = Answers(cloud, clock, listing_seconds * DOINGS_TIMES)
        self._means = Answers(cloud, clock, listing_seconds * MEANS_TIMES)
        self._room = Room(cloud)
        self._bill = Bill(cloud, self._labels, self._addresses)
        self.month_price = 0

    async def start(self, order: MachineOrder) -> None:
        """Raises MachineRefused, MachinesFull, MachinesUnreachable."""
        wanted = _server_order(order)
        firewall = await self._firewall(wanted.ssh_networks, wanted.published)
        servers = await self._fleet.of(order.id)
        if servers:
            await self._start_again(servers, wanted, firewall)
            return
        source = await self._means.get(wanted.image, lambda: self._images.source(wanted.image))
        key = await self._means.get(("key", wanted.ssh_ca), lambda: self._keys.ensure(wanted.ssh_ca))
        address = await self._address_for(wanted)
        places = await self._places(wanted, source, address)
        make = partial(self._make, order, source, key, firewall, address)
        await self._in_the_first_place(order.id, places, make)
        await self._addresses.name(address, wanted.hostname)

    async def look(self, machine_id: str) -> MachineSeen:
        try:
            servers = await self._fleet.of(machine_id)
        except Foreign as error:
            return MachineSeen(MachineState.UNKNOWN, str(error))
        if len(servers) > 1:
            names = ", ".join(f"{one.name} ({one.id})" for one in servers)
            return MachineSeen(MachineState.UNKNOWN, f"{len(servers)} servers carry this machine's label: {names}")
        if servers:
            return await self._seen(servers[0])
        if self._fleet.may_be_unlisted(machine_id):
            return MachineSeen(MachineState.UNKNOWN, "not on Hetzner's list, which may be some seconds old")
        return MachineSeen(MachineState.GONE)

    async def stop(self, machine_id: str) -> None:
        for server in await self._fleet.of(machine_id):
            await self._power.off(server)

    async def delete(self, machine_id: str) -> None:
        for server in await self._fleet.of(machine_id):
            await self._power.delete(server)
            self._fleet.deleted(machine_id)

    # The ability.

    async def room(self, location: str, size: str) -> None:
        await self._room.known_in(await self._catalogue.places(size, [location] if location else ()))

    async def address(self, address_id: str, location: str = "") -> Address:
        places = [location] if location else [one.location for one in await self._catalogue.places("", ())]
        found = await self._addresses.ensure(address_id, list(dict.fromkeys(places)))
        return await self._addresses.as_address(address_id, found)

    async def attach(self, address_id: str, machine_id: str) -> bool:
        servers = await self._fleet.of(machine_id)
        if not servers and self._fleet.may_be_unlisted(machine_id):
            return False
        if not servers:
            raise MachineRefused(f"There is no machine {machine_id} at Hetzner to give the address {address_id} to.")
        return await self._addresses.attach(address_id, servers[0])

    async def opens(self, machine_id: str, ssh_networks: Sequence[str], published: bool) -> bool:
        servers = await self._fleet.of(machine_id)
        if not servers and not self._fleet.may_be_unlisted(machine_id):
            raise MachineRefused(f"There is no machine {machine_id} at Hetzner.")
        firewall = await self._firewall(ssh_networks, published)
        wrong = [server for server in servers if server.firewalls != {firewall}]
        for server in wrong:
            await self._put_on(server, firewall)
            self._fleet.changed()
        return bool(servers) and not wrong and all(server.firewalls_applied for server in servers)

    async def release(self, address_id: str) -> bool:
        return await self._addresses.release(address_id)

    async def billed(self) -> Sequence[Billed]:
        return await self._bill.all(await self._catalogue.prices())

    async def remove(self, billed: Billed) -> None:
        await self._bill.remove(billed)
        self._fleet.changed()
        self._addresses.changed(billed.owner_id)
        self._means.clear()

    async def snapshot(self, machine_id: str, image: str) -> bool:
        return await self._images.snapshot(machine_id, image)

    async def images(self) -> Sequence[Image]:
        return await self._images.all((await self._catalogue.prices()).image_gb)

    async def remove_image(self, image: str) -> bool:
        return await self._images.remove(image)

    async def monthly_nanodollars(self, machine_id: str) -> int:
        """Raises MachinesUnreachable where the machine is not on the list yet; one that is gone costs nothing."""
        prices = await self._catalogue.prices()
        servers = await self._fleet.of(machine_id)
        if not servers and self._fleet.may_be_unlisted(machine_id):
            raise Unreachable(f"Hetzner does not list the machine {machine_id} yet.")
        price = 0
        for server in servers:
            price += prices.server(server.type, server.location)
            price += prices.address("ipv4", server.location) if server.ipv4 else 0
            price += prices.address("ipv6", server.location) if server.ipv6 else 0
        self.month_price = max(self.month_price, price)
        return price

    # How a server is made.

    async def _firewall(self, ssh_networks: Sequence[str], published: bool) -> int:
        rules = tuple(ssh_networks), published
        return await self._means.get(rules, lambda: self._firewalls.ensure(ssh_networks, published))

    async def _start_again(self, servers: Sequence[Server], wanted: ServerOrder, firewall: int) -> None:
        for server in servers:
            if server.status == "deleting":
                raise Unreachable(f"Hetzner is deleting the server {server.name}: it is made anew when that is done.")
            await self._put_on(server, firewall)
            await self._power.on(server)
        if wanted.address:
            await self._addresses.name(await self._addresses.find(wanted.address), wanted.hostname)

    async def _put_on(self, server: Server, firewall: int) -> None:
        try:
            await self._firewalls.put_on(server, firewall)
        except NotFound as error:  # the firewall went since it was looked at
            self._means.clear()
            raise Unreachable(f"{error} It is tried again.") from None

    async def _address_for(self, wanted: ServerOrder) -> dict[str, PrimaryIp]:
        """Empty: one that goes with the machine."""
        if not wanted.address:
            return {}
        found = await self._addresses.find(wanted.address)
        if not found and not self._fleet.may_be_unlisted(wanted.address):
            raise MachineRefused(f"There is no address {wanted.address} at Hetzner: it is made before its machine.")
        if len(found) < len(KINDS):
            raise Unreachable(f"Hetzner does not list the address {wanted.address} yet: the server waits for it.")
        return found

    async def _places(self, wanted: ServerOrder, source: Source, address: dict[str, PrimaryIp]) -> list[Offer]:
        """An address can be used in its own location alone."""
        locations = [one.location for one in address.values()][:1] or list(wanted.locations)
        return await self._catalogue.places(wanted.size, locations, source.architecture, source.disk_gb)

    async def _in_the_first_place(
        self, machine_id: str, places: Sequence[Offer], make: Callable[[Offer, Client], int]
    ) -> None:
        name = server_name(machine_id)
        round_ = self._room.round()
        self._fleet.ordered(machine_id)
        for place in places:
            if not await round_.asks(place):
                continue
            try:
                doing = f"make the server {name} as {place.type} in {place.location}"
                self._fleet.ordered(machine_id, await self._cloud.call(doing, partial(make, place)))
                await round_.there(place)
                return
            except (NoRoom, OverLimit) as error:
                await round_.short(place, error)
            except AlreadyThere:  # by an order whose answer was lost
                if await self._fleet.of(machine_id):
                    return
                raise Unreachable(f"The server {name} is made, and Hetzner does not list it yet.") from None
            except NotFound as error:  # the firewall, the key or the image went since they were looked at
                self._means.clear()
                raise Unreachable(f"{error} It is tried again.") from None
        self._fleet.deleted(machine_id)
        for location in {place.location for place in places}:
            self._catalogue.full(location)
        raise round_.full(name)

    def _make(
        self,
        order: MachineOrder,
        source: Source,
        key: int | None,
        firewall: int,
        address: dict[str, PrimaryIp],
        place: Offer,
        client: Client,
    ) -> int:
        wanted = _server_order(order)
        text = self._user_data(order)
        if (size := len(text.encode())) > USER_DATA_BYTES_MAX:
            raise MachineRefused(f"The user-data has {size} bytes, and Hetzner takes {USER_DATA_BYTES_MAX}.")
        net = ServerCreatePublicNetwork(_api_ip(address, "ipv4"), _api_ip(address, "ipv6"), True, True)
        made = client.servers.create(
            server_name(order.id),
            ServerType(name=place.type),
            ApiImage(id=source.id),
            ssh_keys=api_keys(key),
            firewalls=_api_firewalls(firewall),
            user_data=text,
            labels=self._labels.all_of(
                machine=order.id, agent=order.agent_name, address=wanted.address, image=wanted.makes
            ),
            location=Location(name=place.location),
            public_net=net,
        )
        return the_id(made.server.id)

    async def _seen(self, server: Server) -> MachineSeen:
        """Where it is not as it should be, with the error of what was last done to it."""
        seen = server.seen()
        if seen.state is not MachineState.UNKNOWN:
            return seen
        try:
            ask = partial(self._cloud.call, "show its actions", partial(_last_error, server.id))
            return server.seen(await self._doings.get(server.id, ask))
        except NotFound:
            self._fleet.changed()
            return seen


def _last_error(server_id: int, client: Client) -> str:
    """The newest error, and the oldest action that the others wait for."""
    newest = client.servers.get_actions_list(ApiServer(server_id), sort=["id:desc"], per_page=ACTIONS_SHOWN).actions
    failed = [f"{one.command} failed: {one.error['message']} ({one.error['code']})" for one in newest if one.error]
    running = [f"{one.command} is at {one.progress} %" for one in newest if one.status == "running"]
    return "; ".join(failed[:1] + running[-1:])


def _server_order(order: MachineOrder) -> ServerOrder:
    if order.server is None:
        raise MachineRefused(f"The order for {order.agent_name or order.id} says nothing of a server.")
    return order.server


def _api_ip(address: dict[str, PrimaryIp], kind: str) -> ApiPrimaryIp | None:
    return ApiPrimaryIp(address[kind].id) if kind in address else None


def _api_firewalls(firewall_id: int) -> list[Firewall | BoundFirewall]:
    return [Firewall(firewall_id)]
