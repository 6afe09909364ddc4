"""Primary IPs, two to an address of ours: made before any server, kept after it, moved from one to the next.

A Primary IP can be given away or taken only while the server that has it, or gets it, is off (docs.hetzner.cloud,
"Primary IPs"). So a move is many small ones, each safe to make twice; `attach` makes those that can be made now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from hcloud import Client
from hcloud.locations import Location
from hcloud.primary_ips import PrimaryIP as ApiPrimaryIp

from tinyfat.domain.machines import Address, MachineState
from tinyfat.drivers.hetzner_cloud import AlreadyThere, Busy, HetznerCloud, NoRoom, NotFound
from tinyfat.drivers.machines.hetzner.fleet import LOOKED_FOR_TIMES, Fleet
from tinyfat.drivers.machines.hetzner.labels import ADDRESS, MACHINE, PASSING, Labels, address_name
from tinyfat.drivers.machines.hetzner.listing import Answers, Listing
from tinyfat.drivers.machines.hetzner.power import Power
from tinyfat.drivers.machines.hetzner.seen import PrimaryIp, Server, primary_ip_of
from tinyfat.ports.machines import MachineRefused, MachinesFull

KINDS = ("ipv4", "ipv6")


class Addresses:
    def __init__(
        self,
        cloud: HetznerCloud,
        labels: Labels,
        fleet: Fleet,
        power: Power,
        clock: Callable[[], float],
        listing_seconds: float,
    ) -> None:
        self._cloud, self._labels, self._fleet, self._power = cloud, labels, fleet, power
        self._listing = Listing(cloud, "list its addresses", partial(_list, labels.selector()), clock, listing_seconds)
        self._answers = Answers(cloud, clock, listing_seconds * LOOKED_FOR_TIMES)

    async def find(self, address_id: str) -> dict[str, PrimaryIp]:
        """By kind. Raises MachineRefused where a stranger's has the name."""
        found = {one.kind: one for one in await self._listed(ADDRESS, address_id)}
        for kind in KINDS:
            if kind not in found and (one := await self._sought(address_id, kind)):
                found[kind] = one
        return found

    async def _sought(self, address_id: str, kind: str) -> PrimaryIp | None:
        return await self._answers.get((address_id, kind), lambda: self._by_name(address_id, kind))

    def changed(self, address_id: str = "") -> None:
        """Something was asked for: what was read before says nothing about it."""
        self._listing.changed()
        for kind in KINDS:
            self._answers.forget((address_id, kind))

    async def ensure(self, address_id: str, locations: Sequence[str]) -> dict[str, PrimaryIp]:
        """Both of them, in the first location that has them left; fewer where the lists do not know them yet. Raises
        MachinesFull where none is left."""
        found = await self.find(address_id)
        if len(found) == len(KINDS):
            return found
        places = [one.location for one in found.values()][:1] or list(locations)
        for place in places:
            try:
                for kind in KINDS:
                    if kind not in found and (one := await self._make(address_id, kind, place)):
                        found[kind] = one
                return found
            except NoRoom:
                continue
        raise MachinesFull(f"Hetzner has no address left in {', '.join(places)}.")

    async def as_address(self, address_id: str, found: dict[str, PrimaryIp]) -> Address:
        if len(found) < len(KINDS):
            return Address(address_id)
        v4, v6 = found["ipv4"], found["ipv6"]
        server = await self._fleet.with_id(v4.server_id) if v4.server_id else None
        machine_id = server.labels.get(MACHINE, "") if server else ""
        return Address(address_id, v4.ip, v6.ip, machine_id, v4.location)

    async def name(self, found: dict[str, PrimaryIp], hostname: str) -> None:
        """The name that its addresses are asked back for (reverse DNS). Where something else is being done to one,
        the next order sets it."""
        for one in found.values():
            if one.reverse.get(one.ip) != hostname:
                ask = partial(_reverse, one.id, one.ip, hostname)
                with suppress(Busy):
                    await self._cloud.call(f"set the reverse name of {one.ip}", ask)
                    self.changed()

    async def attach(self, address_id: str, server: Server) -> bool:
        found = await self.find(address_id)
        if len(found) < len(KINDS) and self._fleet.may_be_unlisted(address_id):
            return False
        if len(found) < len(KINDS):
            raise MachineRefused(f"There is no address {address_id} at Hetzner to give to {server.name}.")
        if found["ipv4"].location != server.location:
            raise MachineRefused(
                f"The address {found['ipv4'].ip} is in {found['ipv4'].location} and cannot be given to {server.name} "
                f"in {server.location}: order the machine where its address is."
            )
        try:
            return await self._move(found, server)
        except (Busy, NotFound, AlreadyThere):  # something is still under way: look again
            return False

    async def release(self, address_id: str) -> bool:
        """One that a server has stays: it goes after the server."""
        found = await self.find(address_id)
        for one in found.values():
            with suppress(Busy, NotFound):
                await self._drop(one)
        return not found and not self._fleet.may_be_unlisted(address_id)

    async def remove(self, ip_id: int) -> None:
        with suppress(NotFound):
            one = await self._cloud.call("show an address", partial(_by_id, ip_id))
            await self._drop(one)

    # The moves.

    async def _move(self, found: dict[str, PrimaryIp], server: Server) -> bool:
        away = [one for one in found.values() if one.server_id != server.id]
        if not away:
            return await self._run(server)
        if not await self._off(server):
            return False
        if not await self._taken_from_others(away):
            return False
        mine = {one.id for one in found.values()}
        others = [one for one in await self._of_server(server) if one.id not in mine]
        for one in others:
            await self._unassign_passing(one, server)
        if others:
            return False
        for one in away:
            await self._cloud.call(f"give {one.ip} to {server.name}", partial(_assign, one.id, server.id))
        self._fleet.changed()
        self.changed()
        return False

    async def _run(self, server: Server) -> bool:
        if server.status != "running":
            await self._power.on(server)
            return False
        machine_id = server.labels[MACHINE]
        for one in await self._listed(PASSING, machine_id):
            await self._drop(one)
        return True

    async def _off(self, server: Server) -> bool:
        if server.seen().state is MachineState.STOPPED:
            return True
        await self._power.off(server)
        return False

    async def _taken_from_others(self, ips: Sequence[PrimaryIp]) -> bool:
        """From whoever has them: only machines of ours are switched off for it."""
        free = True
        for one in ips:
            if one.server_id is None:
                continue
            free = False
            holder = await self._fleet.with_id(one.server_id)
            if holder is None:
                continue  # it is being deleted
            if not self._labels.ours(holder.labels):
                raise MachineRefused(f"{one.ip} is with the server {holder.name}, which is not ours: take it away.")
            if await self._off(holder):
                await self._unassign(one)
        return free

    async def _of_server(self, server: Server) -> list[PrimaryIp]:
        return [await self._cloud.call("show an address", partial(_by_id, one)) for one in server.ip_ids]

    async def _unassign_passing(self, one: PrimaryIp, server: Server) -> None:
        """What came with the server gets our labels first, so that it is not forgotten, nor paid for, afterwards."""
        if one.auto_delete and not self._labels.ours(one.labels):
            labels = self._labels.all_of() | {PASSING: server.labels[MACHINE]}
            await self._cloud.call(f"label {one.ip}", partial(_label, one.id, labels))
            self.changed()
        await self._unassign(one)

    async def _unassign(self, one: PrimaryIp) -> None:
        await self._cloud.call(f"take {one.ip} away", partial(_unassign, one.id))
        self._fleet.changed()
        self.changed()

    async def _drop(self, one: PrimaryIp) -> None:
        if one.server_id is None:
            try:
                await self._cloud.call(f"let {one.ip} go", partial(_delete, one.id))
            finally:
                self.changed(one.labels.get(ADDRESS, ""))

    # Finding and making.

    async def _listed(self, label: str, value: str) -> list[PrimaryIp]:
        return [one for one in await self._listing.all() if one.labels.get(label) == value]

    async def _by_name(self, address_id: str, kind: str) -> PrimaryIp | None:
        name = address_name(address_id, kind)
        one = await self._cloud.call(f"look for {name}", partial(_named, name))
        if one is not None and not self._labels.ours(one.labels):
            raise MachineRefused(f"At Hetzner an address has the name {name} and not our labels: rename or delete it.")
        return one

    async def _make(self, address_id: str, kind: str, location: str) -> PrimaryIp | None:
        """None: it is there, and no list knows it yet."""
        name = address_name(address_id, kind)
        self._fleet.ordered(address_id)
        self.changed(address_id)
        labels = self._labels.all_of(address=address_id)
        try:
            return await self._cloud.call(f"make {name} in {location}", partial(_create, kind, name, location, labels))
        except AlreadyThere:
            return await self._by_name(address_id, kind)


