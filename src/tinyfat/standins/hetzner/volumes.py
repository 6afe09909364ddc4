"""Volumes: disks that outlive servers. No real machine is given one: they are billed, and stay behind."""

from __future__ import annotations

import re
from typing import Any

from tinyfat.standins.hetzner import catalogue, errors
from tinyfat.standins.hetzner.actions import begin, effect
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    acted,
    actions_wire,
    basic_routes,
    find,
    protection,
    take,
    take_labels,
    take_name,
    unused_name,
)
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import Action, Server, Volume
from tinyfat.standins.hetzner.views import action_wire, volume_wire
from tinyfat.standins.lies import LieName

VOLUMES = Collection("volumes", "volume", volume_wire)
SIZE_GB_MIN, SIZE_GB_MAX = 10, 10240
_name = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?")


async def create_volume(call: Call) -> Answer:
    cloud, body = call.cloud, call.body
    name, labels, size = unused_name(call, VOLUMES, _volume_name(body)), take_labels(body), _size(body)
    server = _server(cloud, body.get("server"))
    known = catalogue.location(server.location if server else body.get("location"))
    if known is None:
        raise errors.invalid("location", "is not known")
    volume = Volume(cloud.next_id(), name, cloud.clock(), size, known.name, labels, body.get("format"))
    cloud.volumes[volume.id] = volume
    first = begin(cloud, "create_volume", [("volume", volume.id)])
    following = []
    if server is not None:
        following.append(begin(cloud, "attach_volume", [("volume", volume.id), ("server", server.id)], after=first))
    answer = {
        "volume": volume_wire(cloud, volume),
        "action": action_wire(cloud, first),
        "next_actions": actions_wire(cloud, following),
    }
    return Answer(201, answer)


def _volume_name(body: Any) -> str:
    name = take_name(body)
    if not _name.fullmatch(name):
        raise errors.invalid("name", "must be 1 to 64 letters, digits, dashes, underscores and dots")
    return name


def _size(body: Any) -> int:
    size = take(body, "size", int)
    if not SIZE_GB_MIN <= size <= SIZE_GB_MAX:
        raise errors.invalid("size", f"must be {SIZE_GB_MIN} to {SIZE_GB_MAX} GB")
    return size


def _server(cloud: Cloud, number: object) -> Server | None:
    if number is None:
        return None
    server = cloud.servers.get(number) if isinstance(number, int) else None
    if server is None:
        raise errors.invalid("server", "is not known")
    return server


@effect("create_volume")
def _created(cloud: Cloud, action: Action) -> None:
    volume = cloud.volumes.get(dict(action.resources)["volume"])
    if volume is not None:
        volume.status = "available"


async def attach(call: Call) -> Answer:
    cloud, volume = call.cloud, _unlocked(call)
    server = _server(cloud, take(call.body, "server", int))
    assert server is not None
    if volume.server is not None:
        raise errors.refused("volume_already_attached", "The volume is already attached to a server")
    if volume.location != server.location:
        raise errors.invalid("server", "is in another location")
    action = begin(cloud, "attach_volume", [("volume", volume.id), ("server", server.id)])
    return acted(cloud, action)


def _unlocked(call: Call) -> Volume:
    volume: Volume = find(call, VOLUMES)
    if call.cloud.running("volume", volume.id):
        raise errors.locked("volume")
    return volume


@effect("attach_volume")
def _attached(cloud: Cloud, action: Action) -> None:
    numbers = dict(action.resources)
    volume, server = cloud.volumes.get(numbers["volume"]), cloud.servers.get(numbers["server"])
    if volume is not None and server is not None:
        volume.server = server.id
        server.volumes.append(volume.id)


async def detach(call: Call) -> Answer:
    cloud, volume = call.cloud, _unlocked(call)
    if volume.server is None:
        raise errors.refused("volume_not_attached", "The volume is not attached to a server")
    resources = [("volume", volume.id), ("server", volume.server)]
    action = begin(cloud, "detach_volume", resources, lied=cloud.lies.tell(LieName.VOLUME_STAYS))
    return acted(cloud, action)


@effect("detach_volume")
def _detached(cloud: Cloud, action: Action) -> None:
    numbers = dict(action.resources)
    volume, server = cloud.volumes.get(numbers["volume"]), cloud.servers.get(numbers["server"])
    if volume is not None:
        volume.server = None
    if server is not None and numbers["volume"] in server.volumes:
        server.volumes.remove(numbers["volume"])


async def resize(call: Call) -> Answer:
    cloud, volume = call.cloud, _unlocked(call)
    size = _size(call.body)
    if size < volume.size:
        raise errors.invalid("size", "downsizing is not possible")
    volume.size = size
    return acted(cloud, begin(cloud, "resize_volume", [("volume", volume.id)]))


async def delete_volume(call: Call) -> Answer:
    cloud, volume = call.cloud, _unlocked(call)
    if volume.delete_protected:
        raise errors.protected("volume")
    if volume.server is not None:
        raise errors.locked("volume, still attached to a server,")
    cloud.bury("volumes", volume_wire(cloud, volume))
    del cloud.volumes[volume.id]
    return Answer(204)


_path = "/volumes/{id}/actions"
ROUTES: list[ApiRoute] = [
    ("POST", "/volumes", create_volume),
    ("DELETE", "/volumes/{id}", delete_volume),
    ("POST", f"{_path}/attach", attach),
    ("POST", f"{_path}/detach", detach),
    ("POST", f"{_path}/resize", resize),
    protection(VOLUMES),
    *basic_routes(VOLUMES),
]
