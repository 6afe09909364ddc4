"""Everything on the provider's list: what is paid for, whose it is, and its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from hcloud import Client
from hcloud.firewalls import Firewall
from hcloud.images import Image as ApiImage
from hcloud.servers import Server as ApiServer
from hcloud.ssh_keys import SSHKey
from hcloud.volumes import Volume

from tinyfat.domain.machines import Billed, BilledKind
from tinyfat.drivers.hetzner_cloud import HetznerCloud, NotFound
from tinyfat.drivers.machines.hetzner.addresses import Addresses
from tinyfat.drivers.machines.hetzner.labels import ADDRESS, IMAGE, MACHINE, PASSING, Labels
from tinyfat.drivers.machines.hetzner.prices import Prices
from tinyfat.drivers.machines.hetzner.seen import EPOCH, PrimaryIp, Server, primary_ip_of, server_of, the_id
from tinyfat.ports.machines import MachineRefused

_COLLECTIONS = {
    BilledKind.SERVER: "servers",
    BilledKind.ADDRESS: "primary_ips",
    BilledKind.IMAGE: "images",
    BilledKind.FIREWALL: "firewalls",
    BilledKind.SSH_KEY: "ssh_keys",
    BilledKind.VOLUME: "volumes",
}


class Bill:
    def __init__(self, cloud: HetznerCloud, labels: Labels, addresses: Addresses) -> None:
        self._cloud, self._labels, self._addresses = cloud, labels, addresses

    async def all(self, prices: Prices) -> list[Billed]:
        servers = await self._cloud.call("list all servers", _servers)
        ips = await self._cloud.call("list all addresses", _ips)
        ours = {server.id: server for server in servers if self._labels.ours(server.labels)}
        found = [self._server(server, ips, prices) for server in servers]
        found += [self._address(ip, prices) for ip in ips if not _part_of(ip, ours)]
        for read in (_images, _firewalls, _ssh_keys, _volumes):
            found += [self._other(kind, one, ours, prices) for kind, one in await self._cloud.call("list all", read)]
        return found

    async def remove(self, billed: Billed) -> None:
        """It is looked at again first: labels may have changed since `all`."""
        kind, one_id = billed.kind, int(billed.provider_id)
        with suppress(NotFound):
            labels = await self._cloud.call(f"show the {kind} {billed.name}", partial(_labels_of, kind, one_id))
            if not billed.ours or not self._labels.ours(labels):
                raise MachineRefused(
                    f"The {kind} {billed.name} ({one_id}) at Hetzner is not labelled ours: it is left alone."
                )
            if kind is BilledKind.ADDRESS:
                await self._addresses.remove(one_id)
            else:
                await self._cloud.call(f"remove the {kind} {billed.name}", partial(_remove, kind, one_id))

    def _server(self, server: Server, ips: list[PrimaryIp], prices: Prices) -> Billed:
        parts = [ip for ip in ips if _part_of(ip, {server.id: server})]
        price = prices.server(server.type, server.location)
        price += sum(prices.address(ip.kind, ip.location) for ip in parts)
        billed = self._billed(BilledKind.SERVER, server, server.labels.get(MACHINE, ""), server.status, price)
        return replace(billed, makes=server.labels.get(IMAGE, "")) if billed.ours else billed

    def _address(self, ip: PrimaryIp, prices: Prices) -> Billed:
        owner = ip.labels.get(ADDRESS) or ip.labels.get(PASSING, "")
        detail = f"{ip.ip} with {ip.server_id}" if ip.server_id else f"{ip.ip} free"
        return self._billed(BilledKind.ADDRESS, ip, owner, detail, prices.address(ip.kind, ip.location))

    def _other(self, kind: BilledKind, one: Any, ours: Mapping[int, Server], prices: Prices) -> Billed:
        """A firewall and the SSH key serve many machines: their owner is any that is left."""
        labels = one["labels"]
        owner = labels.get(MACHINE) or labels.get(IMAGE, "")
        users = ours.values() if kind is BilledKind.SSH_KEY else [ours[n] for n in one["used_by"] if n in ours]
        if not owner and self._labels.ours(labels):
            owner = next((server.labels.get(MACHINE, "") for server in users), "")
        price = {BilledKind.IMAGE: prices.image_gb, BilledKind.VOLUME: prices.volume_gb}.get(kind, 0)
        return Billed(
            kind,
            str(one["id"]),
            one["name"],
            self._labels.ours(labels),
            owner if self._labels.ours(labels) else "",
            one["created"],
            one["detail"],
            round(price * one["gigabytes"]),
        )

    def _billed(self, kind: BilledKind, one: Server | PrimaryIp, owner: str, detail: str, price: int) -> Billed:
        ours = self._labels.ours(one.labels)
        return Billed(kind, str(one.id), one.name, ours, owner if ours else "", one.created, detail, price)


def _part_of(ip: PrimaryIp, servers: Mapping[int, Server]) -> bool:
    """It came with one of these servers and goes with it: no thing of its own."""
    return ip.auto_delete and ip.server_id in servers and not ip.labels


# What the threads do.


def _servers(client: Client) -> list[Server]:
    return [server_of(one) for one in client.servers.get_all()]


def _ips(client: Client) -> list[PrimaryIp]:
    return [primary_ip_of(one) for one in client.primary_ips.get_all()]


def _thing(
    one: Any, name: str, created: datetime | None, detail: str = "", gigabytes: float = 0, used_by: tuple[int, ...] = ()
) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": name,
        "labels": dict(one.labels or {}),
        "created": created or EPOCH,
        "detail": detail,
        "gigabytes": gigabytes,
        "used_by": used_by,
    }


def _images(client: Client) -> Iterator[tuple[BilledKind, dict[str, Any]]]:
    """Snapshots and backups: the provider's own images cost nothing."""
    found = client.images.get_all(type=["snapshot", "backup"])
    return iter(
        [
            (
                BilledKind.IMAGE,
                _thing(
                    one,
                    (one.labels or {}).get(IMAGE) or one.description or "",
                    one.created,
                    one.status or "",
                    float(one.image_size or 0),
                ),
            )
            for one in found
        ]
    )


