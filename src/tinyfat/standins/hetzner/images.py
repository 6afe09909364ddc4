"""Images: the vendor's own, and snapshots of servers."""

from __future__ import annotations

from typing import Any

from tinyfat.machine_hosts.machine_host import HostRefused
from tinyfat.standins.hetzner import catalogue, errors
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    find,
    listed,
    page,
    protection,
    take,
    take_labels,
)
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import Image, Server
from tinyfat.standins.hetzner.views import image_wire, snapshot_wire, system_image_wire

IMAGES = Collection("images", "image", snapshot_wire)


def architecture_of(server: Server) -> str:
    kind = catalogue.server_type(server.type)
    assert kind is not None
    return kind.architecture


def usable(cloud: Cloud, id_or_name: Any, architecture: str) -> int:
    """The image of this id or name for this architecture. Raises ApiError."""
    wanted = str(id_or_name)
    if wanted.isdecimal() and int(wanted) in cloud.images:
        snapshot = cloud.images[int(wanted)]
        if snapshot.status != "available" or snapshot.architecture != architecture:
            raise errors.invalid("image", "is not available for this server type")
        return snapshot.id
    for own in catalogue.SYSTEM_IMAGES:
        if wanted in (own.name, str(own.id)) and own.architecture == architecture:
            return own.id
    raise errors.invalid("image", "is not known for this architecture")


def make(cloud: Cloud, server: Server, description: str, labels: dict[str, str]) -> Image:
    kind = catalogue.server_type(server.type)
    assert kind is not None
    source = image_wire(cloud, server.image or 0) or {"os_flavor": "unknown", "os_version": ""}
    image = Image(
        id=cloud.next_id(),
        created=cloud.clock(),
        description=description,
        labels=labels,
        architecture=kind.architecture,
        flavour=source["os_flavor"],
        version=source["os_version"] or "",
        disk_gb=kind.disk_gb,
        server=server.id,
        server_name=server.name,
    )
    cloud.images[image.id] = image
    return image


async def list_images(call: Call) -> Answer:
    own = [system_image_wire(each) for each in catalogue.SYSTEM_IMAGES]
    return page(call, "images", own + listed(call.cloud, IMAGES))


async def get_image(call: Call) -> Answer:
    text = call.path["id"]
    wire = image_wire(call.cloud, int(text)) if text.isdecimal() else None
    if wire is None:
        raise errors.not_found("image", text)
    return Answer(200, {"image": wire})


async def update_image(call: Call) -> Answer:
    image = find(call, IMAGES)
    if "description" in call.body:
        image.description = take(call.body, "description", str)
    if "labels" in call.body:
        image.labels = take_labels(call.body)
    return Answer(200, {"image": snapshot_wire(call.cloud, image)})


async def delete_image(call: Call) -> Answer:
    cloud, image = call.cloud, find(call, IMAGES)
    if image.delete_protected:
        raise errors.protected("image")
    if cloud.running("image", image.id):
        raise errors.locked("image")
    try:
        await cloud.machines.remove_image(cloud.image_name(image.id))
    except HostRefused as refused:
        raise errors.ApiError(409, "conflict", str(refused)) from None
    cloud.bury("images", snapshot_wire(cloud, image))
    del cloud.images[image.id]
    return Answer(204)


ROUTES: list[ApiRoute] = [
    ("GET", "/images", list_images),
    ("GET", "/images/{id}", get_image),
    ("PUT", "/images/{id}", update_image),
    ("DELETE", "/images/{id}", delete_image),
    protection(IMAGES),
]
