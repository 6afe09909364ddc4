"""Servers: made, changed and removed. What is done to one that is there is in server_actions.py."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from tinyfat.standins.hetzner import addresses, catalogue, errors, images, machine_work
from tinyfat.standins.hetzner.actions import ActionFailed, begin, effect
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    actions_wire,
    basic_routes,
    find,
    take,
    take_labels,
    take_name,
    unused_name,
)
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import Action, PrimaryIp, Server
from tinyfat.standins.hetzner.views import action_wire, server_wire
from tinyfat.standins.lies import LieName

SERVERS = Collection("servers", "server", server_wire)
USER_DATA_BYTES_MAX = 32 * 1024
DEFAULT_LOCATION = "fsn1"

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_host_name = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class _Net:
    """What was asked of public_net: a Primary IP of one's own, a new one, or none."""

    ipv4: PrimaryIp | None
    ipv6: PrimaryIp | None
    new_ipv4: bool
    new_ipv6: bool


async def create_server(call: Call) -> Answer:
    cloud, body = call.cloud, call.body
    name = unused_name(call, SERVERS, _server_name(body))
    kind = _type(body)
    image = images.usable(cloud, body.get("image"), kind.architecture)
    labels, keys, user_data = take_labels(body), _keys(cloud, body), _user_data(body)
    net = _net(cloud, take(body, "public_net", dict, {}))
    where = _location(body, net)
    firewalls = _firewalls(cloud, body)
    volumes = _volumes(cloud, body, where)
    if len(cloud.servers) >= cloud.options.server_limit:
        raise errors.limit("server_limit")
    _room(cloud, kind, where)
    server = Server(cloud.next_id(), name, cloud.clock(), kind.name, where, image, labels, user_data=user_data)
    await _give_addresses(cloud, server, net)
    server.firewalls = dict.fromkeys(firewalls, "pending")
    cloud.servers[server.id] = server
    first, following = await _begin(cloud, server, take(body, "start_after_create", bool, True), volumes)
    password = None if keys else secrets.token_urlsafe(15)
    answer = {
        "server": server_wire(cloud, server),
        "action": action_wire(cloud, first),
        "next_actions": actions_wire(cloud, following),
        "root_password": password,
    }
    return Answer(201, answer)


def _server_name(body: Any) -> str:
    name = take_name(body)
    if not _host_name.fullmatch(name):
        raise errors.invalid("name", "is not a valid hostname (RFC 1123)")
    return name


def _type(body: Any) -> catalogue.ServerType:
    kind = catalogue.server_type(body.get("server_type"))
    if kind is None:
        raise errors.invalid("server_type", "is not known")
    return kind


def _user_data(body: Any) -> str:
    text = take(body, "user_data", str, "")
    if len(text.encode()) > USER_DATA_BYTES_MAX:
        raise errors.invalid("user_data", f"is over {USER_DATA_BYTES_MAX} bytes")
    return text


def _keys(cloud: Cloud, body: Any) -> list[int]:
    wanted = [str(each) for each in take(body, "ssh_keys", list, [])]
    known = {**{each.name: each.id for each in cloud.ssh_keys.values()}, **{str(each): each for each in cloud.ssh_keys}}
    for each in wanted:
        if each not in known:
            raise errors.invalid("ssh_keys", f"SSH key {each!r} is not known")
    return [known[each] for each in wanted]


def _firewalls(cloud: Cloud, body: Any) -> list[int]:
    numbers = [take(each, "firewall", int) for each in take(body, "firewalls", list, [])]
    for number in numbers:
        if number not in cloud.firewalls:
            raise errors.invalid("firewalls", f"firewall {number} is not known")
    return numbers


def _volumes(cloud: Cloud, body: Any, where: str) -> list[int]:
    numbers = take(body, "volumes", list, [])
    for number in numbers:
        volume = cloud.volumes.get(number)
        if volume is None or volume.server is not None or volume.location != where:
            raise errors.invalid("volumes", f"volume {number} is not known, attached already or in another location")
    return list(numbers)


def _net(cloud: Cloud, asked: dict[str, Any]) -> _Net:
    four, six = (_own(cloud, asked, kind) for kind in ("ipv4", "ipv6"))
    return _Net(
        four,
        six,
        four is None and take(asked, "enable_ipv4", bool, True),
        six is None and take(asked, "enable_ipv6", bool, True),
    )


def _own(cloud: Cloud, asked: dict[str, Any], kind: str) -> PrimaryIp | None:
    number = asked.get(kind)
    if number is None:
        return None
    address = cloud.primary_ips.get(number)
    if address is None:
        raise errors.invalid(f"public_net.{kind}", f"Primary IP {number} is not known")
    if address.type != kind:
        raise errors.refused("primary_ip_version_mismatch", "The specified Primary IP has the wrong IP version")
    if address.assignee is not None or cloud.running("primary_ip", number):
        raise errors.refused("primary_ip_assigned", "The specified Primary IP is already assigned to a server")
    return address