def _firewalls(client: Client) -> Iterator[tuple[BilledKind, dict[str, Any]]]:
    found = []
    for one in client.firewalls.get_all():
        used_by = tuple(the_id(resource.server.id) for resource in one.applied_to or [] if resource.server)
        found.append((BilledKind.FIREWALL, _thing(one, one.name or "", one.created, f"on {len(used_by)}", 0, used_by)))
    return iter(found)


def _ssh_keys(client: Client) -> Iterator[tuple[BilledKind, dict[str, Any]]]:
    return iter([(BilledKind.SSH_KEY, _thing(one, one.name or "", one.created)) for one in client.ssh_keys.get_all()])


def _volumes(client: Client) -> Iterator[tuple[BilledKind, dict[str, Any]]]:
    found = []
    for one in client.volumes.get_all():
        used_by = (the_id(one.server.id),) if one.server else ()
        thing = _thing(one, one.name or "", one.created, one.status or "", float(one.size or 0), used_by)
        found.append((BilledKind.VOLUME, thing))
    return iter(found)


def _labels_of(kind: BilledKind, one_id: int, client: Client) -> dict[str, str]:
    bound: Any = getattr(client, _COLLECTIONS[kind]).get_by_id(one_id)
    return dict(bound.labels or {})


def _remove(kind: BilledKind, one_id: int, client: Client) -> None:
    match kind:
        case BilledKind.SERVER:
            client.servers.delete(ApiServer(one_id))
        case BilledKind.IMAGE:
            client.images.delete(ApiImage(one_id))
        case BilledKind.FIREWALL:
            client.firewalls.delete(Firewall(one_id))
        case BilledKind.SSH_KEY:
            client.ssh_keys.delete(SSHKey(id=one_id))
        case BilledKind.VOLUME:
            if client.volumes.get_by_id(one_id).server is not None:
                client.volumes.detach(Volume(one_id))  # it is deleted when `remove` is called again
            else:
                client.volumes.delete(Volume(one_id))
