"""Primary IPs: addresses that outlive the servers that have them in turn. Moved only while the server is off."""

from __future__ import annotations

import ipaddress
from typing import Any

from tinyfat.machine_hosts.machine_host import HostAddress, HostRefused
from tinyfat.standins.hetzner import catalogue, errors
from tinyfat.standins.hetzner.actions import begin, effect
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    acted,
    basic_routes,
    find,
    protection,
    take,
    take_labels,
    take_name,
    unused_name,
    updater,
)
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.machine_work import address_of
from tinyfat.standins.hetzner.resources import Action, PrimaryIp, Server
from tinyfat.standins.hetzner.views import action_wire, primary_ip_wire

PRIMARY_IPS = Collection("primary_ips", "primary_ip", primary_ip_wire)


async def create_primary_ip(call: Call) -> Answer:
    cloud, body = call.cloud, call.body
    kind = take(body, "type", str)
    if kind not in ("ipv4", "ipv6"):
        raise errors.invalid("type", "must be ipv4 or ipv6")
    name = unused_name(call, PRIMARY_IPS, take_name(body))
    labels = take_labels(body)
    server = _assignee(cloud, body.get("assignee_id"))
    where = server.location if server else _location(body)
    if server is not None:
        _can_take(server, kind)
    address = await make(cloud, kind, name, where, labels, take(body, "auto_delete", bool, False))
    answer: dict[str, Any] = {"primary_ip": primary_ip_wire(cloud, address)}
    if server is not None:
        answer["action"] = action_wire(cloud, await _assign(cloud, address, server))
    return Answer(201, answer)


async def make(cloud: Cloud, kind: str, name: str, where: str, labels: dict[str, str], auto_delete: bool) -> PrimaryIp:
    if len(cloud.primary_ips) >= cloud.options.address_limit:
        raise errors.limit("primary_ip_limit")
    number = cloud.next_id()
    lease = f"{cloud.prefix}-ip-{number}"
    try:
        given = await cloud.machines.lease(lease)
    except HostRefused as refused:
        raise errors.ApiError(412, "resource_unavailable", str(refused)) from None
    address = PrimaryIp(number, name, cloud.clock(), kind, _ip(kind, given, number), where, labels, lease)
    address.auto_delete = auto_delete
    cloud.primary_ips[number] = address
    return address


def _ip(kind: str, given: HostAddress, number: int) -> str:
    """A Primary IPv6 is a network of 64 bits; a host that has single addresses gives one of 128."""
    if kind == "ipv4":
        return given.ipv4
    if not given.ipv6:
        return f"2001:db8:{number >> 16 & 0xFFFF:x}:{number & 0xFFFF:x}::/64"
    network = ipaddress.IPv6Interface(f"{given.ipv6}/64").network
    whole = ipaddress.IPv6Address(given.ipv6) == network[1]
    return str(network) if whole else f"{given.ipv6}/128"


def _location(body: Any) -> str:
    if body.get("datacenter"):
        raise errors.invalid("datacenter", "was removed on 1 July 2026, use location")
    known = catalogue.location(take(body, "location", str))
    if known is None:
        raise errors.invalid("location", "is not known")
    return known.name


def _assignee(cloud: Cloud, number: object) -> Server | None:
    if number is None:
        return None
    server = cloud.servers.get(number) if isinstance(number, int) else None
    if server is None:
        raise errors.invalid("assignee_id", "there is no such server")
    return server


def _can_take(server: Server, kind: str) -> None:
    if server.status != "off":
        raise errors.refused("server_not_stopped", "The server is running, but needs to be powered off")
    if (server.ipv4 if kind == "ipv4" else server.ipv6) is not None:
        raise errors.refused(f"server_has_{kind}", f"The server already has an {kind} address")


async def assign(call: Call) -> Answer:
    address = find(call, PRIMARY_IPS)
    server = _assignee(call.cloud, take(call.body, "assignee_id", int))
    assert server is not None
    if address.assignee is not None:
        raise errors.refused("primary_ip_already_assigned", "The Primary IP is already assigned to a server")
    if call.cloud.running("primary_ip", address.id):
        raise errors.locked("Primary IP")
    if address.location != server.location:
        raise errors.refused("primary_ip_datacenter_mismatch", "The Primary IP is in another location")
    unlocked(call.cloud, server)
    _can_take(server, address.type)
    return acted(call.cloud, await _assign(call.cloud, address, server))


def unlocked(cloud: Cloud, server: Server) -> Server:
    if cloud.running("server", server.id):
        raise errors.locked("server")
    return server


async def _assign(cloud: Cloud, address: PrimaryIp, server: Server) -> Action:
    return await _move(cloud, "assign_primary_ip", address, server, address.id)


