"""What is done to a server that is there: power, address names, snapshots, rebuilding, protection."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine
from typing import Any

from tinyfat.standins.hetzner import addresses, errors, images, machine_work
from tinyfat.standins.hetzner.actions import begin, effect
from tinyfat.standins.hetzner.calls import Answer, ApiRoute, Call, acted, find, protection, take, take_labels
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.machine_work import address_of
from tinyfat.standins.hetzner.resources import Action, PrimaryIp, Server
from tinyfat.standins.hetzner.servers import SERVERS
from tinyfat.standins.hetzner.views import action_wire, snapshot_wire
from tinyfat.standins.lies import LieName

GIB = 1024**3


def _unlocked(call: Call) -> Server:
    server: Server = find(call, SERVERS)
    return addresses.unlocked(call.cloud, server)


async def power_on(call: Call) -> Answer:
    server = _unlocked(call)
    if server.ipv4 is None and server.ipv6 is None:
        raise errors.refused("unsupported_error", "A server needs a network interface to be powered on")
    return await _start(call, server, "start_server", off=server.status == "off")


async def reboot(call: Call) -> Answer:
    return await _start(call, _unlocked(call), "reboot_server", off=False)


async def reset(call: Call) -> Answer:
    return await _start(call, _unlocked(call), "reset_server", off=False)


async def _start(call: Call, server: Server, command: str, off: bool) -> Answer:
    """From off, or from running through off. Under the lie ip-changes it comes up elsewhere."""
    cloud, name = call.cloud, call.cloud.machine_name(server.id)
    moved = (off or command != "start_server") and cloud.lies.tell(LieName.IP_CHANGES)
    if moved:
        await _change_addresses(cloud, server)
    elsewhere = await address_of(cloud, server.ipv4, server.ipv6)

    def work() -> Coroutine[Any, Any, None]:
        if moved:
            return machine_work.restart_elsewhere(cloud, name, elsewhere)
        return machine_work.start(cloud, name) if command == "start_server" else machine_work.reset(cloud, name)

    action = begin(cloud, command, [("server", server.id)], work=work)
    if off and not action.lied:
        server.status = "starting"
    return acted(call.cloud, action)


async def _change_addresses(cloud: Cloud, server: Server) -> None:
    for number in (server.ipv4, server.ipv6):
        address = cloud.primary_ips.get(number or 0)
        if address is not None:
            await _change(cloud, address)


async def _change(cloud: Cloud, address: PrimaryIp) -> None:
    old = address.lease
    fresh = await addresses.make(cloud, address.type, "", address.location, {}, auto_delete=False)
    cloud.primary_ips.pop(fresh.id)
    address.ip, address.lease, address.pointers = fresh.ip, fresh.lease, {}
    await cloud.machines.release(old)


async def power_off(call: Call) -> Answer:
    return _stop(call, "stop_server", machine_work.power_off)


async def shut_down(call: Call) -> Answer:
    return _stop(call, "shutdown_server", machine_work.shut_down)


def _stop(call: Call, command: str, way: Any) -> Answer:
    cloud, server = call.cloud, _unlocked(call)
    name, lied = cloud.machine_name(server.id), cloud.lies.tell(LieName.STOP_RUNS_ON)
    action = begin(cloud, command, [("server", server.id)], work=lambda: way(cloud, name), lied=lied)
    return acted(call.cloud, action)


@effect("stop_server")
def _stopped(cloud: Cloud, action: Action) -> None:
    """After a shutdown, on the other hand, the status is what is seen of the machine."""
    server = cloud.servers.get(dict(action.resources)["server"])
    if server is not None:
        server.status = "off"


async def change_dns_ptr(call: Call) -> Answer:
    cloud, server = call.cloud, _unlocked(call)
    kind = "ipv6" if ":" in take(call.body, "ip", str) else "ipv4"
    address = cloud.primary_ips.get(getattr(server, kind) or 0)
    if address is None:
        raise errors.invalid("ip", "is not the server's")
    return acted(call.cloud, addresses.pointer_action(cloud, address, call, [("server", server.id)]))


async def create_image(call: Call) -> Answer:
    cloud, server = call.cloud, _unlocked(call)
    if take(call.body, "type", str, "snapshot") != "snapshot":
        raise errors.invalid("type", "backups are not enabled for this server")
    description = take(call.body, "description", str, f"snapshot of {server.name}")
    image = images.make(cloud, server, description, take_labels(call.body))
    name, kept = cloud.machine_name(server.id), cloud.image_name(image.id)
    action = begin(
        cloud,
        "create_image",
        [("server", server.id), ("image", image.id)],
        work=lambda: machine_work.take_image(cloud, name, kept),
    )
    return Answer(201, {"action": action_wire(cloud, action), "image": snapshot_wire(cloud, image)})


@effect("create_image")
def _imaged(cloud: Cloud, action: Action) -> None:
    image = cloud.images.get(dict(action.resources)["image"])
    if image is not None:
        image.status, image.size_gb = "available", round(action.arguments["result"] / GIB, 2)


async def rebuild(call: Call) -> Answer:
    cloud, server = call.cloud, _unlocked(call)
    if server.delete_protected:
        raise errors.protected("server")
    server.image = images.usable(cloud, call.body.get("image"), images.architecture_of(server))
    if "user_data" in call.body:
        server.user_data = take(call.body, "user_data", str)
    order = await machine_work.order_for(cloud, server)
    resources = [("server", server.id), ("image", server.image)]
    action = begin(cloud, "rebuild_server", resources, work=lambda: machine_work.rebuild(cloud, order))
    server.status = "rebuilding"
    return Answer(201, {"action": action_wire(cloud, action), "root_password": secrets.token_urlsafe(15)})


@effect("rebuild_server")
def _rebuilt(cloud: Cloud, action: Action) -> None:
    server = cloud.servers.get(dict(action.resources)["server"])
    if server is not None:
        server.status = "running"


_path = "/servers/{id}/actions"
ROUTES: list[ApiRoute] = [
    ("POST", f"{_path}/poweron", power_on),
    ("POST", f"{_path}/poweroff", power_off),
    ("POST", f"{_path}/shutdown", shut_down),
    ("POST", f"{_path}/reboot", reboot),
    ("POST", f"{_path}/reset", reset),
    ("POST", f"{_path}/rebuild", rebuild),
    ("POST", f"{_path}/create_image", create_image),
    ("POST", f"{_path}/change_dns_ptr", change_dns_ptr),
    protection(SERVERS),
]
