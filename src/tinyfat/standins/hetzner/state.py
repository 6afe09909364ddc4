"""The project written down, so that a stand-in that was ended still knows its servers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.memory_host import MemoryHost
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
from tinyfat.standins.hetzner.zones import publish_zone

FILE = "hetzner.json"
_KINDS: dict[str, Any] = {
    "servers": Server,
    "primary_ips": PrimaryIp,
    "ssh_keys": SshKey,
    "firewalls": Firewall,
    "volumes": Volume,
    "images": Image,
    "zones": Zone,
    "rrsets": Rrset,
    "actions": Action,
}


class StateUnreadable(Exception):
    """What is written down is not ours, or broken."""


def save(cloud: Cloud, folder: Path) -> None:
    """A new file in the old one's place, for its owner's eyes: user-data is in it. Raises OSError."""
    body: dict[str, Any] = {name: [asdict(each) for each in getattr(cloud, name).values()] for name in _KINDS}
    body |= {"prefix": cloud.prefix, "last_id": cloud.last_id, "unfinished": list(cloud.work)}
    if isinstance(cloud.host, MemoryHost):
        body["host"] = cloud.host.saved()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder / f"{FILE}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(body, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / FILE)


def restore(cloud: Cloud, folder: Path) -> bool:
    """False where nothing was written down. Raises StateUnreadable."""
    file = folder / FILE
    try:
        _fill(cloud, json.loads(file.read_text()))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnreadable(f"The project in {file} cannot be read: {error!r}. Mend or remove it.") from error
    return True


def _fill(cloud: Cloud, body: Mapping[str, Any]) -> None:
    for name, kind in _KINDS.items():
        setattr(cloud, name, {each["id"]: kind(**each) for each in body[name]})
    for server in cloud.servers.values():
        server.firewalls = {int(number): status for number, status in server.firewalls.items()}
    for action in cloud.actions.values():
        action.resources = [(kind, number) for kind, number in action.resources]
    cloud.prefix, cloud.last_id = body["prefix"], body["last_id"]
    if isinstance(cloud.host, MemoryHost):
        cloud.host.restore(body["host"])
    for number in body["unfinished"]:
        _fail(cloud, cloud.actions[number])
    cloud.pending = {number: action for number, action in cloud.actions.items() if not action.settled}
    for zone in cloud.zones.values():
        publish_zone(cloud, zone)


def _fail(cloud: Cloud, action: Action) -> None:
    """What the host was doing for it was cut off; how far it came is seen by looking."""
    action.settled = True
    if action.hung_at is None:
        action.status, action.finished = "error", cloud.clock()
        action.error = {"code": "action_failed", "message": "The stand-in was ended meanwhile"}
