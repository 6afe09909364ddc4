"""Snapshots: images with our name in a label, for the API gives theirs no name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from hcloud import Client
from hcloud.images import BoundImage
from hcloud.images import Image as ApiImage
from hcloud.servers import Server as ApiServer

from tinyfat.domain.machines import Image, MachineState
from tinyfat.drivers.hetzner_cloud import Busy, HetznerCloud, NotFound
from tinyfat.drivers.machines.hetzner.choice import ARCHITECTURE
from tinyfat.drivers.machines.hetzner.fleet import Fleet
from tinyfat.drivers.machines.hetzner.labels import IMAGE, Labels
from tinyfat.drivers.machines.hetzner.seen import EPOCH, the_id
from tinyfat.ports.machines import MachineRefused

PLAIN = "debian-12"
BYTES_PER_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """What a server is made from."""

    id: int
    architecture: str
    disk_gb: float


@dataclass(frozen=True, slots=True)
class _Snapshot:
    id: int
    name: str
    available: bool
    image: Image
    source: Source


class Images:
    def __init__(self, cloud: HetznerCloud, labels: Labels, fleet: Fleet) -> None:
        self._cloud, self._labels, self._fleet = cloud, labels, fleet

    async def source(self, name: str) -> Source:
        """No name: plain Debian. Raises MachineRefused where there is none of this name."""
        if name == "":
            return await self._cloud.call(f"find the image {PLAIN}", _plain)
        ready = [one for one in await self._snapshots(name) if one.available]
        if not ready:
            raise MachineRefused(f"At Hetzner there is no image {name}: see `tinyfat image list`.")
        return ready[0].source

    async def snapshot(self, machine_id: str, name: str) -> bool:
        if known := await self._snapshots(name):
            return any(one.available for one in known)
        servers = await self._fleet.of(machine_id)
        if not servers:
            raise MachineRefused(f"There is no machine {machine_id} at Hetzner to make the image {name} of.")
        if servers[0].seen().state is not MachineState.STOPPED:
            raise MachineRefused(f"The machine {machine_id} is {servers[0].status}: it is stopped before it is copied.")
        labels = self._labels.all_of(image=name)
        with suppress(Busy):  # it is being copied already
            await self._cloud.call(
                f"make the image {name}",
                lambda client: client.servers.create_image(
                    ApiServer(servers[0].id), description=name, type="snapshot", labels=labels
                ),
            )
        return False

    async def all(self, price_gb: int) -> Sequence[Image]:
        """The newest first; two copies of one name count once. `price_gb`: nano-dollars a month."""
        found: dict[str, Image] = {}
        for one in await self._snapshots():
            if one.available:
                size = one.image.bytes / BYTES_PER_GB
                found.setdefault(
                    one.name, Image(one.name, one.image.created_at, one.image.bytes, round(size * price_gb))
                )
        return list(found.values())

    async def remove(self, name: str) -> bool:
        known = await self._snapshots(name)
        for one in known:
            with suppress(NotFound, Busy):
                await self._cloud.call(f"remove the image {name}", partial(_delete, one.id))
        return not known

    async def _snapshots(self, name: str = "") -> list[_Snapshot]:
        selector = self._labels.selector(IMAGE if name else "", name)
        found = await self._cloud.call("list its images", lambda client: _read(client, selector))
        return sorted(found, key=lambda one: one.image.created_at, reverse=True)


def _read(client: Client, selector: str) -> list[_Snapshot]:
    return [
        _snapshot(one)
        for one in client.images.get_all(type=["snapshot"], label_selector=selector)
        if one.status in ("available", "creating")
    ]


def _delete(image_id: int, client: Client) -> None:
    client.images.delete(ApiImage(image_id))


def _snapshot(bound: BoundImage) -> _Snapshot:
    name = (bound.labels or {}).get(IMAGE, "")
    gigabytes = float(bound.image_size or 0)
    image = Image(name, bound.created or EPOCH, round(gigabytes * BYTES_PER_GB))
    return _Snapshot(the_id(bound.id), name, bound.status == "available", image, _source(bound))


def _source(bound: BoundImage) -> Source:
    return Source(the_id(bound.id), bound.architecture or ARCHITECTURE, float(bound.disk_size or 0))


def _plain(client: Client) -> Source:
    found = client.images.get_by_name_and_architecture(PLAIN, ARCHITECTURE, include_deprecated=True)
    if found is None:
        raise MachineRefused(f"Hetzner has no image {PLAIN} for {ARCHITECTURE} any more.")
    return _source(found)
