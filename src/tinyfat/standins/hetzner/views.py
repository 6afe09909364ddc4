"""What is answered for each kind of resource: the shapes of the API's reference."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tinyfat.standins.hetzner import catalogue
from tinyfat.standins.hetzner.actions import progress
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.labels import selector
from tinyfat.standins.hetzner.resources import (
    Action,
    Firewall,
    Image,
    PrimaryIp,
    Rrset,
    Server,
    SshKey,
    Volume,
    Zone,
)

NAME_SERVERS = ["hydrogen.ns.hetzner.com.", "oxygen.ns.hetzner.com.", "helium.ns.hetzner.de."]


def time_wire(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def action_wire(cloud: Cloud, action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "command": action.command,
        "status": action.status,
        "progress": progress(cloud, action),
        "started": time_wire(action.started),
        "finished": None if action.finished is None else time_wire(action.finished),
        "resources": [{"id": number, "type": kind} for kind, number in action.resources],
        "error": action.error,
    }


def _location(name: str) -> dict[str, Any]:
    known = catalogue.location(name)
    assert known is not None
    return catalogue.location_wire(known)


def firewalls_of(cloud: Cloud, server: Server) -> dict[int, str]:
    """By hand and by label selector: id, pending or applied."""
    matched = {
        firewall.id: "applied"
        for firewall in cloud.firewalls.values()
        if any(selector(text)(server.labels) for text in firewall.selectors)
    }
    return {**matched, **server.firewalls}


def server_wire(cloud: Cloud, server: Server) -> dict[str, Any]:
    kind = catalogue.server_type(server.type)
    assert kind is not None
    return {
        "id": server.id,
        "name": server.name,
        "status": server.status,
        "created": time_wire(server.created),
        "public_net": _public_net(cloud, server),
        "private_net": [],
        "server_type": catalogue.server_type_wire(kind),
        "datacenter": catalogue.datacenter_wire(server.location),
        "location": _location(server.location),
        "image": None if server.image is None else image_wire(cloud, server.image),
        "iso": None,
        "rescue_enabled": False,
        "locked": bool(cloud.running("server", server.id)),
        "backup_window": None,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": catalogue.INCLUDED_TRAFFIC_BYTES,
        "protection": {"delete": server.delete_protected, "rebuild": server.delete_protected},
        "labels": server.labels,
        "volumes": server.volumes,
        "load_balancers": [],
        "primary_disk_size": kind.disk_gb,
        "placement_group": None,
    }


def _public_net(cloud: Cloud, server: Server) -> dict[str, Any]:
    four = cloud.primary_ips.get(server.ipv4 or 0)
    six = cloud.primary_ips.get(server.ipv6 or 0)
    ipv4 = four and {"id": four.id, "ip": four.ip, "blocked": False, "dns_ptr": four.pointers.get(four.ip, "")}
    ipv6 = six and {"id": six.id, "ip": six.ip, "blocked": False, "dns_ptr": _pointers(six)}
    applied = [{"id": number, "status": status} for number, status in firewalls_of(cloud, server).items()]
    return {"ipv4": ipv4, "ipv6": ipv6, "floating_ips": [], "firewalls": applied}


def _pointers(address: PrimaryIp) -> list[dict[str, str]]:
    return [{"ip": ip, "dns_ptr": name} for ip, name in address.pointers.items()]


def primary_ip_wire(cloud: Cloud, address: PrimaryIp) -> dict[str, Any]:
    return {
        "id": address.id,
        "name": address.name,
        "ip": address.ip,
        "type": address.type,
        "labels": address.labels,
        "created": time_wire(address.created),
        "blocked": False,
        "location": _location(address.location),
        "datacenter": catalogue.datacenter_wire(address.location),
        "dns_ptr": _pointers(address),
        "assignee_id": address.assignee,
        "assignee_type": "server",
        "auto_delete": address.auto_delete,
        "protection": {"delete": address.delete_protected},
    }


def ssh_key_wire(cloud: Cloud, key: SshKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "labels": key.labels,
        "created": time_wire(key.created),
    }


def firewall_wire(cloud: Cloud, firewall: Firewall) -> dict[str, Any]:
    by_hand = [
        {"type": "server", "server": {"id": server.id}}
        for server in cloud.servers.values()
        if firewall.id in server.firewalls
    ]
    by_label = [_applied_by_label(cloud, text) for text in firewall.selectors]
    return {
        "id": firewall.id,
        "name": firewall.name,
        "labels": firewall.labels,
        "created": time_wire(firewall.created),
        "rules": firewall.rules,
        "applied_to": by_hand + by_label,
    }


def _applied_by_label(cloud: Cloud, text: str) -> dict[str, Any]:
    test = selector(text)
    matching = [server.id for server in cloud.servers.values() if test(server.labels)]
    return {
        "type": "label_selector",
        "label_selector": {"selector": text},
        "applied_to_resources": [{"type": "server", "server": {"id": number}} for number in matching],
    }


def volume_wire(cloud: Cloud, volume: Volume) -> dict[str, Any]:
    return {
        "id": volume.id,
        "name": volume.name,
        "created": time_wire(volume.created),
        "server": volume.server,
        "location": _location(volume.location),
        "size": volume.size,
        "linux_device": f"/dev/disk/by-id/scsi-0HC_Volume_{volume.id}",
        "protection": {"delete": volume.delete_protected},
        "labels": volume.labels,
        "status": volume.status,
        "format": volume.format,
    }


def image_wire(cloud: Cloud, image_id: int) -> dict[str, Any] | None:
    """A snapshot, or one of the vendor's own; None where it is gone."""
    snapshot = cloud.images.get(image_id)
    if snapshot is not None:
        return snapshot_wire(cloud, snapshot)
    own = next((each for each in catalogue.SYSTEM_IMAGES if each.id == image_id), None)
    return None if own is None else system_image_wire(own)