def _location(body: Any, net: _Net) -> str:
    if body.get("datacenter"):
        raise errors.invalid("datacenter", "was removed, use location")
    owned = [address.location for address in (net.ipv4, net.ipv6) if address is not None]
    asked = body.get("location")
    known = catalogue.location(asked if asked is not None else (owned or [DEFAULT_LOCATION])[0])
    if known is None:
        raise errors.invalid("location", "is not known")
    if any(name != known.name for name in owned):
        raise errors.refused("primary_ip_datacenter_mismatch", "The specified Primary IP is in a different location")
    return known.name


def _room(cloud: Cloud, kind: catalogue.ServerType, where: str) -> None:
    if where not in kind.months:
        raise errors.invalid("location", "unsupported location for server type")
    if cloud.lies.tell(LieName.CAPACITY, where):
        code = "resource_unavailable" if cloud.lies.pick(0, 1) else "placement_error"
        raise errors.ApiError(412, code, "error during placement")


async def _give_addresses(cloud: Cloud, server: Server, net: _Net) -> None:
    for kind, own, new in (("ipv4", net.ipv4, net.new_ipv4), ("ipv6", net.ipv6, net.new_ipv6)):
        address = own
        if new:
            name = f"primary_ip-{cloud.last_id + 1}"
            address = await addresses.make(cloud, kind, name, server.location, {}, auto_delete=True)
        if address is not None:
            address.assignee = server.id
            setattr(server, kind, address.id)


async def _begin(cloud: Cloud, server: Server, start: bool, volumes: list[int]) -> tuple[Action, list[Action]]:
    resources = [("server", server.id)]
    order = await machine_work.order_for(cloud, server)
    first = begin(
        cloud,
        "create_server",
        resources,
        {"start": start},
        work=lambda: machine_work.create(cloud, order, start),
    )
    following = [begin(cloud, "start_server", resources, after=first)] if start else []
    for number in volumes:
        attached = [("volume", number), ("server", server.id)]
        following.append(begin(cloud, "attach_volume", attached, after=first))
    for number in server.firewalls:
        applied = [("firewall", number), ("server", server.id)]
        following.append(begin(cloud, "apply_firewall", applied, after=first))
    return first, following


@effect("create_server")
def _created(cloud: Cloud, action: Action) -> None:
    server = cloud.servers.get(dict(action.resources)["server"])
    if server is not None:
        server.status = "starting" if action.arguments["start"] else "off"


@effect("start_server")
def _started(cloud: Cloud, action: Action) -> None:
    server = cloud.servers.get(dict(action.resources)["server"])
    if server is None or server.status == "initializing":
        raise ActionFailed("There is no server to start")
    server.status = "running"


async def update_server(call: Call) -> Answer:
    server = find(call, SERVERS)
    if "name" in call.body:
        server.name = unused_name(call, SERVERS, _server_name(call.body), but=server.id)
    if "labels" in call.body:
        server.labels = take_labels(call.body)
    return Answer(200, {"server": server_wire(call.cloud, server)})


async def delete_server(call: Call) -> Answer:
    cloud, server = call.cloud, find(call, SERVERS)
    if server.delete_protected:
        raise errors.protected("server")
    addresses.unlocked(cloud, server)
    lied = cloud.lies.tell(LieName.DELETE_STAYS)
    owned = [cloud.primary_ips[each] for each in (server.ipv4, server.ipv6) if each in cloud.primary_ips]
    leases = [address.lease for address in owned if address.auto_delete]
    name = cloud.machine_name(server.id)
    action = begin(
        cloud,
        "delete_server",
        [("server", server.id)],
        work=lambda: machine_work.destroy(cloud, name, leases),
        lied=lied,
    )
    if not action.lied:
        server.status = "deleting"
    return Answer(200, {"action": action_wire(cloud, action)})


@effect("delete_server")
def _deleted(cloud: Cloud, action: Action) -> None:
    server = cloud.servers.get(dict(action.resources)["server"])
    if server is None:
        return
    cloud.bury("servers", server_wire(cloud, server))
    for number in (server.ipv4, server.ipv6):
        address = cloud.primary_ips.get(number or 0)
        if address is not None:
            address.assignee = None
            if address.auto_delete:
                addresses.drop(cloud, address)
    for volume in cloud.volumes.values():
        if volume.server == server.id and not cloud.lies.tell(LieName.VOLUME_STAYS):
            volume.server = None
    del cloud.servers[server.id]


ROUTES: list[ApiRoute] = [
    ("POST", "/servers", create_server),
    ("PUT", "/servers/{id}", update_server),
    ("DELETE", "/servers/{id}", delete_server),
    *[route for route in basic_routes(SERVERS) if route[0] == "GET"],
]