async def _move(cloud: Cloud, command: str, address: PrimaryIp, server: Server, number: int | None) -> Action:
    """`number`: what the server then has of the address's type."""
    four = number if address.type == "ipv4" else server.ipv4
    six = number if address.type == "ipv6" else server.ipv6
    wanted = await address_of(cloud, four, six)

    async def work() -> None:
        await cloud.machines.set_address(cloud.machine_name(server.id), wanted)

    resources = [("primary_ip", address.id), ("server", server.id)]
    return begin(cloud, command, resources, {"ipv4": four, "ipv6": six}, work=work)


@effect("assign_primary_ip")
def _assigned(cloud: Cloud, action: Action) -> None:
    _moved(cloud, action, dict(action.resources)["server"])


@effect("unassign_primary_ip")
def _unassigned(cloud: Cloud, action: Action) -> None:
    _moved(cloud, action, None)


def _moved(cloud: Cloud, action: Action, assignee: int | None) -> None:
    numbers = dict(action.resources)
    address, server = cloud.primary_ips.get(numbers["primary_ip"]), cloud.servers.get(numbers["server"])
    if address is not None:
        address.assignee = assignee
    if server is not None:
        server.ipv4, server.ipv6 = action.arguments["ipv4"], action.arguments["ipv6"]


async def unassign(call: Call) -> Answer:
    cloud, address = call.cloud, find(call, PRIMARY_IPS)
    server = cloud.servers.get(address.assignee or 0)
    if server is None:
        raise errors.refused("primary_ip_not_assigned", "The Primary IP is not assigned")
    unlocked(cloud, server)
    if server.status != "off":
        raise errors.refused("server_not_stopped", "The server is running, but needs to be powered off")
    action = await _move(cloud, "unassign_primary_ip", address, server, None)
    return acted(cloud, action)


async def delete_primary_ip(call: Call) -> Answer:
    cloud, address = call.cloud, find(call, PRIMARY_IPS)
    if address.delete_protected:
        raise errors.protected("Primary IP")
    if address.assignee is not None:
        raise errors.refused("must_be_unassigned", "The Primary IP must be unassigned before it can be deleted")
    await cloud.machines.release(address.lease)
    drop(cloud, address)
    return Answer(204)


def drop(cloud: Cloud, address: PrimaryIp) -> None:
    cloud.bury("primary_ips", primary_ip_wire(cloud, address))
    cloud.primary_ips.pop(address.id, None)


async def update_primary_ip(call: Call) -> Answer:
    if "auto_delete" in call.body:
        find(call, PRIMARY_IPS).auto_delete = take(call.body, "auto_delete", bool)
    return await updater(PRIMARY_IPS)(call)


def pointer_action(cloud: Cloud, address: PrimaryIp, call: Call, resources: list[tuple[str, int]]) -> Action:
    """Reverse DNS of an address of this Primary IP; null takes it away."""
    ip, name = take(call.body, "ip", str), call.body.get("dns_ptr")
    try:
        inside = ipaddress.ip_address(ip) in ipaddress.ip_network(address.ip)
    except ValueError:
        inside = False
    if not inside:
        raise errors.invalid("ip", f"is not of {address.ip}")
    if name is not None and not isinstance(name, str):
        raise errors.invalid("dns_ptr", "must be a string or null")
    return begin(cloud, "change_dns_ptr", resources, {"primary_ip": address.id, "ip": ip, "name": name})


async def change_dns_ptr(call: Call) -> Answer:
    address = find(call, PRIMARY_IPS)
    action = pointer_action(call.cloud, address, call, [("primary_ip", address.id)])
    return acted(call.cloud, action)


@effect("change_dns_ptr")
def _pointed(cloud: Cloud, action: Action) -> None:
    address = cloud.primary_ips.get(action.arguments["primary_ip"])
    if address is None:
        return
    if action.arguments["name"] is None:
        address.pointers.pop(action.arguments["ip"], None)
    else:
        address.pointers[action.arguments["ip"]] = action.arguments["name"]


ROUTES: list[ApiRoute] = [
    ("POST", "/primary_ips", create_primary_ip),
    ("PUT", "/primary_ips/{id}", update_primary_ip),
    ("DELETE", "/primary_ips/{id}", delete_primary_ip),
    ("POST", "/primary_ips/{id}/actions/assign", assign),
    ("POST", "/primary_ips/{id}/actions/unassign", unassign),
    ("POST", "/primary_ips/{id}/actions/change_dns_ptr", change_dns_ptr),
    protection(PRIMARY_IPS),
    *[route for route in basic_routes(PRIMARY_IPS) if route[0] == "GET"],
]
