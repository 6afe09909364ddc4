"""What the host does for an action. It takes as long as it takes; the action waits for it."""

from __future__ import annotations

import asyncio

from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts.machine_host import HostAddress, HostOrder
from tinyfat.standins.hetzner import catalogue
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import PrimaryIp, Server

STOP_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.2
GIB = 1024**3


async def address_of(cloud: Cloud, ipv4: int | None, ipv6: int | None) -> HostAddress | None:
    """Of a server with these Primary IPs. A host leases pairs: where one Primary IP is missing, its machine has the
    other's twin, of which the API does not speak. A host without IPv6 is given none."""
    four, six = cloud.primary_ips.get(ipv4 or 0), cloud.primary_ips.get(ipv6 or 0)
    either = four or six
    if either is None:
        return None
    twin = await cloud.machines.lease(either.lease)
    return HostAddress(four.ip if four else twin.ipv4, ipv6_of(six) if six and twin.ipv6 else twin.ipv6)


def ipv6_of(address: PrimaryIp) -> str:
    """The one address of a Primary IPv6's network that the machine has: the first after the network's own."""
    network, _, bits = address.ip.partition("/")
    return network if bits == "128" else f"{network}1"


async def order_for(cloud: Cloud, server: Server) -> HostOrder:
    kind = catalogue.server_type(server.type)
    assert kind is not None
    memory = kind.memory_gb * GIB
    return HostOrder(
        name=cloud.machine_name(server.id),
        image=await _host_image(cloud, server.image),
        user_data=server.user_data,
        hostname=server.name,
        memory_bytes=min(memory, cloud.options.memory_bytes_max or memory),
        address=await address_of(cloud, server.ipv4, server.ipv6),
        labels={"server": str(server.id)},
    )


async def _host_image(cloud: Cloud, image_id: int | None) -> str:
    """A snapshot's own; for debian-12 the host's newest that is called so or begins so, as debian-12-1a2b3c4d."""
    if image_id in cloud.images:
        return cloud.image_name(image_id)
    own = next((each.name for each in catalogue.SYSTEM_IMAGES if each.id == image_id), "")
    there = [image.name for image in await cloud.machines.images() if f"{image.name}-".startswith(f"{own}-")]
    return cloud.options.host_image or next(iter(there), own)


async def create(cloud: Cloud, order: HostOrder, start: bool) -> None:
    await cloud.machines.create(order)
    if not start:
        await power_off(cloud, order.name)


async def start(cloud: Cloud, name: str) -> None:
    await cloud.machines.start(name)


async def power_off(cloud: Cloud, name: str) -> None:
    await cloud.machines.stop(name, force=True)
    await _until(cloud, name, MachineState.STOPPED)


async def shut_down(cloud: Cloud, name: str) -> None:
    """Ask it to: whether it does is not the action's business."""
    await cloud.machines.stop(name)


async def reset(cloud: Cloud, name: str) -> None:
    await power_off(cloud, name)
    await start(cloud, name)


async def restart_elsewhere(cloud: Cloud, name: str, address: HostAddress | None) -> None:
    await power_off(cloud, name)
    await cloud.machines.set_address(name, address)
    await start(cloud, name)


async def rebuild(cloud: Cloud, order: HostOrder) -> None:
    await destroy(cloud, order.name, [])
    await cloud.machines.create(order)


async def destroy(cloud: Cloud, name: str, leases: list[str]) -> None:
    await cloud.machines.destroy(name)
    await _until(cloud, name, MachineState.GONE)
    for lease in leases:
        await cloud.machines.release(lease)


async def take_image(cloud: Cloud, name: str, image: str) -> int:
    """How many bytes it has."""
    await cloud.machines.snapshot(name, image)
    return next((each.bytes for each in await cloud.machines.images() if each.name == image), 0)


async def _until(cloud: Cloud, name: str, wanted: MachineState) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(STOP_SECONDS_MAX):
        while (await cloud.machines.look(name)).state not in (wanted, MachineState.GONE):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