def snapshot_wire(cloud: Cloud, image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "type": "snapshot",
        "status": image.status,
        "name": None,
        "description": image.description,
        "image_size": image.size_gb,
        "disk_size": image.disk_gb,
        "created": time_wire(image.created),
        "created_from": {"id": image.server, "name": image.server_name},
        "bound_to": None,
        "os_flavor": image.flavour,
        "os_version": image.version,
        "rapid_deploy": False,
        "protection": {"delete": image.delete_protected},
        "deprecated": None,
        "deleted": None,
        "labels": image.labels,
        "architecture": image.architecture,
    }


def system_image_wire(image: catalogue.SystemImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "type": "system",
        "status": "available",
        "name": image.name,
        "description": f"{image.flavour.capitalize()} {image.version}",
        "image_size": None,
        "disk_size": 5,
        "created": catalogue.CREATED,
        "created_from": None,
        "bound_to": None,
        "os_flavor": image.flavour,
        "os_version": image.version,
        "rapid_deploy": True,
        "protection": {"delete": False},
        "deprecated": None,
        "deleted": None,
        "labels": {},
        "architecture": image.architecture,
    }


def zone_wire(cloud: Cloud, zone: Zone) -> dict[str, Any]:
    sets = [each for each in cloud.rrsets.values() if each.zone == zone.id]
    return {
        "id": zone.id,
        "name": zone.name,
        "created": time_wire(zone.created),
        "mode": zone.mode,
        "ttl": zone.ttl,
        "labels": zone.labels,
        "protection": {"delete": zone.delete_protected},
        "status": "updating" if cloud.running("zone", zone.id) else "ok",
        "record_count": sum(len(each.records) for each in sets),
        "registrar": "other",
        "primary_nameservers": [],
        "authoritative_nameservers": {
            "assigned": NAME_SERVERS,
            "delegated": [],
            "delegation_last_check": None,
            "delegation_status": "unknown",
        },
    }


def rrset_wire(cloud: Cloud, rrset: Rrset) -> dict[str, Any]:
    return {
        "id": f"{rrset.name}/{rrset.type}",
        "name": rrset.name,
        "type": rrset.type,
        "ttl": rrset.ttl,
        "labels": rrset.labels,
        "protection": {"change": rrset.change_protected},
        "records": rrset.records,
        "zone": rrset.zone,
    }