# What the threads do.


def _list(selector: str, client: Client) -> list[PrimaryIp]:
    return [primary_ip_of(one) for one in client.primary_ips.get_all(label_selector=selector)]


def _named(name: str, client: Client) -> PrimaryIp | None:
    one = client.primary_ips.get_by_name(name)
    return primary_ip_of(one) if one else None


def _by_id(ip_id: int, client: Client) -> PrimaryIp:
    return primary_ip_of(client.primary_ips.get_by_id(ip_id))


def _create(kind: str, name: str, location: str, labels: dict[str, str], client: Client) -> PrimaryIp:
    made = client.primary_ips.create(
        kind, name, Location(name=location), assignee_type="server", auto_delete=False, labels=labels
    )
    return primary_ip_of(made.primary_ip)


def _label(ip_id: int, labels: dict[str, str], client: Client) -> None:
    client.primary_ips.update(ApiPrimaryIp(ip_id), auto_delete=False, labels=labels)


def _assign(ip_id: int, server_id: int, client: Client) -> None:
    client.primary_ips.assign(ApiPrimaryIp(ip_id), server_id, "server")


def _unassign(ip_id: int, client: Client) -> None:
    client.primary_ips.unassign(ApiPrimaryIp(ip_id))


def _reverse(ip_id: int, ip: str, hostname: str, client: Client) -> None:
    client.primary_ips.change_dns_ptr(ApiPrimaryIp(ip_id), ip, hostname)


def _delete(ip_id: int, client: Client) -> None:
    client.primary_ips.delete(ApiPrimaryIp(ip_id))
